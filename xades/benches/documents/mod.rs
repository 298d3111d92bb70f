//! Invoices of the sizes that arrive, made here.
#![allow(dead_code, reason = "shared by several benchmarks")]

use std::fmt::Write as _;

/// The four shapes that the figures are about.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("9 KB", invoice(5, 0, true)),
        ("100 KB, 84 KB attachment", invoice(9, 84 << 10, true)),
        ("101 KB dense", invoice(101, 0, false)),
        ("260 KB, 240 KB attachment", invoice(11, 240 << 10, true)),
    ]
}

/// An invoice of so many lines, with an attachment of so many base64 characters, indented or not.
pub(crate) fn invoice(lines: usize, attachment: usize, indented: bool) -> Vec<u8> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(HEAD);
    if attachment > 0 {
        text.push_str(
            "<cac:AdditionalDocumentReference>\n<cbc:ID>1</cbc:ID>\n<cbc:IssueDate>2026-11-21</cbc:IssueDate>\n",
        );
        text.push_str(
            "<cac:Attachment>\n<cbc:EmbeddedDocumentBinaryObject mimeCode=\"application/xml\" encodingCode=\"Base64\" ",
        );
        text.push_str("characterSetCode=\"UTF-8\" filename=\"a.xslt\">");
        text.extend(
            "PD94bWwgdmVyc2lvbj0iMS4wIiBlbmNvZGluZz0iVVRGLTgiPz4NCjx4"
                .chars()
                .cycle()
                .take(attachment),
        );
        text.push_str("</cbc:EmbeddedDocumentBinaryObject>\n</cac:Attachment>\n</cac:AdditionalDocumentReference>\n");
    }
    text.push_str(SIGNER);
    for (role, vkn) in [
        ("AccountingSupplierParty", "1234567801"),
        ("AccountingCustomerParty", "9876543210"),
    ] {
        write!(text, "<cac:{role}>\n{}</cac:{role}>\n", PARTY.replace("VKN0", vkn)).expect("into a string");
    }
    for line in 1..=lines {
        text.push_str(&LINE.replace("LINE0", &line.to_string()));
    }
    text.push_str("</Invoice>\n");
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("</") {
            depth -= 1;
        }
        if indented {
            out.extend(std::iter::repeat_n('\t', depth));
        }
        out.push_str(line);
        if indented || line.starts_with("<?") {
            out.push('\n');
        }
        let opens = line.starts_with('<') && !line.starts_with("</") && !line.starts_with("<?");
        if opens && !line.contains("</") && !line.ends_with("/>") {
            depth += 1;
        }
    }
    out.into_bytes()
}

const HEAD: &str = "\
<Invoice xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Invoice-2\" xmlns:cac=\"urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2\" xmlns:cbc=\"urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2\" xmlns:ccts=\"urn:un:unece:uncefact:documentation:2\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" xmlns:ext=\"urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2\" xmlns:xades=\"http://uri.etsi.org/01903/v1.3.2#\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:schemaLocation=\"urn:oasis:names:specification:ubl:schema:xsd:Invoice-2 UBL-Invoice-2.1.xsd\">
<ext:UBLExtensions>
<ext:UBLExtension>
<ext:ExtensionContent/>
</ext:UBLExtension>
</ext:UBLExtensions>
<cbc:UBLVersionID>2.1</cbc:UBLVersionID>
<cbc:CustomizationID>TR1.2</cbc:CustomizationID>
<cbc:ProfileID>TICARIFATURA</cbc:ProfileID>
<cbc:ID>MHR2026000000001</cbc:ID>
<cbc:CopyIndicator>false</cbc:CopyIndicator>
<cbc:UUID>F47AC10B-58CC-4372-A567-0E02B2C3D479</cbc:UUID>
<cbc:IssueDate>2026-11-21</cbc:IssueDate>
<cbc:IssueTime>12:00:00</cbc:IssueTime>
<cbc:InvoiceTypeCode>SATIS</cbc:InvoiceTypeCode>
<cbc:Note>Yalnız yüz yirmi Türk lirasıdır.</cbc:Note>
<cbc:DocumentCurrencyCode>TRY</cbc:DocumentCurrencyCode>
<cbc:LineCountNumeric>1</cbc:LineCountNumeric>
";

const SIGNER: &str = "\
<cac:Signature>
<cbc:ID schemeID=\"VKN_TCKN\">1234567801</cbc:ID>
<cac:DigitalSignatureAttachment>
<cac:ExternalReference>
<cbc:URI>#Signature_MHR2026000000001</cbc:URI>
</cac:ExternalReference>
</cac:DigitalSignatureAttachment>
</cac:Signature>
";

const PARTY: &str = "\
<cac:Party>
<cbc:WebsiteURI>http://www.aaa.com.tr/</cbc:WebsiteURI>
<cac:PartyIdentification>
<cbc:ID schemeID=\"VKN\">VKN0</cbc:ID>
</cac:PartyIdentification>
<cac:PartyName>
<cbc:Name>Örnek Gıda Sanayi ve Ticaret Anonim Şirketi</cbc:Name>
</cac:PartyName>
<cac:PostalAddress>
<cbc:StreetName>Papatya Caddesi Yasemin Sokak</cbc:StreetName>
<cbc:BuildingNumber>21</cbc:BuildingNumber>
<cbc:CitySubdivisionName>Beşiktaş</cbc:CitySubdivisionName>
<cbc:CityName>İstanbul</cbc:CityName>
<cbc:PostalZone>34100</cbc:PostalZone>
<cac:Country>
<cbc:Name>Türkiye</cbc:Name>
</cac:Country>
</cac:PostalAddress>
<cac:PartyTaxScheme>
<cac:TaxScheme>
<cbc:Name>Büyük Mükellefler</cbc:Name>
</cac:TaxScheme>
</cac:PartyTaxScheme>
</cac:Party>
";

