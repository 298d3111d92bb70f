package tr.muhurdar.example;

import static tr.muhurdar.example.Check.check;
import static tr.muhurdar.example.Check.held;
import static tr.muhurdar.example.Check.request;
import static tr.muhurdar.example.Main.EC;
import static tr.muhurdar.example.Main.RSA;
import static tr.muhurdar.example.Main.invoice;
import static tr.muhurdar.example.Main.plain;

import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.LocalizedMessage;
import io.grpc.CallOptions;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import tr.muhurdar.seal.v1.DocumentType;
import tr.muhurdar.seal.v1.GetSealRequest;
import tr.muhurdar.seal.v1.GetServerInfoRequest;
import tr.muhurdar.seal.v1.Priority;
import tr.muhurdar.seal.v1.Reason;
import tr.muhurdar.seal.v1.SealBatchRequest;
import tr.muhurdar.seal.v1.SealLargeHeader;
import tr.muhurdar.seal.v1.SealOptions;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealServiceGrpc;

/** Each reason that a caller can provoke. */
final class Errors {
    /** The id of a certificate that there is not. */
    static final ByteString ANOTHER = ByteString.copyFrom("an id has thirty-two bytes, also.", StandardCharsets.US_ASCII).substring(0, 32);

    private static final Metadata.Key<String> PUSHBACK = Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    private final Muhurdar branch;

    private Errors(Muhurdar branch) {
        this.branch = branch;
    }

    static void all() throws Exception {
        try (var branch = Main.branch("branch-1")) {
            var errors = new Errors(branch);
            errors.documents();
            errors.certificates();
            errors.requests();
            errors.rights();
            errors.quota();
            errors.overload();
        }
    }

    /** The test has broken the HSM. */
    static void token() throws Exception {
        try (var branch = Main.branch("branch-1")) {
            for (int n = 0; n < 3; n++) {
                sealing(branch, request(plain()), Code.UNAVAILABLE, "TOKEN_UNAVAILABLE");
            }
            check(false, "sealed by a broken HSM: %s", branch.seal(request(plain()).build(), 2));
        } catch (Refusal refusal) {
            check(refusal.reason.equals("TOKEN_UNAVAILABLE"), "after two seconds of trying: %s", refusal);
        }
        held("TOKEN_UNAVAILABLE");
    }

    /** A signature takes seconds now: time enough to be told. */
    static void drain() throws Exception {
        try (var branch = Main.branch("branch-1")) {
            // A call that waits for its connection is not admitted.
            branch.calls().getServerInfo(GetServerInfoRequest.getDefaultInstance());
            var admitted = SealServiceGrpc.newFutureStub(branch.channel).seal(request(plain()).build());
            Thread.sleep(1000);
            var service = ProcessHandle.of(Long.parseLong(System.getenv("MUHURDAR_PID"))).orElseThrow();
            check(service.destroy(), "SIGTERM to the service");
            // Refused for what it is, until the signal has come.
            var malformed = request("<Invoice".getBytes(StandardCharsets.UTF_8)).build();
            String told = "XML_MALFORMED";
            while (told.equals("XML_MALFORMED")) {
                try {
                    check(false, "sealed %s", branch.calls().seal(malformed));
                } catch (StatusRuntimeException e) {
                    told = Refusal.of(e).reason;
                }
            }
            sealing(branch, request(plain()), Code.UNAVAILABLE, "DRAINING");
            held("DRAINING");
            Check.isSealed(admitted.get());
            held("what was admitted is answered");
        }
    }

    /**
     * The refusal of a call, which must be this one, and as the contract says: ErrorInfo first, Turkish last, and where it may be sent
     * again, when.
     */
    private static Refusal refused(Callable<?> call, Code code, String reason) throws Exception {
        try {
            check(false, "%s: was not refused: %s", reason, call.call());
            throw new AssertionError();
        } catch (StatusRuntimeException e) {
            return refusal(e, code, reason);
        }
    }

