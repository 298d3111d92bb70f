"""A first seal.

usage: first_seal.py INVOICE SEALED
environment: MUHURDAR_HOME, the folder of `muhurdar dev`; MUHURDAR_ADDRESS, host:port
"""

# snippet: first-seal
import hashlib
import os
import sys
import uuid
from pathlib import Path

import grpc
from muhurdar.seal.v1 import seal_pb2, seal_pb2_grpc


# snippet: one-call
def first_seal(home: Path, address: str, invoice: bytes) -> bytes:
    ca, key, certificate = [(home / f).read_bytes() for f in ("ca.crt", "clients/branch-1.key", "clients/branch-1.crt")]
    # Without this option what is larger than 4 MiB is lost on its way back, after it was sealed.
    options = [("grpc.max_receive_message_length", 32 << 20)]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options) as channel:
        request = seal_pb2.SealRequest(taxpayer="1000000000", document=invoice, idempotency_key=str(uuid.uuid4()))
        response = seal_pb2_grpc.SealServiceStub(channel).Seal(request, timeout=30)
    if hashlib.sha256(response.sealed_document).digest() != response.result.sealed_document_sha256:
        raise ValueError("what came is not what was sealed")
    return response.sealed_document


# end snippet


if __name__ == "__main__":
    home = Path(os.environ.get("MUHURDAR_HOME", "/tmp/muhurdar"))
    address = os.environ.get("MUHURDAR_ADDRESS", "127.0.0.1:7443")
    Path(sys.argv[2]).write_bytes(first_seal(home, address, Path(sys.argv[1]).read_bytes()))
# end snippet
