import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.PublicKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.Base64;
import javax.security.auth.x500.X500Principal;
import javax.xml.crypto.dsig.Reference;
import javax.xml.crypto.dsig.XMLSignature;
import javax.xml.crypto.dsig.XMLSignatureFactory;
import javax.xml.crypto.dsig.dom.DOMValidateContext;
import javax.xml.parsers.DocumentBuilder;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;

/**
 * Asks the JDK about sealed files: javax.xml.crypto about the signature of each and every reference of it, and
 * javax.security.auth.x500 whether the names that it quotes are those of its certificate.
 *
 * <p>usage: java Verify.java &lt; list of files, one per line. Prints a line per file: "ok", or "refused: " and why.
 */
public final class Verify {
    private static final String DS = "http://www.w3.org/2000/09/xmldsig#";
    private static final String XADES = "http://uri.etsi.org/01903/v1.3.2#";

    private Verify() {}

    public static void main(String[] args) throws Exception {
        DocumentBuilderFactory documents = DocumentBuilderFactory.newInstance();
        documents.setNamespaceAware(true);
        documents.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
        DocumentBuilder builder = documents.newDocumentBuilder();
        builder.setErrorHandler(null);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String file = in.readLine(); file != null; file = in.readLine()) {
            String answer;
            try {
                answer = verify(builder.parse(new File(file)));
            } catch (Exception refused) {
                answer = refused.getClass().getSimpleName() + ": " + refused.getMessage();
            }
            System.out.println(answer == null ? "ok" : "refused: " + answer.replaceAll("\\s+", " "));
            System.out.flush();
        }
    }

    private static String verify(Document document) throws Exception {
        NodeList signatures = document.getElementsByTagNameNS(DS, "Signature");
        if (signatures.getLength() == 0) {
            return "no signature";
        }
        for (int i = 0; i < signatures.getLength(); i++) {
            String wrong = verify(document, (Element) signatures.item(i));
            if (wrong != null) {
                return wrong;
            }
        }
        return null;
    }

    private static String verify(Document document, Element signature) throws Exception {
        Element certificate = (Element) signature.getElementsByTagNameNS(DS, "X509Certificate").item(0);
        byte[] der = Base64.getMimeDecoder().decode(certificate.getTextContent());
        X509Certificate read509 = (X509Certificate)
                CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(der));
        if (!names(signature, "X509SubjectName", read509.getSubjectX500Principal())) {
            return "X509SubjectName";
        }
        if (!names(signature, "X509IssuerName", read509.getIssuerX500Principal())) {
            return "X509IssuerName";
        }
        PublicKey key = read509.getPublicKey();
        DOMValidateContext context = new DOMValidateContext(key, signature);
        context.setProperty("org.jcp.xml.dsig.secureValidation", Boolean.TRUE);
        for (String[] name : new String[][] {{DS, "Signature"}, {DS, "SignatureValue"}, {XADES, "SignedProperties"}}) {
            NodeList all = document.getElementsByTagNameNS(name[0], name[1]);
            for (int i = 0; i < all.getLength(); i++) {
                if (((Element) all.item(i)).hasAttributeNS(null, "Id")) {
                    context.setIdAttributeNS((Element) all.item(i), null, "Id");
                }
            }
        }
        XMLSignature read = XMLSignatureFactory.getInstance("DOM").unmarshalXMLSignature(context);
        if (!read.getSignatureValue().validate(context)) {
            return "signature value";
        }
        for (Object reference : read.getSignedInfo().getReferences()) {
            if (!((Reference) reference).validate(context)) {
                return "digest of the reference to '" + ((Reference) reference).getURI() + "'";
            }
        }
        return null;
    }

    /** Whether every such element names this principal, as a receiver reads it that trims what it gets. */
    private static boolean names(Element signature, String element, X500Principal principal) {
        NodeList all = signature.getElementsByTagNameNS(DS, element);
        for (int i = 0; i < all.getLength(); i++) {
            X500Principal named = new X500Principal(all.item(i).getTextContent().trim());
            // The JDK compares strings of types that it does not know (UniversalString) by their DER.
            boolean comparable = !principal.getName(X500Principal.RFC1779).contains("=#");
            if (comparable && !named.toString().equals(principal.toString())) {
                return false;
            }
        }
        return true;
    }
}
