package tr.muhurdar.example;

import static tr.muhurdar.example.Check.check;
import static tr.muhurdar.example.Check.held;

import io.grpc.Status.Code;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealResponse;

/** Seals documents while the test ends the service, and tells of each accepted answer: id, SHA-256, receipt. */
final class Streams implements Muhurdar.Events {
    private final Map<String, SealRequest> documents = new HashMap<>();
    private final Set<String> accepted = new HashSet<>();
    private boolean draining;

    static void all(int count) throws Exception {
        var streams = new Streams();
        for (int n = 1; n <= count; n++) {
            String number = "TST2026%09d".formatted(n);
            // The key is made once. A program that may itself be killed writes it down before it sends anything.
            var request = Check.request(Main.invoice(Main.RSA, number, "")).setIdempotencyKey(UUID.randomUUID().toString());
            streams.documents.put(number, request.build());
        }
        try (var branch = Main.branch("branch-1")) {
            branch.sealAll(streams.documents, streams);
        }
        check(streams.accepted.size() == count, "%d of %d are sealed", streams.accepted.size(), count);
        System.out.println("sealed: " + count);
    }

    @Override
    public void accepted(String id, byte[] sealed, SealResponse response) {
        var receipt = response.getResult().getReceipt();
        check(documents.containsKey(id) && accepted.add(id), "%s is accepted again", id);
        check(receipt.getDocumentId().equals(id), "%s has the receipt of %s", id, receipt.getDocumentId());
        System.out.println(id + " " + HexFormat.of().formatHex(Muhurdar.sha256(sealed)) + " " + receipt.getId());
    }

    @Override
    public void draining() {
        draining = true;
        held("the drain notice");
    }

    @Override
    public void ended(Refusal why) {
        System.out.printf("ended: %s, %d of %d are sealed%n", why, accepted.size(), documents.size());
        if (draining) {
            check(why.code == Code.UNAVAILABLE && why.reason.equals("DRAINING"), "after its notice a stream ends with %s", why);
            check(!why.retryAfter.isZero() && !why.turkish.isEmpty(), "DRAINING says when to come again, and so in Turkish: %s", why);
            held("DRAINING");
        }
        draining = false;
    }
}
