"""Every refusal of the contract that a caller can provoke, with what it carries for programs."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
import uuid
from collections.abc import Callable

import grpc
from branch import Refusal, branch, channel, details, patiently
from calls import is_sealed, reason, request
from documents import EC, RSA, invoice, note
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import StatusCode as Code
from grpc_status import rpc_status
from held import held
from muhurdar.seal.v1 import reason_pb2, seal_pb2_grpc
from muhurdar.seal.v1 import seal_pb2 as pb

PLACE = {"line", "column", "offset"}
NUMBERS = PLACE | {"value", "size", "item"}


def carries(status: status_pb2.Status, wanted: str, keys: set[str]) -> dict[str, Message]:
    """The details of a status, which must have this reason, and what every status has, whichever its reason."""
    found = details(status)
    assert found, f"{wanted}: a status without details: {status}"
    info = found["ErrorInfo"]
    assert (info.domain, info.reason) == ("muhurdar", wanted), f"{info.reason} for {wanted}: {status.message}"
    assert reason_pb2.Reason.Value(f"REASON_{wanted}"), f"{wanted} is in the proto"
    assert next(iter(found)) == "ErrorInfo" and list(found)[-1] == "LocalizedMessage", f"{wanted}: {list(found)}"
    local = found["LocalizedMessage"]
    assert local.locale == "tr" and local.message and local.message != status.message, f"{wanted}: {local}"
    metadata = dict(info.metadata)
    optional = {"size"} if "limit" in keys else set()
    assert keys <= set(metadata) <= keys | optional, f"{wanted} tells {metadata} and not {keys}"
    assert all(metadata[key].isdecimal() for key in NUMBERS & set(metadata)), f"{wanted}: {metadata}"
    if "field" in keys:
        assert [v.field for v in found["BadRequest"].field_violations] == [metadata["field"]], f"{wanted}: {found}"
    return found


def refused(call: Callable[[], object], code: Code, wanted: str, *keys: str) -> dict[str, Message]:
    """The details of a call's refusal, which must be this one."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() is code, f"{error.code()} for {code}, {wanted}: {error.details()}"
        assert len(error.details().encode()) <= 1000, f"{wanted}: a long message"
        found = carries(rpc_status.from_call(error), wanted, set(keys))
        assert ("RetryInfo" in found) == (code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)), (
            f"{wanted}: {list(found)}"
        )
        if "RetryInfo" in found:
            comes_back(error, found)
        return found
    raise AssertionError(f"{wanted}: was not refused")


def comes_back(error: grpc.RpcError, found: dict[str, Message]) -> None:
    """RetryInfo, and the same time for libraries that try again by themselves."""
    after = found["RetryInfo"].retry_delay.ToMilliseconds()
    pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert 0 < after <= 60_000 and pushback in (str(after), str(after + 1)), (
        f"RetryInfo {after} ms, pushback {pushback!r}"
    )


def metadata(found: dict[str, Message]) -> dict[str, str]:
    return dict(found["ErrorInfo"].metadata)


def errors() -> None:
    stub = branch()
    documents(stub)
    certificates(stub)
    fields(stub)
    sizes(stub)
    callers()
    later(stub)


def documents(stub: seal_pb2_grpc.SealServiceStub) -> None:
    seal = lambda document, **fields: lambda: stub.Seal(request(document, **fields))
    document = invoice(content="<cbc:Note>şğ</cbc:Note><a></b>")
    found = refused(seal(document), Code.INVALID_ARGUMENT, "XML_MALFORMED", *PLACE)
    place = metadata(found)
    before = document[: int(place["offset"])].decode().split("\n")
    assert before[-1].startswith("<cbc:Note>şğ</cbc:Note><a>"), f"{place}"
    assert (int(place["line"]), int(place["column"])) == (len(before), len(before[-1]) + 1), f"{place}"
    assert found["BadRequest"].field_violations[0].field == "document"
    held("XML_MALFORMED")
    refused(seal(b"<!DOCTYPE a><a/>"), Code.INVALID_ARGUMENT, "XML_DTD_FORBIDDEN", *PLACE)
    held("XML_DTD_FORBIDDEN")
    limits = stub.GetServerInfo(pb.GetServerInfoRequest()).limits
    deep = seal(invoice(content="<a>" * 300 + "</a>" * 300))
    found = refused(deep, Code.INVALID_ARGUMENT, "XML_LIMIT", "limit", "value", *PLACE)
    assert (metadata(found)["limit"], metadata(found)["value"]) == ("depth", str(limits.depth)), f"{metadata(found)}"
    held("XML_LIMIT")
    refused(seal(b"<a/>"), Code.INVALID_ARGUMENT, "DOCUMENT_TYPE", *PLACE)
    asked = pb.SealOptions(document_type=pb.DOCUMENT_TYPE_CREDIT_NOTE)
    found = refused(
        seal(invoice(), options=asked), Code.INVALID_ARGUMENT, "DOCUMENT_TYPE", "requested", "named", *PLACE
    )
    assert metadata(found)["requested"] != metadata(found)["named"], f"{metadata(found)}"
    held("DOCUMENT_TYPE")
    uri = "<cac:DigitalSignatureAttachment><cac:ExternalReference><cbc:URI>#1 x</cbc:URI></cac:ExternalReference>"
    nowhere = invoice().replace(
        b"</cac:Signature>", (uri + "</cac:DigitalSignatureAttachment></cac:Signature>").encode()
    )
    refused(seal(nowhere), Code.INVALID_ARGUMENT, "SEAL_PLACE")
    second = invoice().replace(b"<ext:UBLExtensions>", b"<cbc:Note/><ext:UBLExtensions>")
    refused(seal(second), Code.INVALID_ARGUMENT, "SEAL_PLACE", *PLACE)
    held("SEAL_PLACE")
    refused(seal(stub.Seal(request()).sealed_document), Code.FAILED_PRECONDITION, "ALREADY_SEALED", *PLACE)
    held("ALREADY_SEALED")
    found = refused(seal(invoice(EC)), Code.FAILED_PRECONDITION, "TAXPAYER_MISMATCH", "requested", "named")
    assert metadata(found) == {"requested": RSA, "named": EC}, f"{metadata(found)}"
    held("TAXPAYER_MISMATCH")


