"""Every call of the contract, answered."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
from branch import ADDRESS, HOME, OPTIONS, Refusal, branch, channel, patiently, seal_file, splice
from documents import EC, RSA, invoice, note
from first_seal import first_seal
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from held import held
from muhurdar.seal.v1 import seal_pb2 as pb
from muhurdar.seal.v1 import seal_pb2_grpc


def request(document: bytes | None = None, taxpayer: str = RSA, **fields: Any) -> pb.SealRequest:
    return pb.SealRequest(taxpayer=taxpayer, document=invoice() if document is None else document, **fields)


def is_sealed(response: pb.SealResponse) -> None:
    document, result = response.sealed_document, response.result
    assert b"<ds:SignatureValue" in document, "a document without a seal"
    assert hashlib.sha256(document).digest() == result.sealed_document_sha256, "a digest that is not the file's"
    assert uuid.UUID(result.receipt.id).version == 7 and result.receipt.client == "branch-1", (
        f"a receipt of {result.receipt}"
    )
    assert result.signing_time and result.level == pb.LEVEL_BES, f"{result.signing_time!r}, level {result.level}"


def reason(status: status_pb2.Status) -> str:
    """Of an item's error."""
    return Refusal.of_item(status).reason


def stream(stub: seal_pb2_grpc.SealServiceStub, items: dict[str, pb.SealRequest]) -> dict[str, pb.SealStreamResponse]:
    sent = (pb.SealStreamRequest(id=id, request=item) for id, item in items.items())
    return {answer.id: answer for answer in stub.SealStream(sent, timeout=60)}


def calls() -> None:
    stub = branch()
    info(stub)
    one(stub)
    many(stub)
    large(stub)
    sizes(stub)
    keys(stub)
    digests(stub)
    seals(stub)
    beside()


def info(stub: seal_pb2_grpc.SealServiceStub) -> None:
    told = patiently(lambda left: stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=left))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", told.version), f"a version {told.version!r}"
    limits, caller = told.limits, told.caller
    assert dict(OPTIONS)["grpc.max_receive_message_length"] >= limits.message_bytes + (1 << 20), f"limits of {limits}"
    assert limits.document_bytes <= limits.message_bytes < limits.large_document_bytes, f"limits of {limits}"
    assert limits.chunk_bytes >= 256 << 10 and limits.batch_items and limits.stream_in_flight >= 64, (
        f"limits of {limits}"
    )
    assert limits.depth and limits.attributes, f"limits of {limits}"
    assert limits.request_timeout.seconds and limits.large_timeout.seconds, f"limits of {limits}"
    assert told.idempotency_window.seconds > 0 and pb.LEVEL_BES in told.levels
    assert caller.client == "branch-1" and caller.taxpayers == ["*"], f"rights of {caller}"
    assert pb.PRIORITY_BULK in caller.priorities, f"rights of {caller}"
    assert {pb.RIGHT_SEAL, pb.RIGHT_LIST, pb.RIGHT_DIGEST} == set(caller.rights), f"rights of {caller}"
    assert caller.certificate_not_after.seconds > time.time(), "a certificate that has ended"
    held("GetServerInfo")


def one(stub: seal_pb2_grpc.SealServiceStub) -> None:
    assert b"<ds:SignatureValue" in first_seal(HOME, ADDRESS, invoice())
    held("a first seal")
    is_sealed(
        patiently(
            lambda left: stub.Seal(request(options=pb.SealOptions(priority=pb.PRIORITY_INTERACTIVE)), timeout=left)
        )
    )
    held("Seal")
    only = stub.Seal(request(options=pb.SealOptions(answer=pb.ANSWER_KIND_PATCH)))
    assert only.WhichOneof("answer") == "patch", "a document where a patch was asked for"
    assert hashlib.sha256(splice(invoice(), only.patch)).digest() == only.result.sealed_document_sha256
    held("a patch")


def many(stub: seal_pb2_grpc.SealServiceStub) -> None:
    answers = stream(
        stub, {"a": request(), "b": request(b"<Invoice"), "c": request(invoice(EC)), "d": request(note("d"))}
    )
    is_sealed(answers["a"].response)
    is_sealed(answers["d"].response)
    assert reason(answers["b"].error) == "XML_MALFORMED" and reason(answers["c"].error) == "TAXPAYER_MISMATCH"
    held("SealStream")

    answers = stream(
        stub, {"hasty": request(note("hasty"), timeout=Duration(nanos=1_000_000)), "calm": request(note("calm"))}
    )
    assert reason(answers["hasty"].error) == "DEADLINE", f"{answers['hasty'].error} within a millisecond"
    is_sealed(answers["calm"].response)
    held("an item's own timeout")

    batch = stub.SealBatch(pb.SealBatchRequest(items=[request(), request(b"x"), request()])).results
    is_sealed(batch[0].response)
    is_sealed(batch[2].response)
    assert reason(batch[1].error) == "XML_MALFORMED" and len(batch) == 3
    held("SealBatch")


def large(stub: seal_pb2_grpc.SealServiceStub) -> None:
    content = note("uzun " * 500_000)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "yevmiye.xml"), Path(folder, "yevmiye.sealed.xml")
        source.write_bytes(content)
        result = seal_file(stub, RSA, source, target, str(uuid.uuid4()))
        assert result.signing_time and b"<ds:SignatureValue" in target.read_bytes()
        assert set(Path(folder).iterdir()) == {source, target}, "something was left behind"
    held("SealLarge")

    header = pb.SealLargeHeader(taxpayer=RSA, options=pb.SealOptions(answer=pb.ANSWER_KIND_PATCH))
    chunks = (pb.SealLargeRequest(chunk=content[at : at + 200_000]) for at in range(0, len(content), 200_000))
    result, end = stub.SealLarge(iter([pb.SealLargeRequest(header=header), *chunks]))
    sealed = splice(content, result.result.patch)
    assert (hashlib.sha256(sealed).digest(), len(sealed)) == (end.end.sealed_document_sha256, end.end.size)
    held("SealLarge, a patch")


