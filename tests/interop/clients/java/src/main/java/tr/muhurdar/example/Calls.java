package tr.muhurdar.example;

import static tr.muhurdar.example.Check.check;
import static tr.muhurdar.example.Check.held;
import static tr.muhurdar.example.Check.isSealed;
import static tr.muhurdar.example.Check.request;
import static tr.muhurdar.example.Main.EC;
import static tr.muhurdar.example.Main.RSA;
import static tr.muhurdar.example.Main.invoice;
import static tr.muhurdar.example.Main.plain;

import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.Timestamp;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.stub.StreamObserver;
import java.nio.charset.StandardCharsets;
import java.security.Signature;
import java.security.cert.CertificateFactory;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import tr.muhurdar.seal.v1.AnswerKind;
import tr.muhurdar.seal.v1.DigestAlgorithm;
import tr.muhurdar.seal.v1.DocumentType;
import tr.muhurdar.seal.v1.GetSealRequest;
import tr.muhurdar.seal.v1.GetServerInfoRequest;
import tr.muhurdar.seal.v1.Level;
import tr.muhurdar.seal.v1.ListSealsRequest;
import tr.muhurdar.seal.v1.SealBatchRequest;
import tr.muhurdar.seal.v1.SealLargeHeader;
import tr.muhurdar.seal.v1.SealOptions;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealState;
import tr.muhurdar.seal.v1.SealStreamRequest;
import tr.muhurdar.seal.v1.SealStreamResponse;
import tr.muhurdar.seal.v1.SignDigestRequest;

/** Each call as it is meant. */
final class Calls {
    private final Muhurdar branch;

    private Calls(Muhurdar branch) {
        this.branch = branch;
    }

    static void all() throws Exception {
        byte[] sealed = FirstSeal.seal(Main.HOME, Main.ADDRESS, plain());
        check(Check.contains(sealed, "<ds:SignatureValue"), "the document carries no seal");
        held("a first seal");
        try (var branch = Main.branch("branch-1")) {
            new Calls(branch).each();
        }
    }

    private void each() throws Exception {
        isSealed(branch.seal(request(plain()).build(), 30));
        held("Seal");
        isSealed(branch.calls().withCompression("gzip").seal(request(plain()).build()));
        held("gzip");
        streams();
        var items = List.of(request(plain()).build(), request("x".getBytes(StandardCharsets.UTF_8)).build(), request(plain()).build());
        var batch = branch.calls().sealBatch(SealBatchRequest.newBuilder().addAllItems(items).build()).getResultsList();
        check(batch.size() == 3, "%d results of 3 items", batch.size());
        isSealed(batch.get(0).getResponse());
        isSealed(batch.get(2).getResponse());
        var refused = new Refusal(batch.get(1).getError());
        check(refused.code == Code.INVALID_ARGUMENT && refused.reason.equals("XML_MALFORMED"), "the second item: %s", refused);
        held("SealBatch");
        large();
        patch();
        key();
        signDigest();
        seals();
        serverInfo();
        var health = HealthGrpc.newBlockingStub(branch.channel);
        for (String service : List.of("", "muhurdar.seal.v1.SealService")) {
            var status = health.check(HealthCheckRequest.newBuilder().setService(service).build()).getStatus();
            check(status == ServingStatus.SERVING, "%s is %s", service, status);
        }
        held("health");
        var answer = branch.seal(request(invoice(RSA, "TST2026000000005", note("beş ", 1_000_000))).build(), 30);
        check(answer.getSealedDocument().size() > 5_000_000, "%d bytes", answer.getSealedDocument().size());
        held("an answer of 5 MB");
    }

    private static String note(String text, int times) {
        return "<cbc:Note>" + text.repeat(times) + "</cbc:Note>";
    }

    /** What a stream answers to these items, by their ids. */
    private Map<String, SealStreamResponse> streamed(Map<String, SealRequest> items) throws Exception {
        var answers = new ConcurrentHashMap<String, SealStreamResponse>();
        var end = new CompletableFuture<Void>();
        StreamObserver<SealStreamRequest> stream = branch.streams().sealStream(new StreamObserver<>() {
            @Override
            public void onNext(SealStreamResponse answer) {
                boolean fresh = items.containsKey(answer.getId()) && answers.put(answer.getId(), answer) == null;
                check(fresh, "an answer to '%s'", answer.getId());
            }

            @Override
            public void onError(Throwable thrown) {
                end.completeExceptionally(Refusal.of(thrown));
            }

            @Override
            public void onCompleted() {
                end.complete(null);
            }
        });
        items.forEach((id, request) -> stream.onNext(SealStreamRequest.newBuilder().setId(id).setRequest(request).build()));
        stream.onCompleted();
        end.get();
        check(answers.size() == items.size(), "%d answers to %d items", answers.size(), items.size());
        return answers;
    }

