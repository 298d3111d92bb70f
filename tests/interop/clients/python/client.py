"""A branch office in Python (grpcio): everything that the published proto promises, seen from the other end.

usage: client.py calls | errors | token | drain | stream N
environment: MUHURDAR_HOME, the appliance's folder; MUHURDAR_ADDRESS, host:port; PYTHONPATH, where `grpc_tools.protoc` has put
  what it made of the proto; for `drain` MUHURDAR_PID, the appliance's process; for `errors`, where there is one,
  MUHURDAR_ENDED, a taxpayer whose certificate has ended
Prints a line for each thing that held, and ends with 1 at the first that did not.
"""

import hashlib
import sys
import traceback

import grpc
from branch import branch
from calls import calls
from documents import RSA, invoice
from errors import drain, errors, token
from held import held
from stream import Document, Refusal, seal_all


def stream(count: str = "500") -> None:
    """Prints `id sha256-of-what-was-sealed receipt-id` for each, as it is answered, while the test ends the service."""
    numbers = [f"TST2026{n:09}" for n in range(1, int(count) + 1)]
    documents = [Document(number, RSA, invoice(number=number)) for number in numbers]
    noticed: list[bool] = []
    sealed: set[str] = set()

    def ended(why: Refusal) -> None:
        print(f"ended: {why}; {len(sealed)} of {count} are sealed", flush=True)
        if noticed:
            assert why.reason == "DRAINING" and why.retry_after > 0, f"after its notice a stream ends with {why}"
            held("DRAINING")
        noticed.clear()

    def draining() -> None:
        noticed.append(True)
        held("the drain notice")

    for document, answer in seal_all(branch(), documents, draining=draining, ended=ended):
        assert not isinstance(answer, Refusal), f"{document.id} was refused: {answer}"
        assert document.id not in sealed, f"{document.id} was answered twice"
        assert answer.result.receipt.document_id == document.id, (
            f"{document.id} has the receipt of {answer.result.receipt}"
        )
        sealed.add(document.id)
        print(document.id, hashlib.sha256(answer.sealed_document).hexdigest(), answer.result.receipt.id, flush=True)
    assert sealed == set(numbers), f"{len(sealed)} of {count} are sealed"
    print(f"sealed: {len(sealed)}", flush=True)


phase, *arguments = sys.argv[1:]
try:
    {"calls": calls, "errors": errors, "token": token, "drain": drain, "stream": stream}[phase](*arguments)
except (AssertionError, Refusal, grpc.RpcError) as error:
    frames = traceback.extract_tb(error.__traceback__)
    where = ", ".join(f"{frame.name} line {frame.lineno}" for frame in frames if "site-packages" not in frame.filename)
    said = f"{error.code().name} {error.details()}" if isinstance(error, grpc.RpcError) else error
    sys.exit(f"{phase} ({where}): {said}")