def sizes(stub: seal_pb2_grpc.SealServiceStub) -> None:
    limit = stub.GetServerInfo(pb.GetServerInfoRequest()).limits.message_bytes
    answers = stream(
        stub, {"small": request(note("1")), "oversize": request(b"x" * limit), "after": request(note("2"))}
    )
    assert reason(answers["oversize"].error) == "MESSAGE_TOO_LARGE", f"{answers['oversize'].error}"
    is_sealed(answers["small"].response)
    is_sealed(answers["after"].response)
    held("an oversize item")

    five = request(note("5 MB " * 1_000_000), idempotency_key=str(uuid.uuid4()))
    try:
        seal_pb2_grpc.SealServiceStub(channel("branch-1", [])).Seal(five)
        raise AssertionError("5 MB came through the default of 4 MiB")
    except grpc.RpcError as error:
        lost = Refusal.of_call(error)
        assert lost.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not lost.reason and not lost.retryable, f"{lost}"
    is_sealed(stub.Seal(five))
    held("a 5 MB answer")


def keys(stub: seal_pb2_grpc.SealServiceStub) -> None:
    again = request(note("once"), idempotency_key=str(uuid.uuid4()))
    first, second = stub.Seal(again), stub.Seal(again)
    assert first.sealed_document == second.sealed_document and first.result.receipt == second.result.receipt
    assert not first.result.replayed and second.result.replayed, "the second is the one that was made before"
    assert first.result.kept_until.seconds > time.time(), f"kept until {first.result.kept_until}"
    again.options.answer, again.options.document_type = pb.ANSWER_KIND_PATCH, pb.DOCUMENT_TYPE_INVOICE
    assert splice(again.document, stub.Seal(again).patch) == first.sealed_document, "the same seal, as a patch"
    assert not stub.Seal(request()).result.HasField("kept_until"), "what has no key is not kept"
    held("an idempotency key")


def digests(stub: seal_pb2_grpc.SealServiceStub) -> None:
    seal = stub.GetSeal(pb.GetSealRequest(taxpayer=RSA)).seal
    wanted = pb.SignDigestRequest(
        taxpayer=RSA,
        digest=hashlib.sha256(b"a SignedInfo").digest(),
        digest_algorithm=pb.DIGEST_ALGORITHM_SHA256,
        certificate_sha256=seal.id,
        document_type=pb.DOCUMENT_TYPE_INVOICE,
        document_id="TST2026000000001",
    )
    result = stub.SignDigest(wanted).result
    assert len(result.signature_value) == 256 and result.receipt.certificate_sha256 == seal.id
    assert result.receipt.document_id == "TST2026000000001" and not result.sealed_document_sha256
    held("SignDigest")
    wanted.certificate_sha256 = bytes(32)
    try:
        stub.SignDigest(wanted)
        raise AssertionError("signed for another certificate")
    except grpc.RpcError as error:
        assert Refusal.of_call(error).reason == "CERTIFICATE_CHANGED", f"{error}"
    held("SignDigest, another certificate")


def seals(stub: seal_pb2_grpc.SealServiceStub) -> None:
    pages: list[pb.SealInfo] = []
    token = ""
    while token or not pages:
        page = stub.ListSeals(pb.ListSealsRequest(page_size=1, page_token=token))
        assert len(page.seals) <= 1
        pages.extend(page.seals)
        token = page.next_page_token
    usable = [seal.taxpayer for seal in pages if seal.state == pb.SEAL_STATE_USABLE and seal.chosen]
    assert usable == [RSA, EC], f"seals of {usable}"
    assert all(bool(seal.state_detail) == (seal.state != pb.SEAL_STATE_USABLE) for seal in pages)
    assert pages == list(stub.ListSeals(pb.ListSealsRequest()).seals), "all at once are the same"
    held("ListSeals")
    try:
        stub.ListSeals(pb.ListSealsRequest(page_token="nonsense"))
        raise AssertionError("a nonsense token was taken")
    except grpc.RpcError as error:
        refused = Refusal.of_call(error)
        assert (refused.reason, refused.metadata) == ("REQUEST", {"field": "page_token"}), f"{refused}"
    held("a nonsense page token")
    seal = stub.GetSeal(pb.GetSealRequest(taxpayer=EC)).seal
    assert seal.key_type == pb.KEY_TYPE_EC_P384 and hashlib.sha256(seal.certificate).digest() == seal.id
    assert stub.GetSeal(pb.GetSealRequest(id=seal.id)).seal == seal
    held("GetSeal")


def beside() -> None:
    connection = channel("branch-1")
    health = health_pb2_grpc.HealthStub(connection)
    for service in ("", "muhurdar.seal.v1.SealService"):
        assert (
            health.Check(health_pb2.HealthCheckRequest(service=service)).status
            == health_pb2.HealthCheckResponse.SERVING
        )
    held("health")
    # Without the proto: what the service says of itself.
    database = ProtoReflectionDescriptorDatabase(connection)
    assert "muhurdar.seal.v1.SealService" in database.get_services()
    file = database.FindFileContainingSymbol("muhurdar.seal.v1.SealService")
    names = {method.name for method in file.service[0].method}
    assert {"SealLarge", "SealStream", "SignDigest", "GetServerInfo"} <= names, f"methods {names}"
    assert database.FindFileContainingSymbol("google.rpc.Status").package == "google.rpc"
    held("reflection")
