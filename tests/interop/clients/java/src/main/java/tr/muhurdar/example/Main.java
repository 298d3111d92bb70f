package tr.muhurdar.example;

import static tr.muhurdar.example.Check.check;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/**
 * A branch office in Java: everything that the published proto promises, seen from the other end.
 *
 * <p>usage: MUHURDAR_HOME=FOLDER MUHURDAR_ADDRESS=HOST:PORT java … calls | errors | token | drain | stream N
 *
 * <p>FOLDER is that of `muhurdar dev`. MUHURDAR_PID is the process that `drain` ends, MUHURDAR_ENDED a taxpayer whose certificate has
 * ended, where there is one. Prints a line for each thing that held, and ends with 1 at the first that did not. What lies in
 * FirstSeal, Muhurdar and Refusal is for programs of yours; the rest is tests.
 */
public final class Main {
    /** The seals of the tests' taxpayers: RSA-2048 and P-384. */
    static final String RSA = "1000000000";

    static final String EC = "1000000018";

    static final Path HOME = Path.of(System.getenv("MUHURDAR_HOME"));
    static final String ADDRESS = System.getenv("MUHURDAR_ADDRESS");

    /** A taxpayer whose certificate has ended, or null. */
    static final String ENDED = System.getenv("MUHURDAR_ENDED");

    private Main() {}

    public static void main(String[] arguments) throws Exception {
        switch (String.join(" ", arguments).replaceAll(" [0-9]+$", " N")) {
            case "calls" -> Calls.all();
            case "errors" -> Errors.all();
            case "token" -> Errors.token();
            case "drain" -> Errors.drain();
            case "stream N" -> Streams.all(Integer.parseInt(arguments[1]));
            default -> check(false, "usage: calls | errors | token | drain | stream N");
        }
        // Threads of open connections would keep it.
        System.exit(0);
    }

    /** A connection that shows the certificate of NAME, nobody's where it is empty. */
    static Muhurdar branch(String name) throws IOException {
        return new Muhurdar(ADDRESS, HOME, name);
    }

    static byte[] invoice(String sealer, String number, String content) {
        String ubl = "urn:oasis:names:specification:ubl:schema:xsd:";
        return """
                <?xml version="1.0" encoding="UTF-8"?>
                <Invoice xmlns="%1$sInvoice-2" xmlns:cac="%1$sCommonAggregateComponents-2" xmlns:cbc="%1$sCommonBasicComponents-2" \
                xmlns:ext="%1$sCommonExtensionComponents-2">
                <ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>
                <cbc:ID>%2$s</cbc:ID>
                <cac:Signature><cbc:ID schemeID="VKN_TCKN">%3$s</cbc:ID></cac:Signature>
                %4$s</Invoice>
                """
                .formatted(ubl, number, sealer, content)
                .getBytes(StandardCharsets.UTF_8);
    }

    /** An invoice in which there is nothing wrong. */
    static byte[] plain() {
        return invoice(RSA, "TST2026000000001", "");
    }
}