def certificates(stub: seal_pb2_grpc.SealServiceStub) -> None:
    found = refused(lambda: stub.Seal(request(taxpayer="1234567890")), Code.NOT_FOUND, "SEAL_UNKNOWN", "requested")
    assert metadata(found) == {"requested": "1234567890"}, f"{metadata(found)}"
    unknown = lambda: stub.GetSeal(pb.GetSealRequest(id=bytes(32)))
    found = refused(unknown, Code.NOT_FOUND, "SEAL_UNKNOWN", "requested")
    assert metadata(found) == {"requested": "00" * 32}, f"{metadata(found)}"
    held("SEAL_UNKNOWN")
    chosen = stub.GetSeal(pb.GetSealRequest(taxpayer=RSA)).seal.id
    other = request(options=pb.SealOptions(certificate_sha256=bytes(32)))
    found = refused(lambda: stub.Seal(other), Code.FAILED_PRECONDITION, "CERTIFICATE_CHANGED", "requested", "named")
    assert metadata(found) == {"requested": "00" * 32, "named": chosen.hex()}, f"{metadata(found)}"
    is_sealed(stub.Seal(request(options=pb.SealOptions(certificate_sha256=chosen))))
    held("CERTIFICATE_CHANGED")
    if ended := os.environ.get("MUHURDAR_ENDED"):
        # A taxpayer whose certificate has ended.
        seal = stub.GetSeal(pb.GetSealRequest(taxpayer=ended)).seal
        assert seal.state == pb.SEAL_STATE_EXPIRED and seal.state_detail, f"{seal}"
        expired = lambda: stub.Seal(request(invoice(ended), taxpayer=ended))
        found = refused(expired, Code.FAILED_PRECONDITION, "CERTIFICATE_UNUSABLE", "named")
        assert metadata(found) == {"named": seal.id.hex()}, f"{metadata(found)}"
        held("CERTIFICATE_UNUSABLE")


