"""Many documents over one stream, through whatever ends it: each is answered once."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator

import grpc
from branch import Refusal, pause
from google.protobuf.duration_pb2 import Duration
from muhurdar.seal.v1 import seal_pb2, seal_pb2_grpc


# snippet: stream
@dataclasses.dataclass
class Document:
    id: str
    taxpayer: str
    content: bytes
    # Made once and kept over all tries: what was sealed and not answered is then answered, and not sealed again.
    key: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))


def seal_all(
    stub: seal_pb2_grpc.SealServiceStub,
    documents: Iterable[Document],
    *,
    window: int = 64,
    patience: float = 120,
    draining: Callable[[], None] = lambda: None,
    ended: Callable[[Refusal], None] = lambda why: None,
) -> Iterator[tuple[Document, seal_pb2.SealResponse | Refusal]]:
    """Each document with its seal, or why it has none, in the order of the answers. Gives up after `patience` seconds
    without any.

    `draining` is told that the server is about to end, and `ended` why a stream has, before all was answered.
    """
    unanswered = {document.id: document for document in documents}
    attempt, last = 0, time.monotonic()
    while unanswered:
        room, ending = threading.Semaphore(window), threading.Event()
        stream = stub.SealStream(items(list(unanswered.values()), room, ending))
        why = Refusal(grpc.StatusCode.UNAVAILABLE, "the stream ended before all was answered", "", {}, 0)
        retry_after = 0.0
        try:
            for answer in stream:
                kind = answer.WhichOneof("outcome")
                if kind == "draining":
                    # No more goes over this stream. What the server has read it still answers.
                    ending.set()
                    draining()
                    continue
                document = unanswered.get(answer.id)
                if document is None:
                    # Answered already: the first one counts.
                    continue
                room.release()
                refused = Refusal.of_item(answer.error) if kind == "error" else None
                if refused and refused.retryable:
                    # Again over the next stream.
                    why, retry_after = refused, max(retry_after, refused.retry_after)
                    continue
                del unanswered[document.id]
                attempt, last = 0, time.monotonic()
                yield document, refused or checked(answer.response)
        except grpc.RpcError as error:
            # DRAINING: what is unanswered was not sealed. Anything else: it may have been. Its key makes both the same.
            why = Refusal.of_call(error)
            retry_after = max(retry_after, why.retry_after)
            if not why.retryable:
                raise why from error
        finally:
            # For the thread that may wait for room.
            ending.set()
            room.release()
            stream.cancel()
        if unanswered:
            ended(why)
            if time.monotonic() - last > patience:
                raise why
            time.sleep(pause(attempt, retry_after))
            attempt += 1


def items(
    documents: list[Document], room: threading.Semaphore, ending: threading.Event
) -> Iterator[seal_pb2.SealStreamRequest]:
    """What is written, in a thread of grpcio's own: it never waits for what is read, but where the window is full."""
    for document in documents:
        room.acquire()
        if ending.is_set():
            return
        request = seal_pb2.SealRequest(
            taxpayer=document.taxpayer,
            document=document.content,
            idempotency_key=document.key,
            timeout=Duration(seconds=30),
        )
        yield seal_pb2.SealStreamRequest(id=document.id, request=request)


def checked(response: seal_pb2.SealResponse) -> seal_pb2.SealResponse:
    if hashlib.sha256(response.sealed_document).digest() != response.result.sealed_document_sha256:
        raise ValueError("what came is not what was sealed")
    return response


# end snippet
