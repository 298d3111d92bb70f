"""A branch office in Python (grpcio): everything that the published proto promises, seen from the other end.

usage: client.py PROTO_DIR APPLIANCE_DIR ADDRESS ADMIN_PID PHASE
phase: calls | token | drain. Prints a line for each thing that held, and ends with 1 at the first that did not.
"""

import concurrent.futures
import hashlib
import importlib
import os
import pathlib
import signal
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO, HOME, ADDRESS, PID, PHASE = sys.argv[1:6]
HOME = pathlib.Path(HOME)
RSA, EC = "1000000000", "1000000018"

generated = tempfile.TemporaryDirectory()
code = protoc.main(
    ["protoc", f"-I{PROTO}", f"-I{pathlib.Path(protoc.__file__).parent / '_proto'}"]
    + [f"--python_out={generated.name}", f"--grpc_python_out={generated.name}", "muhurdar/seal/v1/seal.proto"]
)
assert code == 0, "protoc takes the published proto"
sys.path.insert(0, generated.name)
seal = importlib.import_module("muhurdar.seal.v1.seal_pb2")
services = importlib.import_module("muhurdar.seal.v1.seal_pb2_grpc")


def channel(name):
    read = lambda file: (HOME / file).read_bytes()
    own = {"private_key": read(f"clients/{name}.key"), "certificate_chain": read(f"clients/{name}.crt")} if name else {}
    credentials = grpc.ssl_channel_credentials(root_certificates=read("ca.crt"), **own)
    return grpc.secure_channel(ADDRESS, credentials)


def branch(name):
    return services.SealServiceStub(channel(name))


def invoice(sealer=RSA, content=""):
    ubl = "urn:oasis:names:specification:ubl:schema:xsd:"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Invoice xmlns="{ubl}Invoice-2" '
        f'xmlns:cac="{ubl}CommonAggregateComponents-2" xmlns:cbc="{ubl}CommonBasicComponents-2" '
        f'xmlns:ext="{ubl}CommonExtensionComponents-2">\n'
        "<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n"
        "<cbc:ID>TST2026000000001</cbc:ID>\n"
        f'<cac:Signature><cbc:ID schemeID="VKN_TCKN">{sealer}</cbc:ID></cac:Signature>\n{content}</Invoice>\n'
    ).encode()


def request(document=None, taxpayer=RSA, **fields):
    return seal.SealRequest(taxpayer=taxpayer, document=invoice() if document is None else document, **fields)


def is_sealed(response):
    document = response.sealed_document
    assert b"<ds:SignatureValue" in document, "the document carries a seal"
    assert hashlib.sha256(document).digest() == response.sealed_document_sha256, "its digest is that of the file"
    assert response.receipt.id and response.signing_time


def details(status):
    """ErrorInfo, and the other details by their names."""
    found = {}
    for detail in status.details:
        for kind in ("ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure"):
            message = getattr(error_details_pb2, kind)()
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
                found[kind] = message
    return found.get("ErrorInfo"), found


