import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.PublicKey;
import java.security.cert.CertificateFactory;
import java.util.Base64;
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
 * Asks the JDK's own javax.xml.crypto about sealed files: the signature of each, and every reference of it.
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
        PublicKey key =
                CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(der)).getPublicKey();
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
}
