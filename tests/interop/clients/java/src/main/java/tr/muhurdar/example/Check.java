package tr.muhurdar.example;

import com.google.protobuf.ByteString;
import java.nio.charset.StandardCharsets;
import tr.muhurdar.seal.v1.DocumentType;
import tr.muhurdar.seal.v1.Level;
import tr.muhurdar.seal.v1.SealRequest;
import tr.muhurdar.seal.v1.SealResponse;

/** What the tests say and look at. */
final class Check {
    private Check() {}

    static void held(String what) {
        System.out.println("held: " + what);
    }

    static void check(boolean holds, String otherwise, Object... arguments) {
        if (!holds) {
            // Where it was asked, which is in another file.
            var asked = StackWalker.getInstance().walk(frames -> frames
                    .filter(frame -> !frame.getFileName().equals("Check.java"))
                    .findFirst());
            System.err.println(asked.orElseThrow().toStackTraceElement() + ": " + otherwise.formatted(arguments));
            // Also from a thread of gRPC's.
            System.exit(1);
        }
    }

    /** Asks for a seal for the first taxpayer. */
    static SealRequest.Builder request(byte[] document) {
        return SealRequest.newBuilder().setTaxpayer(Main.RSA).setDocument(ByteString.copyFrom(document));
    }

    static boolean contains(byte[] document, String text) {
        return new String(document, StandardCharsets.UTF_8).contains(text);
    }

    /** Looks at everything that an answer with a document says. */
    static void isSealed(SealResponse response) {
        byte[] document = response.getSealedDocument().toByteArray();
        var result = response.getResult();
        check(contains(document, "<ds:SignatureValue"), "the document carries no seal");
        var digest = ByteString.copyFrom(Muhurdar.sha256(document));
        check(digest.equals(result.getSealedDocumentSha256()), "the digest is not that of the document");
        check(contains(document, ">" + result.getSigningTime() + "<"), "%s is not the time in the seal", result.getSigningTime());
        check(result.getSignatureValue().size() == 256, "a value of %d bytes by an RSA-2048 key", result.getSignatureValue().size());
        check(result.getLevel() == Level.LEVEL_BES, "level %s", result.getLevel());
        var receipt = result.getReceipt();
        check(!receipt.getId().isEmpty() && receipt.getTaxpayer().equals(Main.RSA), "the receipt is %s", receipt);
        check(receipt.getClient().equals("branch-1") && receipt.getCertificateSha256().size() == 32, "the receipt is %s", receipt);
        check(receipt.getDocumentType() == DocumentType.DOCUMENT_TYPE_INVOICE, "the receipt is %s", receipt);
    }
}