def refusal(call, expected, reason):
    """The details of a call's error, which must be this one."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == expected, f"{error.code()} for {expected}: {error.details()}"
        info, found = details(rpc_status.from_call(error))
        assert info.domain == "muhurdar" and info.reason == reason, f"{info.reason} for {reason}"
        return found
    raise AssertionError(f"{reason}: was not refused")


def held(what):
    print(f"held: {what}", flush=True)


def calls():
    stub = branch("branch-1")
    is_sealed(stub.Seal(request()))
    held("Seal")

    documents = {"a": invoice(), "b": b"<Invoice", "c": invoice(EC), "d": invoice(content="<cbc:Note>d</cbc:Note>")}
    items = (seal.SealStreamRequest(id=i, request=request(d)) for i, d in documents.items())
    answers = {answer.id: answer for answer in stub.SealStream(items)}
    is_sealed(answers["a"].response)
    is_sealed(answers["d"].response)
    assert details(answers["b"].error)[0].reason == "XML_MALFORMED"
    assert details(answers["c"].error)[0].reason == "TAXPAYER_MISMATCH"
    held("SealStream")

    batch = stub.SealBatch(seal.SealBatchRequest(items=[request(), request(b"x"), request()])).results
    is_sealed(batch[0].response)
    is_sealed(batch[2].response)
    assert details(batch[1].error)[0].reason == "XML_MALFORMED"
    held("SealBatch")

    content = invoice(content="<cbc:Note>" + "uzun " * 400_000 + "</cbc:Note>")
    header = seal.SealLargeHeader(taxpayer=RSA, size=len(content))
    chunks = [content[at : at + 200_000] for at in range(0, len(content), 200_000)]
    parts = [seal.SealLargeRequest(header=header)] + [seal.SealLargeRequest(chunk=chunk) for chunk in chunks]
    answers = list(stub.SealLarge(iter(parts)))
    document = b"".join(answer.chunk for answer in answers[1:-1])
    assert answers[0].result.signing_time and b"<ds:SignatureValue" in document
    assert hashlib.sha256(document).digest() == answers[-1].end.sealed_document_sha256
    held("SealLarge")

    only = stub.Seal(request(answer=seal.ANSWER_SIGNATURE_ONLY))
    at, end = only.seal.offset, only.seal.offset + only.seal.length
    spliced = invoice()[:at] + only.seal.replacement + invoice()[end:]
    assert hashlib.sha256(spliced).digest() == only.sealed_document_sha256
    held("a signature only")

    key = {"idempotency_key": "python-1"}
    assert stub.Seal(request(**key)) == stub.Seal(request(**key))
    held("an idempotency key")

    signed = stub.SealDigest(seal.SealDigestRequest(taxpayer=RSA, digest=hashlib.sha256(b"x").digest()))
    assert len(signed.signature_value) == 256
    held("SealDigest")
    seals = stub.ListSeals(seal.ListSealsRequest()).seals
    assert [s.taxpayer for s in seals] == [RSA, EC] and all(s.usable for s in seals)
    assert stub.GetSeal(seal.GetSealRequest(taxpayer=EC)).seal.key_type == seal.KEY_TYPE_EC_P384
    held("ListSeals, GetSeal")

    health = health_pb2_grpc.HealthStub(channel("branch-1"))
    asked = health_pb2.HealthCheckRequest(service="muhurdar.seal.v1.SealService")
    assert health.Check(asked).status == health_pb2.HealthCheckResponse.SERVING
    held("health")
    errors(stub)


def errors(stub):
    Code = grpc.StatusCode
    found = refusal(lambda: stub.Seal(request(invoice(content="<a></b>"))), Code.INVALID_ARGUMENT, "XML_MALFORMED")
    metadata = found["ErrorInfo"].metadata
    assert metadata["line"] == "6" and int(metadata["column"]) > 1 and found["BadRequest"].field_violations
    for document, code, reason in [
        (b"<!DOCTYPE a><a/>", Code.INVALID_ARGUMENT, "XML_DTD_FORBIDDEN"),
        (invoice(content="<a>" * 300 + "</a>" * 300), Code.INVALID_ARGUMENT, "XML_LIMIT"),
        (b"<a/>", Code.INVALID_ARGUMENT, "DOCUMENT_TYPE"),
        (stub.Seal(request()).sealed_document, Code.FAILED_PRECONDITION, "ALREADY_SEALED"),
        (invoice(EC), Code.FAILED_PRECONDITION, "TAXPAYER_MISMATCH"),
    ]:
        refusal(lambda: stub.Seal(request(document)), code, reason)
        held(reason)
    uri = "<cac:DigitalSignatureAttachment><cac:ExternalReference><cbc:URI>#1 x</cbc:URI></cac:ExternalReference>"
    place = invoice().replace(b"</cac:Signature>", (uri + "</cac:DigitalSignatureAttachment></cac:Signature>").encode())
    refusal(lambda: stub.Seal(request(place)), Code.INVALID_ARGUMENT, "SEAL_PLACE")
    held("SEAL_PLACE")
    refusal(lambda: stub.Seal(request(taxpayer="1234567890")), Code.NOT_FOUND, "SEAL_UNKNOWN")
    held("SEAL_UNKNOWN")
    refusal(lambda: branch("auditor").Seal(request()), Code.PERMISSION_DENIED, "ACCESS")
    held("ACCESS")
    try:
        branch(None).Seal(request())
        raise AssertionError("nobody was let in")
    except grpc.RpcError as error:
        assert error.code() == Code.UNAUTHENTICATED, error
    held("UNAUTHENTICATED")
    found = refusal(lambda: [branch("few").Seal(request()) for _ in range(4)], Code.RESOURCE_EXHAUSTED, "QUOTA")
    assert found["QuotaFailure"].violations[0].subject == "documents_per_second"
    assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    held("QUOTA")
    overloaded(stub)


def overloaded(stub):
    """The queue holds 8, the HSM does 40 a second."""
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        outcomes = [pool.submit(stub.Seal, request(priority=seal.PRIORITY_BULK)) for _ in range(60)]
        # The first ones still wait, and this one has no time to.
        time.sleep(0.05)
        late = stub.Seal.future(request(priority=seal.PRIORITY_BULK), timeout=0.06)
    refused = [outcome.exception() for outcome in outcomes if outcome.exception()]
    assert 10 < len(refused) < 60, f"{len(refused)} of 60 refused"
    for error in refused:
        info, found = details(rpc_status.from_call(error))
        assert (error.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    held("OVERLOADED")
    assert late.exception() is None or late.code() in (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )


def reflection():
    """Without the proto: what the service says of itself."""
    database = ProtoReflectionDescriptorDatabase(channel("branch-1"))
    assert "muhurdar.seal.v1.SealService" in database.get_services()
    file = database.FindFileContainingSymbol("muhurdar.seal.v1.SealService")
    names = [method.name for method in file.service[0].method]
    assert "SealLarge" in names and "SealStream" in names, names
    held("reflection")


def token():
    """The test has broken the HSM."""
    stub = branch("branch-1")
    for _ in range(3):
        found = refusal(lambda: stub.Seal(request()), grpc.StatusCode.UNAVAILABLE, "TOKEN_UNAVAILABLE")
        assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    held("TOKEN_UNAVAILABLE")


def drain():
    """A signature takes two seconds now: time enough to be told."""
    stub = branch("branch-1")
    admitted = stub.Seal.future(request())
    time.sleep(0.5)
    os.kill(int(PID), signal.SIGTERM)
    time.sleep(0.3)
    refusal(lambda: stub.Seal(request()), grpc.StatusCode.UNAVAILABLE, "DRAINING")
    held("DRAINING")
    is_sealed(admitted.result())
    held("what was admitted is answered")


{"calls": lambda: (calls(), reflection()), "token": token, "drain": drain}[PHASE]()