    private void streams() throws Exception {
        var answers = streamed(Map.of(
                "good", request(plain()).build(),
                "malformed", request("<Invoice".getBytes(StandardCharsets.UTF_8)).build(),
                "another's", request(invoice(EC, "TST2026000000001", "")).build(),
                "as good", request(plain()).build()));
        isSealed(answers.get("good").getResponse());
        isSealed(answers.get("as good").getResponse());
        Map.of("malformed", "XML_MALFORMED", "another's", "TAXPAYER_MISMATCH").forEach((id, reason) -> {
            var refused = new Refusal(answers.get(id).getError());
            check(refused.reason.equals(reason), "%s: %s", id, refused);
        });
        held("SealStream");

        var hasty = request(plain()).setTimeout(Duration.newBuilder().setNanos(1_000_000)).build();
        var timed = streamed(Map.of("hasty", hasty, "patient", request(plain()).build()));
        var refused = new Refusal(timed.get("hasty").getError());
        check(refused.code == Code.DEADLINE_EXCEEDED && refused.reason.equals("DEADLINE"), "a time-out of 1 ms: %s", refused);
        isSealed(timed.get("patient").getResponse());
        held("a time-out of one item");

        long limit = branch.calls().getServerInfo(GetServerInfoRequest.getDefaultInstance()).getLimits().getMessageBytes();
        var sized = streamed(Map.of(
                "before", request(plain()).build(),
                "too large", request(Errors.blank(limit)).build(),
                "after", request(plain()).build()));
        isSealed(sized.get("before").getResponse());
        isSealed(sized.get("after").getResponse());
        Errors.tooLarge(new Refusal(sized.get("too large").getError()), limit);
        held("an item that is too large");
    }

    private void large() throws Exception {
        byte[] document = invoice(RSA, "TST2026000000002", note("uzun ", 500_000));
        for (AnswerKind kind : List.of(AnswerKind.ANSWER_KIND_DOCUMENT, AnswerKind.ANSWER_KIND_PATCH)) {
            var header = SealLargeHeader.newBuilder().setTaxpayer(RSA).setSize(document.length);
            header.setOptions(SealOptions.newBuilder().setAnswer(kind));
            byte[] sealed = branch.sealLarge(header.build(), document);
            check(Check.contains(sealed, "<ds:SignatureValue"), "%s: no seal", kind);
            held("SealLarge, " + kind);
        }
    }

    private void patch() {
        var asked = request(plain()).setOptions(SealOptions.newBuilder().setAnswer(AnswerKind.ANSWER_KIND_PATCH)).build();
        var answer = branch.calls().seal(asked);
        byte[] sealed = Muhurdar.splice(asked.getDocument(), answer.getPatch()).toByteArray();
        var digest = ByteString.copyFrom(Muhurdar.sha256(sealed));
        check(answer.hasPatch() && digest.equals(answer.getResult().getSealedDocumentSha256()), "the patch does not fit");
        check(Check.contains(sealed, "<ds:SignatureValue"), "the patch has no seal");
        held("a patch");
    }

    private static boolean future(Timestamp time) {
        return Instant.ofEpochSecond(time.getSeconds()).isAfter(Instant.now());
    }

    private void key() {
        check(!branch.calls().seal(request(plain()).build()).getResult().hasKeptUntil(), "a seal without a key is kept");
        var asked = request(plain()).setIdempotencyKey("java-" + UUID.randomUUID()).build();
        var first = branch.calls().seal(asked);
        var second = branch.calls().seal(asked);
        check(first.getSealedDocument().equals(second.getSealedDocument()), "the same key, another document");
        check(first.getResult().getReceipt().equals(second.getResult().getReceipt()), "the same key, another receipt");
        check(!first.getResult().getReplayed() && second.getResult().getReplayed(), "the second is the one that is answered again");
        check(future(first.getResult().getKeptUntil()), "kept until %s", first.getResult().getKeptUntil());
        check(future(second.getResult().getKeptUntil()), "kept until %s", second.getResult().getKeptUntil());
        held("an idempotency key");
    }

    /** Has a digest signed by the key of a certificate that it has asked for, and by no other. */
    private void signDigest() throws Exception {
        var own = branch.calls().getSeal(GetSealRequest.newBuilder().setTaxpayer(RSA).build()).getSeal();
        var certificate = CertificateFactory.getInstance("X.509").generateCertificate(own.getCertificate().newInput());
        byte[] info = "<ds:SignedInfo/>".getBytes(StandardCharsets.UTF_8);
        var asked = SignDigestRequest.newBuilder()
                .setTaxpayer(RSA)
                .setDigest(ByteString.copyFrom(Muhurdar.sha256(info)))
                .setDigestAlgorithm(DigestAlgorithm.DIGEST_ALGORITHM_SHA256)
                .setCertificateSha256(own.getId())
                .setDocumentType(DocumentType.DOCUMENT_TYPE_INVOICE)
                .setDocumentId("TST2026000000003")
                .setIdempotencyKey("java-digest-" + UUID.randomUUID())
                .build();
        var result = branch.calls().signDigest(asked).getResult();
        var verifier = Signature.getInstance("SHA256withRSA");
        verifier.initVerify(certificate);
        verifier.update(info);
        check(verifier.verify(result.getSignatureValue().toByteArray()), "the value does not verify");
        check(result.getReceipt().getDocumentId().equals("TST2026000000003"), "the receipt is %s", result.getReceipt());
        var again = branch.calls().signDigest(asked).getResult();
        check(again.getReplayed() && again.getReceipt().equals(result.getReceipt()), "the same key: %s", again);
        held("SignDigest");

        var other = asked.toBuilder().setCertificateSha256(Errors.ANOTHER).clearIdempotencyKey().build();
        try {
            check(false, "for another certificate: %s", branch.calls().signDigest(other));
        } catch (StatusRuntimeException e) {
            Errors.certificateChanged(Refusal.of(e), own.getId());
        }
        held("SignDigest for another certificate");
    }

