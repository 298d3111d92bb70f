"""Many documents over one stream, through whatever ends it: each is answered once."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import queue
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
        fresh, tries = iter(list(unanswered.values())), collections.Counter[str]()
        outbox, ending = queue.SimpleQueue[Document | None](), threading.Event()
        for document in itertools.islice(fresh, window):
            outbox.put(document)
        stream = stub.SealStream(items(outbox, ending))
        why = Refusal(grpc.StatusCode.UNAVAILABLE, "the stream ended before all was answered", "", {}, 0)
        try:
            for answer in stream:
                kind = answer.WhichOneof("outcome")
                if kind == "draining":
                    # No more goes over this stream. What the server has read it still answers.
                    stop(outbox, ending)
                    draining()
                    continue
                if answer.id not in unanswered:
                    # Answered already: the first one counts.
                    continue
                document = unanswered[answer.id]
                refused = Refusal.of_item(answer.error) if kind == "error" else None
                if refused and refused.retryable:
                    if time.monotonic() - last > patience:
                        raise refused
                    # It keeps its place in the window: who is refused much sends little.
                    wait = pause(tries[document.id], refused.retry_after)
                    tries[document.id] += 1
                    threading.Timer(wait, outbox.put, [document]).start()
                    continue
                del unanswered[document.id]
                attempt, last = 0, time.monotonic()
                if following := next(fresh, None):
                    outbox.put(following)
                elif not unanswered:
                    stop(outbox, ending)
                yield document, refused or checked(answer.response)
        except grpc.RpcError as error:
            # DRAINING: what is unanswered was not sealed. Anything else: it may have been. Its key makes both the same.
            why = Refusal.of_call(error)
            if not why.retryable:
                raise why from error
        finally:
            stop(outbox, ending)
            stream.cancel()
        if unanswered:
            ended(why)
            if time.monotonic() - last > patience:
                raise why
            time.sleep(pause(attempt, why.retry_after))
            attempt += 1


def items(outbox: queue.SimpleQueue[Document | None], ending: threading.Event) -> Iterator[seal_pb2.SealStreamRequest]:
    """What is written, in a thread of grpcio's own: it waits for what there is to write, and never for what is read."""
    for document in iter(outbox.get, None):
        if ending.is_set():
            return
        request = seal_pb2.SealRequest(
            taxpayer=document.taxpayer,
            document=document.content,
            idempotency_key=document.key,
            timeout=Duration(seconds=30),
        )
        yield seal_pb2.SealStreamRequest(id=document.id, request=request)


def stop(outbox: queue.SimpleQueue[Document | None], ending: threading.Event) -> None:
    ending.set()
    outbox.put(None)


def checked(response: seal_pb2.SealResponse) -> seal_pb2.SealResponse:
    if hashlib.sha256(response.sealed_document).digest() != response.result.sealed_document_sha256:
        raise ValueError("what came is not what was sealed")
    return response


# end snippet
