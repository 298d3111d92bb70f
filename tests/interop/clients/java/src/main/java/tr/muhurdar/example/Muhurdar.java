package tr.muhurdar.example;

import com.google.protobuf.ByteString;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingDeque;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import tr.muhurdar.seal.v1.SealLargeEnd;
import tr.muhurdar.seal.v1.SealLargeHeader;
import tr.muhurdar.seal.v1.SealLargeRequest;
import tr.muhurdar.seal.v1.SealLargeResponse;
import tr.muhurdar.seal.v1.SealLargeResult;
import tr.muhurdar.seal.v1.SealPatch;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealResponse;
import tr.muhurdar.seal.v1.SealServiceGrpc;
import tr.muhurdar.seal.v1.SealStreamRequest;
import tr.muhurdar.seal.v1.SealStreamResponse;

/** What a program needs around the generated code. */
final class Muhurdar implements AutoCloseable {
    final ManagedChannel channel;

    // snippet: connect
    /** A connection that outlives whatever lies between. NAME is whose certificate is shown, empty for nobody's. */
    Muhurdar(String address, Path home, String name) throws IOException {
        var credentials = TlsChannelCredentials.newBuilder().trustManager(home.resolve("ca.crt").toFile());
        if (!name.isEmpty()) {
            credentials.keyManager(home.resolve("clients/" + name + ".crt").toFile(), home.resolve("clients/" + name + ".key").toFile());
        }
        channel = Grpc.newChannelBuilder(address, credentials.build())
                // The default of 4 MiB throws away the answer to a document of 5 MB, after it was sealed.
                .maxInboundMessageSize(MAX_ANSWER)
                // A line that died without a word is noticed by this alone.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                // The built-in one knows nothing of RetryInfo, and gives up in silence on what is larger than its buffer.
                .disableRetry()
                .build();
    }

    /** More than the largest answer: ServerLimits.message_bytes, and 10 KB for each seal of a batch. */
    static final int MAX_ANSWER = 32 << 20;

    /** For one call after the other. */
    SealServiceGrpc.SealServiceBlockingStub calls() {
        return SealServiceGrpc.newBlockingStub(channel).withWaitForReady().withDeadlineAfter(30, TimeUnit.SECONDS);
    }

    /** For streams. */
    SealServiceGrpc.SealServiceStub streams() {
        return SealServiceGrpc.newStub(channel).withWaitForReady().withDeadlineAfter(5, TimeUnit.MINUTES);
    }
    // end snippet

    // snippet: retry
    /** Sends a request until it has an answer, at most for this long. */
    SealResponse seal(SealRequest request, long seconds) throws Refusal, InterruptedException {
        var end = Deadline.after(seconds, TimeUnit.SECONDS);
        var stub = SealServiceGrpc.newBlockingStub(channel).withWaitForReady().withDeadline(end);
        Refusal last = null;
        for (int attempt = 0; ; attempt++) {
            try {
                SealResponse response = stub.seal(request);
                whole(request, response);
                return response;
            } catch (StatusRuntimeException e) {
                if (end.isExpired() && last != null) {
                    throw last; // What the time was spent on says more than that it is over.
                }
                last = Refusal.of(e);
                long pause = last.again(attempt);
                if (pause < 0 || pause > end.timeRemaining(TimeUnit.MILLISECONDS)) {
                    throw last;
                }
                Thread.sleep(pause);
            }
        }
    }
    // end snippet

    /** Compares what came with the digest that the service told. */
    private static byte[] whole(SealRequest request, SealResponse response) {
        byte[] sealed = sealedDocument(request, response);
        if (!ByteString.copyFrom(sha256(sealed)).equals(response.getResult().getSealedDocumentSha256())) {
            throw new IllegalStateException("the sealed document is not what the service has sealed");
        }
        return sealed;
    }

    // snippet: patch
    /** The sealed document, whichever way it came. */
    static byte[] sealedDocument(SealRequest request, SealResponse response) {
        return response.hasPatch()
                ? splice(request.getDocument(), response.getPatch()).toByteArray()
                : response.getSealedDocument().toByteArray();
    }

    static ByteString splice(ByteString document, SealPatch patch) {
        int offset = Math.toIntExact(patch.getOffset());
        int rest = Math.toIntExact(patch.getOffset() + patch.getLength());
        return document.substring(0, offset).concat(patch.getReplacement()).concat(document.substring(rest));
    }
    // end snippet