def fields(stub: seal_pb2_grpc.SealServiceStub) -> None:
    digest = pb.SignDigestRequest(taxpayer=RSA, digest=bytes(32), certificate_sha256=bytes(32))
    for field, call in {
        "idempotency_key": lambda: stub.Seal(request(idempotency_key="k" * 129)),
        "options.level": lambda: stub.Seal(request(options=pb.SealOptions(level=pb.LEVEL_A))),
        "options.preflight": lambda: stub.Seal(request(options=pb.SealOptions(preflight=pb.PREFLIGHT_REFUSE))),
        "digest_algorithm": lambda: stub.SignDigest(digest),
        "page_token": lambda: stub.ListSeals(pb.ListSealsRequest(page_token="nonsense")),
    }.items():
        found = refused(call, Code.INVALID_ARGUMENT, "REQUEST", "field")
        assert metadata(found) == {"field": field}, f"{metadata(found)} and not {field}"
    twice = [pb.SealStreamRequest(id=id, request=request()) for id in ("a", "a", "i" * 129)]
    answers = list(stub.SealStream(iter(twice), timeout=60))
    errors = {answer.id: answer.error for answer in answers if answer.WhichOneof("outcome") == "error"}
    assert len(answers) == 3 and len(errors) == 2, f"answers {[a.id for a in answers]}, errors {list(errors)}"
    for id, error in errors.items():
        assert id == "a" or id.startswith("i" * 100) and len(id.encode()) <= 128, f"a cut id {id}"
        assert carries(error, "REQUEST", {"field"})["ErrorInfo"].metadata["field"] == "id"
    connection = channel("branch-1")
    nothing = connection.unary_unary("/muhurdar.seal.v1.SealService/Nothing")
    refused(lambda: nothing(b""), Code.UNIMPLEMENTED, "REQUEST")
    garbage = connection.unary_unary("/muhurdar.seal.v1.SealService/Seal")
    refused(lambda: garbage(b"\xff\xff\xff"), Code.INTERNAL, "REQUEST")
    held("REQUEST")
    key = str(uuid.uuid4())
    stub.Seal(request(note("1"), idempotency_key=key))
    other = lambda: stub.Seal(request(note("2"), idempotency_key=key))
    refused(other, Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED")
    held("IDEMPOTENCY_KEY_REUSED")
    refused(lambda: stub.Seal(request(timeout=Duration(nanos=1_000_000))), Code.DEADLINE_EXCEEDED, "DEADLINE")
    held("DEADLINE")


def sizes(stub: seal_pb2_grpc.SealServiceStub) -> None:
    limits = stub.GetServerInfo(pb.GetServerInfoRequest()).limits
    message = {"limit": "message_bytes", "value": str(limits.message_bytes)}
    huge = request(b"x" * limits.message_bytes)
    found = refused(lambda: stub.Seal(huge), Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE", "limit", "value")
    assert message.items() <= metadata(found).items(), f"{metadata(found)}"
    error = next(stub.SealStream(iter([pb.SealStreamRequest(id="huge", request=huge)]), timeout=60)).error
    found = carries(error, "MESSAGE_TOO_LARGE", {"limit", "value"})
    assert message.items() <= metadata(found).items(), f"{metadata(found)}"
    third = request(b"x" * (limits.message_bytes // 3))
    batch = lambda: stub.SealBatch(pb.SealBatchRequest(items=[third] * 4))
    found = refused(batch, Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE", "limit", "value", "item")
    assert (message | {"item": "2"}).items() <= metadata(found).items(), f"{metadata(found)}"
    held("MESSAGE_TOO_LARGE")
    header = pb.SealLargeRequest(header=pb.SealLargeHeader(taxpayer=RSA, size=limits.large_document_bytes + 1))
    found = refused(lambda: list(stub.SealLarge(iter([header]))), Code.INVALID_ARGUMENT, "XML_LIMIT", "limit", "value")
    assert (metadata(found)["limit"], metadata(found)["value"]) == (
        "large_document_bytes",
        str(limits.large_document_bytes),
    )
    held("XML_LIMIT, before it is sent")


def callers() -> None:
    refused(lambda: branch("auditor").Seal(request()), Code.PERMISSION_DENIED, "ACCESS")
    held("ACCESS")
    refused(lambda: branch(None).Seal(request()), Code.UNAUTHENTICATED, "CLIENT_CERTIFICATE")
    held("CLIENT_CERTIFICATE")


def later(stub: seal_pb2_grpc.SealServiceStub) -> None:
    few = branch("few")
    found = refused(lambda: [few.Seal(request()) for _ in range(4)], Code.RESOURCE_EXHAUSTED, "QUOTA", "limit", "value")
    assert metadata(found) == {"limit": "documents_per_second", "value": "1"}, f"{metadata(found)}"
    assert found["QuotaFailure"].violations[0].subject == "documents_per_second"
    held("QUOTA")
    assert patiently(lambda left: few.Seal(request(), timeout=left)).sealed_document
    held("QUOTA, and patience")
    overloaded(stub)


def overloaded(stub: seal_pb2_grpc.SealServiceStub) -> None:
    """The queue holds 8, the HSM does 40 a second."""
    bulk = request(options=pb.SealOptions(priority=pb.PRIORITY_BULK))
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        outcomes = [pool.submit(stub.Seal, bulk) for _ in range(60)]
    errors = [outcome.exception() for outcome in outcomes if outcome.exception()]
    assert 10 < len(errors) < 60, f"{len(errors)} of 60 refused"
    for error in errors:

        def again(error: grpc.RpcError = error) -> None:
            raise error

        found = refused(again, Code.RESOURCE_EXHAUSTED, "OVERLOADED", "limit", "value")
        assert metadata(found) == {"limit": "queue", "value": "8"}, f"{metadata(found)}"
    held("OVERLOADED")


def token() -> None:
    """The test has broken the HSM."""
    stub = branch()
    for _ in range(3):
        refused(lambda: stub.Seal(request()), Code.UNAVAILABLE, "TOKEN_UNAVAILABLE")
    try:
        patiently(lambda left: stub.Seal(request(), timeout=left), deadline=2)
        raise AssertionError("sealed by a broken HSM")
    except Refusal as refusal:
        assert refusal.reason == "TOKEN_UNAVAILABLE" and refusal.retryable, f"{refusal}"
    held("TOKEN_UNAVAILABLE")


def drain() -> None:
    """A signature takes four seconds now: time enough to be told."""
    stub = branch()
    stub.GetServerInfo(pb.GetServerInfoRequest())
    admitted = stub.Seal.future(request())
    time.sleep(1)
    os.kill(int(os.environ["MUHURDAR_PID"]), signal.SIGTERM)
    # Refused for what it is, until the signal has come.
    told = "XML_MALFORMED"
    while told == "XML_MALFORMED":
        try:
            stub.Seal(request(b"<Invoice"))
        except grpc.RpcError as error:
            told = Refusal.of_call(error).reason
    refused(lambda: stub.Seal(request()), Code.UNAVAILABLE, "DRAINING")
    held("DRAINING")
    is_sealed(admitted.result())
    held("what was admitted is answered")