    /** Reads the list page by page, and each of its seals. */
    private void seals() {
        var chosen = new ArrayList<String>();
        var others = new ArrayList<String>();
        int pages = 0;
        String token = "";
        do {
            var page = branch.calls().listSeals(ListSealsRequest.newBuilder().setPageSize(1).setPageToken(token).build());
            check(page.getSealsCount() <= 1 && pages < 10, "page %d has %d seals", pages, page.getSealsCount());
            for (var seal : page.getSealsList()) {
                String taxpayer = seal.getTaxpayer();
                var id = ByteString.copyFrom(Muhurdar.sha256(seal.getCertificate().toByteArray()));
                check(id.equals(seal.getId()), "the id of %s is not its certificate's digest", taxpayer);
                var byId = branch.calls().getSeal(GetSealRequest.newBuilder().setId(seal.getId()).build()).getSeal();
                check(byId.equals(seal), "%s by its id is %s", taxpayer, byId);
                if (seal.getState() != SealState.SEAL_STATE_USABLE) {
                    check(!seal.getStateDetail().isEmpty(), "%s cannot seal, and nobody says why: %s", taxpayer, seal);
                    check(seal.getState() == SealState.SEAL_STATE_EXPIRED, "%s is %s", taxpayer, seal);
                    others.add(taxpayer);
                } else {
                    check(seal.getChosen() && seal.getStateDetail().isEmpty(), "%s is %s", taxpayer, seal);
                    check(future(seal.getNotAfter()), "%s ends %s", taxpayer, seal.getNotAfter());
                    var byTaxpayer = branch.calls().getSeal(GetSealRequest.newBuilder().setTaxpayer(taxpayer).build()).getSeal();
                    check(byTaxpayer.equals(seal), "%s is sealed with %s", taxpayer, byTaxpayer);
                    chosen.add(taxpayer);
                }
            }
            token = page.getNextPageToken();
            pages++;
        } while (!token.isEmpty());
        check(chosen.equals(List.of(RSA, EC)), "the seals are those of %s", chosen);
        check(others.equals(Main.ENDED == null ? List.of() : List.of(Main.ENDED)), "others than those that have ended: %s", others);
        held("ListSeals in pages, GetSeal");

        var none = ListSealsRequest.newBuilder().setPageToken("the next one").build();
        try {
            check(false, "a page token that is none: %s", branch.calls().listSeals(none));
        } catch (StatusRuntimeException e) {
            var refused = Refusal.of(e);
            boolean told = refused.reason.equals("REQUEST") && "page_token".equals(refused.metadata.get("field"));
            check(told, "a page token that is none: %s", refused);
        }
        held("a page token that is none");
    }

    private void serverInfo() {
        var info = branch.calls().getServerInfo(GetServerInfoRequest.getDefaultInstance());
        var limits = info.getLimits();
        check(info.getVersion().matches("\\d+\\.\\d+\\.\\d+.*"), "version '%s'", info.getVersion());
        check(limits.getDocumentBytes() > 0 && limits.getMessageBytes() > limits.getDocumentBytes(), "limits: %s", limits);
        check(limits.getMessageBytes() + (64 << 10) <= Muhurdar.MAX_ANSWER, "an answer may have more than %d bytes", Muhurdar.MAX_ANSWER);
        check(limits.getStreamInFlight() >= 64 && limits.getBatchItems() > 0, "limits: %s", limits);
        check(limits.getRequestTimeout().getSeconds() > 0, "limits: %s", limits);
        check(info.getIdempotencyWindow().getSeconds() > 0, "no window");
        check(info.getLevelsCount() > 0 && info.getLevels(0) == Level.LEVEL_BES, "levels %s", info.getLevelsList());
        var caller = info.getCaller();
        check(caller.getClient().equals("branch-1") && caller.getRightsCount() == 3, "the caller: %s", caller);
        check(future(caller.getCertificateNotAfter()), "the caller: %s", caller);
        held("GetServerInfo");
    }
}
