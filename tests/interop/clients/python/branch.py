"""A branch office's way to Mühürdar: a connection with the defaults that a client should have, and its way with refusals."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from muhurdar.seal.v1 import seal_pb2, seal_pb2_grpc

HOME, ADDRESS = Path(os.environ["MUHURDAR_HOME"]), os.environ["MUHURDAR_ADDRESS"]

# snippet: connect
OPTIONS = [
    # ServerLimits.message_bytes, and 10 KB for each seal of a batch. The default of 4 MiB throws larger answers away.
    ("grpc.max_receive_message_length", 32 << 20),
    # A line that is dead and does not say so is noticed after 40 seconds, and only so.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is found again within seconds; the default grows to two minutes.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]


def channel(client: str | None, options: list[tuple[str, int]] = OPTIONS) -> grpc.Channel:
    """One connection for the whole program: calls share it, and it is made anew when it breaks."""
    own = [(HOME / f"clients/{client}.{end}").read_bytes() for end in ("key", "crt")] if client else []
    return grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials((HOME / "ca.crt").read_bytes(), *own), options)


# end snippet


def branch(client: str | None = "branch-1") -> seal_pb2_grpc.SealServiceStub:
    return seal_pb2_grpc.SealServiceStub(channel(client))


# snippet: refusal
def details(status: status_pb2.Status | None) -> dict[str, Message]:
    """A status's details by their names, in their order: ErrorInfo, BadRequest, RetryInfo, QuotaFailure, LocalizedMessage."""
    found: dict[str, Message] = {}
    for detail in status.details if status else ():
        name = detail.TypeName().removeprefix("google.rpc.")
        if kind := getattr(error_details_pb2, name, None):
            detail.Unpack(found.setdefault(name, kind()))
    return found


@dataclasses.dataclass(eq=False)
class Refusal(Exception):
    """Why there is no seal. `reason` is empty where it was not Mühürdar that spoke, but the network or the library."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    retry_after: float

    @classmethod
    def of_item(cls, status: status_pb2.Status) -> Refusal:
        """Of an item in a stream or a batch."""
        code = next((c for c in grpc.StatusCode if c.value[0] == status.code), grpc.StatusCode.UNKNOWN)
        return cls._of(code, status.message, details(status))

    @classmethod
    def of_call(cls, error: grpc.RpcError) -> Refusal:
        """Of a call."""
        return cls._of(error.code(), error.details(), details(rpc_status.from_call(error)))

    @classmethod
    def _of(cls, code: grpc.StatusCode, message: str, found: dict[str, Message]) -> Refusal:
        info = found.get("ErrorInfo", error_details_pb2.ErrorInfo())
        retry = found.get("RetryInfo", error_details_pb2.RetryInfo()).retry_delay
        reason = info.reason if info.domain == "muhurdar" else ""
        return cls(code, message, reason, dict(info.metadata), retry.ToTimedelta().total_seconds())

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"

    @property
    def retryable(self) -> bool:
        """A reason that this program does not know goes by its code. RESOURCE_EXHAUSTED without a reason is the library's
        own: the answer was too large for it, and will be again. DEADLINE only since each request has an idempotency key."""
        return self.code is grpc.StatusCode.UNAVAILABLE or self.reason in ("QUOTA", "OVERLOADED", "DEADLINE")


# end snippet


Answer = TypeVar("Answer")


# snippet: retry
def pause(attempt: int, retry_after: float) -> float:
    """Seconds until the next try: what the server has said at least, growing, and not the same for all who wait."""
    return max(retry_after, min(0.1 * 2**attempt, 3)) * random.uniform(1, 1.5)


def patiently(call: Callable[[float], Answer], deadline: float = 30) -> Answer:
    """Calls until there is an answer, a refusal for good, or no time left. `call` is told how many seconds it has."""
    end = time.monotonic() + deadline
    for attempt in itertools.count():
        try:
            return call(end - time.monotonic())
        except grpc.RpcError as error:
            refusal = Refusal.of_call(error)
            wait = pause(attempt, refusal.retry_after)
            if not refusal.retryable or time.monotonic() + wait > end:
                raise refusal from error
            time.sleep(wait)
    raise AssertionError("count() does not end")


# end snippet


# snippet: patch
def splice(document: bytes, patch: seal_pb2.SealPatch) -> bytes:
    return document[: patch.offset] + patch.replacement + document[patch.offset + patch.length :]


# end snippet


# snippet: large
def seal_file(
    stub: seal_pb2_grpc.SealServiceStub, taxpayer: str, source: Path, target: Path, key: str
) -> seal_pb2.SealResult:
    """A document of any size, from file to file. `target` is there when it is whole, and not before."""

    def parts() -> Iterator[seal_pb2.SealLargeRequest]:
        header = seal_pb2.SealLargeHeader(taxpayer=taxpayer, size=source.stat().st_size, idempotency_key=key)
        yield seal_pb2.SealLargeRequest(header=header)
        with source.open("rb") as file:
            while chunk := file.read(256 << 10):
                yield seal_pb2.SealLargeRequest(chunk=chunk)

    part = target.with_name(target.name + ".part")
    digest, result, end = hashlib.sha256(), None, None
    try:
        with part.open("wb") as file:
            for answer in stub.SealLarge(parts(), timeout=600):
                if answer.WhichOneof("part") == "result":
                    result = answer.result.result
                elif answer.WhichOneof("part") == "chunk":
                    digest.update(answer.chunk)
                    file.write(answer.chunk)
                else:
                    end = answer.end
        if result is None or end is None or end.sealed_document_sha256 != digest.digest():
            raise ValueError("what came is not whole, or not what was sealed")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return result


# end snippet