    static byte[] sha256(byte[] bytes) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(bytes);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    // snippet: large
    /** Seals what is too large for one message. What came of an answer that has no fitting end is thrown away. */
    byte[] sealLarge(SealLargeHeader header, byte[] document) throws InterruptedException, Refusal {
        var answer = new CompletableFuture<Refusal>();
        var ready = new Semaphore(0);
        var sealed = new ByteArrayOutputStream();
        var result = new AtomicReference<SealLargeResult>();
        var end = new AtomicReference<SealLargeEnd>(SealLargeEnd.getDefaultInstance());
        var answers = new ClientResponseObserver<SealLargeRequest, SealLargeResponse>() {
            @Override
            public void beforeStart(ClientCallStreamObserver<SealLargeRequest> upload) {
                upload.setOnReadyHandler(ready::release);
            }

            @Override
            public void onNext(SealLargeResponse part) {
                switch (part.getPartCase()) {
                    case RESULT -> result.set(part.getResult());
                    case CHUNK -> sealed.writeBytes(part.getChunk().toByteArray());
                    case END -> end.set(part.getEnd());
                    default -> throw new IllegalStateException("a part that says nothing");
                }
            }

            @Override
            public void onError(Throwable thrown) {
                answer.complete(Refusal.of(thrown));
                ready.release();
            }

            @Override
            public void onCompleted() {
                answer.complete(null);
                ready.release();
            }
        };
        var upload = (ClientCallStreamObserver<SealLargeRequest>) streams().sealLarge(answers);
        upload.onNext(SealLargeRequest.newBuilder().setHeader(header).build());
        for (int at = 0; at < document.length && !answer.isDone(); at += 256 << 10) {
            while (!upload.isReady() && !answer.isDone()) {
                ready.acquire(); // What is written and not sent waits in memory.
            }
            var chunk = ByteString.copyFrom(document, at, Math.min(256 << 10, document.length - at));
            upload.onNext(SealLargeRequest.newBuilder().setChunk(chunk).build());
        }
        upload.onCompleted();
        Refusal refusal = answer.join();
        if (refusal != null) {
            throw refusal;
        }
        byte[] whole = result.get().hasPatch()
                ? splice(ByteString.copyFrom(document), result.get().getPatch()).toByteArray()
                : sealed.toByteArray();
        var digest = ByteString.copyFrom(sha256(whole));
        if (end.get().getSize() != whole.length || !end.get().getSealedDocumentSha256().equals(digest)) {
            throw new IllegalStateException("the sealed document is not whole");
        }
        return whole;
    }
    // end snippet

    // snippet: stream
    /** What a caller of {@link #sealAll} hears, on a thread of gRPC's. */
    interface Events {
        /** Once for each document. */
        void accepted(String id, byte[] sealed, SealResponse response);

        /** The service is about to end. */
        void draining();

        /** A stream has ended before all was answered. */
        void ended(Refusal why);
    }

    /**
     * Seals documents, each under the id that it has here, over as many streams as it takes: the service may end in between. Each request
     * has an idempotency key, which it keeps.
     */
    void sealAll(Map<String, SealRequest> documents, Events events) throws Refusal, InterruptedException {
        var unanswered = new ConcurrentHashMap<>(documents);
        for (int attempt = 0; ; attempt++) {
            int before = unanswered.size();
            Refusal why = sealSome(unanswered, events);
            if (unanswered.isEmpty()) {
                return;
            }
            events.ended(why);
            if (unanswered.size() < before) {
                attempt = 0;
            }
            long pause = why.again(attempt);
            if (pause < 0) {
                throw why;
            }
            Thread.sleep(pause);
        }
    }

    /** Does so over one stream, takes away what is answered, and tells how the stream ended, or why a document cannot be sealed. */
    private Refusal sealSome(Map<String, SealRequest> unanswered, Events events) throws InterruptedException {
        var items = Map.copyOf(unanswered);
        var waiting = new LinkedBlockingDeque<>(items.keySet());
        // As many as may be on their way. Answers come on another thread: the service stops reading where nobody reads them.
        var window = new Semaphore(64);
        Runnable stop = () -> {
            waiting.addFirst(ENOUGH);
            window.release();
        };
        var end = new CompletableFuture<Refusal>();
        var stream = streams().sealStream(new StreamObserver<SealStreamResponse>() {
            private final Map<String, Integer> attempts = new HashMap<>();

            @Override
            public void onNext(SealStreamResponse answer) {
                String id = answer.getId();
                if (answer.hasDraining()) {
                    stop.run(); // No more over this stream; what was read is still answered.
                    events.draining();
                } else if (!unanswered.containsKey(id)) {
                    return; // Answered already: the first one counts.
                } else if (answer.hasResponse()) {
                    byte[] sealed = whole(items.get(id), answer.getResponse());
                    unanswered.remove(id);
                    events.accepted(id, sealed, answer.getResponse());
                    window.release();
                    if (unanswered.isEmpty()) {
                        stop.run();
                    }
                } else {
                    var refusal = new Refusal(answer.getError());
                    long pause = refusal.again(attempts.merge(id, 1, Integer::sum) - 1);
                    if (pause < 0) {
                        end.complete(refusal);
                        stop.run();
                        return;
                    }
                    // It keeps its place in the window: who is refused much sends little.
                    CompletableFuture.delayedExecutor(pause, TimeUnit.MILLISECONDS).execute(() -> {
                        waiting.addFirst(id);
                        window.release();
                    });
                }
            }

            @Override
            public void onError(Throwable thrown) {
                // DRAINING: what is unanswered was not sealed. Anything else: nobody knows, and the keys see to it.
                end.complete(Refusal.of(thrown));
                stop.run();
            }

            @Override
            public void onCompleted() {
                end.complete(UNANSWERED);
                stop.run();
            }
        });
        while (true) {
            window.acquire();
            String id = waiting.take();
            if (id.equals(ENOUGH)) {
                break;
            }
            stream.onNext(SealStreamRequest.newBuilder().setId(id).setRequest(items.get(id)).build());
        }
        stream.onCompleted();
        return end.join();
    }

    /** No item's id: nothing more is to be written. */
    private static final String ENOUGH = "";

    private static final Refusal UNANSWERED = new Refusal(com.google.rpc.Status.newBuilder()
            .setCode(com.google.rpc.Code.UNAVAILABLE_VALUE)
            .setMessage("the stream ended before all was answered")
            .build());
    // end snippet

    @Override
    public void close() {
        channel.shutdownNow();
    }
}