const LINE: &str = "\
<cac:InvoiceLine>
<cbc:ID>LINE0</cbc:ID>
<cbc:InvoicedQuantity unitCode=\"C62\">101</cbc:InvoicedQuantity>
<cbc:LineExtensionAmount currencyID=\"TRY\">15.15</cbc:LineExtensionAmount>
<cac:AllowanceCharge>
<cbc:ChargeIndicator>false</cbc:ChargeIndicator>
<cbc:MultiplierFactorNumeric>0.0</cbc:MultiplierFactorNumeric>
<cbc:Amount currencyID=\"TRY\">0</cbc:Amount>
<cbc:BaseAmount currencyID=\"TRY\">15.15</cbc:BaseAmount>
</cac:AllowanceCharge>
<cac:TaxTotal>
<cbc:TaxAmount currencyID=\"TRY\">2.73</cbc:TaxAmount>
<cac:TaxSubtotal>
<cbc:TaxableAmount currencyID=\"TRY\">15.15</cbc:TaxableAmount>
<cbc:TaxAmount currencyID=\"TRY\">2.73</cbc:TaxAmount>
<cbc:Percent>20.0</cbc:Percent>
<cac:TaxCategory>
<cac:TaxScheme>
<cbc:Name>KDV</cbc:Name>
<cbc:TaxTypeCode>0015</cbc:TaxTypeCode>
</cac:TaxScheme>
</cac:TaxCategory>
</cac:TaxSubtotal>
</cac:TaxTotal>
<cac:Item>
<cbc:Name>Laptop çantası</cbc:Name>
</cac:Item>
<cac:Price>
<cbc:PriceAmount currencyID=\"TRY\">0.15</cbc:PriceAmount>
</cac:Price>
</cac:InvoiceLine>
";

/// A ledger (yevmiye) in three parts: its head, one entry to be repeated, its end.
pub(crate) fn ledger() -> (&'static str, &'static str, &'static str) {
    (
        LEDGER_HEAD,
        LEDGER_ENTRY,
        "</gl-cor:accountingEntries>\n</xbrli:xbrl>\n</edefter:defter>\n",
    )
}

const LEDGER_HEAD: &str = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<edefter:defter xmlns:edefter=\"http://www.edefter.gov.tr\" xmlns:gl-bus=\"http://www.xbrl.org/int/gl/bus/2006-10-25\" xmlns:gl-cor=\"http://www.xbrl.org/int/gl/cor/2006-10-25\" xmlns:iso4217=\"http://www.xbrl.org/2003/iso4217\" xmlns:xbrli=\"http://www.xbrl.org/2003/instance\">
<xbrli:xbrl>
<xbrli:context id=\"journal_context\">
<xbrli:entity>
<xbrli:identifier scheme=\"http://www.gib.gov.tr\">1234567801</xbrli:identifier>
</xbrli:entity>
</xbrli:context>
<gl-cor:accountingEntries>
";

const LEDGER_ENTRY: &str = "\
\t\t<gl-cor:entryHeader>
\t\t\t<gl-cor:enteredBy contextRef=\"journal_context\">Ayşe Yılmaz</gl-cor:enteredBy>
\t\t\t<gl-cor:enteredDate contextRef=\"journal_context\">2026-11-21</gl-cor:enteredDate>
\t\t\t<gl-cor:entryNumber contextRef=\"journal_context\">42</gl-cor:entryNumber>
\t\t\t<gl-cor:entryComment contextRef=\"journal_context\">Satış faturası &amp; tahsilat</gl-cor:entryComment>
\t\t\t<gl-bus:totalDebit contextRef=\"journal_context\" decimals=\"INF\" unitRef=\"try\">120.00</gl-bus:totalDebit>
\t\t\t<gl-cor:entryDetail>
\t\t\t\t<gl-cor:lineNumber contextRef=\"journal_context\">1</gl-cor:lineNumber>
\t\t\t\t<gl-cor:account>
\t\t\t\t\t<gl-cor:accountMainID contextRef=\"journal_context\">120</gl-cor:accountMainID>
\t\t\t\t\t<gl-cor:accountMainDescription contextRef=\"journal_context\">ALICILAR</gl-cor:accountMainDescription>
\t\t\t\t</gl-cor:account>
\t\t\t\t<gl-cor:amount contextRef=\"journal_context\" decimals=\"INF\" unitRef=\"try\">120.00</gl-cor:amount>
\t\t\t\t<gl-cor:debitCreditCode contextRef=\"journal_context\">D</gl-cor:debitCreditCode>
\t\t\t\t<gl-cor:postingDate contextRef=\"journal_context\">2026-11-21</gl-cor:postingDate>
\t\t\t\t<gl-cor:documentType contextRef=\"journal_context\">invoice</gl-cor:documentType>
\t\t\t</gl-cor:entryDetail>
\t\t</gl-cor:entryHeader>
";