    private static Refusal refusal(StatusRuntimeException thrown, Code code, String reason) throws InvalidProtocolBufferException {
        var refusal = Refusal.of(thrown);
        check(refusal.code == code && refusal.reason.equals(reason), "%s for %s %s", refusal, code, reason);
        check(Reason.getDescriptor().findValueByName("REASON_" + reason) != null, "the proto has no REASON_%s", reason);
        var details = StatusProto.fromThrowable(thrown).getDetailsList();
        check(details.get(0).is(ErrorInfo.class), "%s: the first detail is %s", reason, details.get(0));
        var last = details.get(details.size() - 1);
        check(last.is(LocalizedMessage.class) && !refusal.turkish.isEmpty(), "%s: the last detail is %s", reason, last);
        String pushback = Status.trailersFromThrowable(thrown).get(PUSHBACK);
        long ms = refusal.retryAfter.toMillis();
        if (code == Code.UNAVAILABLE || code == Code.RESOURCE_EXHAUSTED) {
            check(!refusal.retryAfter.isZero(), "%s: no RetryInfo", reason);
            // Whole milliseconds there, and no sooner.
            boolean same = ("" + ms).equals(pushback) || ("" + (ms + 1)).equals(pushback);
            check(same, "%s: grpc-retry-pushback-ms is %s, RetryInfo %d ms", reason, pushback, ms);
        } else {
            check(pushback == null && refusal.retryAfter.isZero(), "%s: may not be sent again, and says when", reason);
        }
        return refusal;
    }

    private static Refusal sealing(Muhurdar branch, SealRequest.Builder request, Code code, String reason) throws Exception {
        return refused(() -> branch.calls().seal(request.build()), code, reason);
    }

    private static void has(Refusal refusal, String key, String value) {
        String said = refusal.metadata.get(key);
        check(value.equals(said), "%s: %s is %s, not %s", refusal.reason, key, said, value);
    }

    private static void about(Refusal refusal, String field) {
        check(refusal.fields.equals(List.of(field)), "%s: the field is %s, not %s", refusal.reason, refusal.fields, field);
    }

    /** Compares the place with one in the document, whose line and column are counted here. */
    private static void at(Refusal refusal, byte[] document, String from) {
        String text = new String(document, StandardCharsets.UTF_8);
        int least = text.substring(0, text.indexOf(from)).getBytes(StandardCharsets.UTF_8).length;
        int offset = Integer.parseInt(refusal.metadata.getOrDefault("offset", "-1"));
        check(least <= offset && offset <= document.length, "%s: offset %d, not from %d", refusal.reason, offset, least);
        String before = new String(document, 0, offset, StandardCharsets.UTF_8);
        String line = before.substring(before.lastIndexOf('\n') + 1);
        has(refusal, "line", "" + (1 + before.chars().filter(c -> c == '\n').count()));
        has(refusal, "column", "" + (1 + line.codePointCount(0, line.length())));
        about(refusal, "document");
    }

    static void tooLarge(Refusal refusal, long limit) {
        boolean large = refusal.code == Code.INVALID_ARGUMENT && refusal.reason.equals("MESSAGE_TOO_LARGE");
        check(large, "%s for MESSAGE_TOO_LARGE", refusal);
        has(refusal, "limit", "message_bytes");
        has(refusal, "value", "" + limit);
        check(Long.parseLong(refusal.metadata.getOrDefault("size", "0")) > limit, "a size beyond %d: %s", limit, refusal.metadata);
    }

    static void certificateChanged(Refusal refusal, ByteString named) {
        boolean changed = refusal.code == Code.FAILED_PRECONDITION && refusal.reason.equals("CERTIFICATE_CHANGED");
        check(changed, "%s for CERTIFICATE_CHANGED", refusal);
        has(refusal, "requested", HexFormat.of().formatHex(ANOTHER.toByteArray()));
        has(refusal, "named", HexFormat.of().formatHex(named.toByteArray()));
    }

    /** A document of so many blanks. */
    static byte[] blank(long size) {
        byte[] document = new byte[Math.toIntExact(size)];
        Arrays.fill(document, (byte) ' ');
        return document;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private record Wrong(byte[] document, Code code, String reason, String from) {}

    /** Documents that cannot be sealed. */
    private void documents() throws Exception {
        byte[] sealed = branch.calls().seal(request(plain()).build()).getSealedDocument().toByteArray();
        for (Wrong wrong : List.of(
                new Wrong(invoice(RSA, "1", "<cbc:Note>ş</cbc:Note><a></b>"), Code.INVALID_ARGUMENT, "XML_MALFORMED", "<a>"),
                new Wrong(bytes("<!-- ş --><!DOCTYPE a><a/>"), Code.INVALID_ARGUMENT, "XML_DTD_FORBIDDEN", "<!DOCTYPE"),
                new Wrong(bytes("<!-- ş --><a/>"), Code.INVALID_ARGUMENT, "DOCUMENT_TYPE", "<a"),
                new Wrong(invoice(RSA, "1", "<a>ş</a><ext:UBLExtensions/>"), Code.INVALID_ARGUMENT, "SEAL_PLACE", "<ext:UBLExtensions/>"),
                new Wrong(sealed, Code.FAILED_PRECONDITION, "ALREADY_SEALED", "<ds:Signature"))) {
            at(sealing(branch, request(wrong.document), wrong.code, wrong.reason), wrong.document, wrong.from);
            held(wrong.reason);
        }
        var typed = request(plain()).setOptions(SealOptions.newBuilder().setDocumentType(DocumentType.DOCUMENT_TYPE_CREDIT_NOTE));
        Refusal refusal = sealing(branch, typed, Code.INVALID_ARGUMENT, "DOCUMENT_TYPE");
        String requested = refusal.metadata.getOrDefault("requested", "");
        String named = refusal.metadata.getOrDefault("named", "");
        check(!requested.isEmpty() && !named.isEmpty() && !requested.equals(named), "DOCUMENT_TYPE: %s", refusal.metadata);

        int depth = branch.calls().getServerInfo(GetServerInfoRequest.getDefaultInstance()).getLimits().getDepth();
        byte[] deep = invoice(RSA, "1", "<a>".repeat(depth) + "</a>".repeat(depth));
        refusal = sealing(branch, request(deep), Code.INVALID_ARGUMENT, "XML_LIMIT");
        at(refusal, deep, "<a>");
        has(refusal, "limit", "depth");
        has(refusal, "value", "" + depth);
        held("XML_LIMIT");

        refusal = sealing(branch, request(invoice(EC, "1", "")), Code.FAILED_PRECONDITION, "TAXPAYER_MISMATCH");
        has(refusal, "requested", RSA);
        has(refusal, "named", EC);
        held("TAXPAYER_MISMATCH");
    }

    private ByteString seal(String taxpayer) {
        return branch.calls().getSeal(GetSealRequest.newBuilder().setTaxpayer(taxpayer).build()).getSeal().getId();
    }

    /** Certificates that are not there, are others, or have ended. */
    private void certificates() throws Exception {
        String nobody = "1234567890";
        has(sealing(branch, request(invoice(nobody, "1", "")).setTaxpayer(nobody), Code.NOT_FOUND, "SEAL_UNKNOWN"), "requested", nobody);
        held("SEAL_UNKNOWN");

        var other = request(plain()).setOptions(SealOptions.newBuilder().setCertificateSha256(ANOTHER));
        certificateChanged(sealing(branch, other, Code.FAILED_PRECONDITION, "CERTIFICATE_CHANGED"), seal(RSA));
        other.setOptions(SealOptions.newBuilder().setCertificateSha256(seal(RSA)));
        Check.isSealed(branch.calls().seal(other.build()));
        held("CERTIFICATE_CHANGED");

        if (Main.ENDED != null) {
            var asked = request(invoice(Main.ENDED, "1", "")).setTaxpayer(Main.ENDED);
            Refusal refusal = sealing(branch, asked, Code.FAILED_PRECONDITION, "CERTIFICATE_UNUSABLE");
            has(refusal, "named", HexFormat.of().formatHex(seal(Main.ENDED).toByteArray()));
            held("CERTIFICATE_UNUSABLE");
        }
    }

    /** Requests that make no sense, or are too large, or late. */
    private void requests() throws Exception {
        Refusal refusal = sealing(branch, request(plain()).setIdempotencyKey("k".repeat(129)), Code.INVALID_ARGUMENT, "REQUEST");
        about(refusal, "idempotency_key");
        has(refusal, "field", "idempotency_key");
        var stamp = SealServiceGrpc.getSealMethod().toBuilder().setFullMethodName("muhurdar.seal.v1.SealService/Stamp").build();
        var asked = request(plain()).build();
        refused(() -> ClientCalls.blockingUnaryCall(branch.channel, stamp, CallOptions.DEFAULT, asked), Code.UNIMPLEMENTED, "REQUEST");
        held("REQUEST");

        var used = request(plain()).setIdempotencyKey(UUID.randomUUID().toString());
        Check.isSealed(branch.calls().seal(used.build()));
        used.setDocument(ByteString.copyFrom(invoice(RSA, "2", "")));
        about(sealing(branch, used, Code.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED"), "idempotency_key");
        held("IDEMPOTENCY_KEY_REUSED");

        var hasty = request(plain()).setTimeout(Duration.newBuilder().setNanos(1_000_000));
        sealing(branch, hasty, Code.DEADLINE_EXCEEDED, "DEADLINE");
        held("DEADLINE");

        var limits = branch.calls().getServerInfo(GetServerInfoRequest.getDefaultInstance()).getLimits();
        long limit = limits.getMessageBytes();
        tooLarge(sealing(branch, request(blank(limit)), Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE"), limit);
        var half = request(blank(limit / 2)).build();
        var batch = SealBatchRequest.newBuilder().addItems(asked).addItems(half).addItems(half).build();
        refusal = refused(() -> branch.calls().sealBatch(batch), Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE");
        tooLarge(refusal, limit);
        has(refusal, "item", "2");
        held("MESSAGE_TOO_LARGE");

        var header = SealLargeHeader.newBuilder().setTaxpayer(RSA).setSize(limits.getLargeDocumentBytes() + 1).build();
        try {
            check(false, "sealed %d bytes, beyond the limit", branch.sealLarge(header, new byte[0]).length);
        } catch (Refusal large) {
            check(large.code == Code.INVALID_ARGUMENT && large.reason.equals("XML_LIMIT"), "%s for XML_LIMIT", large);
            has(large, "limit", "large_document_bytes");
            has(large, "value", "" + limits.getLargeDocumentBytes());
        }
        held("XML_LIMIT, before it is sent");
    }

    /** Rights that the caller has not. */
    private void rights() throws Exception {
        try (var auditor = Main.branch("auditor"); var nobody = Main.branch("")) {
            sealing(auditor, request(plain()), Code.PERMISSION_DENIED, "ACCESS");
            held("ACCESS");
            sealing(nobody, request(plain()), Code.UNAUTHENTICATED, "CLIENT_CERTIFICATE");
            held("CLIENT_CERTIFICATE");
        }
    }

    /** The client "few" may have one document a second, two at once. */
    private void quota() throws Exception {
        try (var few = Main.branch("few")) {
            Refusal refusal = refused(() -> {
                for (int n = 0; n < 20; n++) {
                    few.calls().seal(request(plain()).build());
                }
                return "20 documents of a client that may one a second";
            }, Code.RESOURCE_EXHAUSTED, "QUOTA");
            check(refusal.quota.equals(List.of("documents_per_second")), "QuotaFailure: %s", refusal.quota);
            has(refusal, "limit", "documents_per_second");
            has(refusal, "value", "1");
            held("QUOTA");
            // Obeyed, it is sealed in the end.
            few.seal(request(plain()).build(), 30);
            held("QUOTA, and patience");
        }
    }

    /** The queue holds 8, and 60 ask at once. */
    private void overload() throws Exception {
        var refusals = new ConcurrentLinkedQueue<StatusRuntimeException>();
        var asked = request(plain()).setOptions(SealOptions.newBuilder().setPriority(Priority.PRIORITY_BULK)).build();
        var all = Executors.newFixedThreadPool(60);
        Callable<Boolean> one = () -> {
            try {
                branch.calls().seal(asked);
                return true;
            } catch (StatusRuntimeException e) {
                return refusals.add(e);
            }
        };
        for (var done : all.invokeAll(Collections.nCopies(60, one))) {
            done.get();
        }
        all.shutdown();
        check(10 < refusals.size() && refusals.size() < 60, "%d of 60 are refused", refusals.size());
        for (StatusRuntimeException thrown : refusals) {
            Refusal refusal = refusal(thrown, Code.RESOURCE_EXHAUSTED, "OVERLOADED");
            has(refusal, "limit", "queue");
            has(refusal, "value", "8");
        }
        held("OVERLOADED");
    }
}
