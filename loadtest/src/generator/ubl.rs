//! The texts of UBL-TR 1.2.1 documents, valid against GİB's schemas once their seal is in place.
//!
//! A text starts bare and grows to the size asked for: by lines, then (beyond [`LINES_UPTO`], unless dense) by an embedded
//! base64 stylesheet as integrators attach it, and to the byte by a note.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::civil::Date;

use super::{
    Kind, Size,
    template::{NUMBER, TCKN, UUID, VKN},
};

/// From here on a real invoice grows by its attachment, not by its lines.
const LINES_UPTO: usize = 16_000;

/// What a supermarket, a wholesaler and a workshop sell: name, unit (UN/ECE Rec 20), unit price in kuruş, VAT percent.
const GOODS: [(&str, &str, u64, u64); 12] = [
    ("Çift kaşarlı tost ekmeği, 500 g", "C62", 6_450, 1),
    ("Zeytinyağı, soğuk sıkım, 5 L teneke", "C62", 189_900, 1),
    ("Paslanmaz çelik cıvata M8×40", "C62", 325, 20),
    ("Ilgaz çam kerestesi, 5×10 cm", "MTR", 14_275, 20),
    ("Şeftali, Bursa", "KGM", 5_990, 1),
    ("Dizüstü bilgisayar, 14 inç", "C62", 3_249_900, 20),
    ("Danışmanlık hizmeti", "HUR", 185_000, 20),
    ("Ütü masası örtüsü & keçesi", "C62", 24_990, 10),
    ("Doğal kaynak suyu, 19 L damacana", "C62", 11_500, 10),
    ("Ölçü aleti kalibrasyonu (ğ, ı, ş, İ)", "C62", 97_500, 20),
    ("Fotokopi kâğıdı A4, 80 g/m²", "BX", 84_900, 20),
    ("Motorin", "LTR", 4_389, 20),
];

/// One line of a document; money in kuruş.
struct Line {
    name: &'static str,
    unit: &'static str,
    quantity: u64,
    price: u64,
    percent: u64,
}

impl Line {
    fn choose(random: &mut fastrand::Rng) -> Self {
        let (name, unit, price, percent) = GOODS[random.usize(..GOODS.len())];
        Self {
            name,
            unit,
            quantity: random.u64(1..=48),
            price,
            percent,
        }
    }

    fn net(&self) -> u64 {
        self.quantity * self.price
    }

    fn tax(&self) -> u64 {
        (self.net() * self.percent + 50) / 100
    }
}

/// Kuruş as lira: `123456` is `1234.56`.
fn lira(kurus: u64) -> String {
    format!("{}.{:02}", kurus / 100, kurus % 100)
}

/// A document of about `size.bytes` bytes (never less than its bare text with one line), with markers for what differs.
pub(super) fn write(kind: Kind, size: &Size, person: bool, date: Date, random: &mut fastrand::Rng) -> String {
    let mut lines = vec![Line::choose(random)];
    let compose = |lines: &[Line], attachment: &str, note: &str| match kind {
        Kind::Invoice => invoice("TEMELFATURA", lines, attachment, note, person, date),
        Kind::Earsiv => invoice("EARSIVFATURA", lines, attachment, note, person, date),
        Kind::CreditNote => credit_note(lines, attachment, note, person, date),
        Kind::Despatch => despatch(lines, attachment, note, person, date),
        Kind::Receipt => receipt(lines, attachment, note, person, date),
        Kind::Response => response(lines, attachment, note, person, date),
    };
    // The markers are longer than what takes their place; the note makes up for it at the end.
    let bare = written_len(&compose(&lines, "", ""));
    let line = {
        lines.push(Line::choose(random));
        let two = written_len(&compose(&lines, "", ""));
        lines.pop();
        two - bare
    };
    let by_lines = if size.dense {
        size.bytes
    } else {
        size.bytes.min(LINES_UPTO)
    };
    let more = by_lines.saturating_sub(bare + NOTE_FRAME) / line.max(1);
    // An attachment takes the room, not lines, where it is the better part of the document.
    let more = if size.bytes > LINES_UPTO && !size.dense {
        more.min(4)
    } else {
        more
    };
    lines.extend((0..more).map(|_| Line::choose(random)));
    // Names differ in length: what came out too long loses lines again.
    let mut text = written_len(&compose(&lines, "", ""));
    while lines.len() > 1 && text + NOTE_FRAME > size.bytes {
        lines.truncate(
            lines
                .len()
                .saturating_sub((text + NOTE_FRAME - size.bytes).div_ceil(line.max(1)))
                .max(1),
        );
        text = written_len(&compose(&lines, "", ""));
    }
    let attachment = if size.bytes > LINES_UPTO && !size.dense {
        let room = size.bytes.saturating_sub(text + ATTACHMENT_FRAME + NOTE_FRAME);
        let bytes: Vec<u8> = (0..room / 4 * 3).map(|_| random.u8(..)).collect();
        STANDARD.encode(bytes)
    } else {
        String::new()
    };
    let text = written_len(&compose(&lines, &attachment, ""));
    let note = filler(size.bytes.saturating_sub(text + NOTE_FRAME));
    compose(&lines, &attachment, &note)
}

/// `<cbc:Note></cbc:Note>` and its line end.
const NOTE_FRAME: usize = 22;
/// About what an `AdditionalDocumentReference` weighs around its base64.
const ATTACHMENT_FRAME: usize = 420;

fn written_len(text: &str) -> usize {
    super::template::Template::parse(text).len()
}

/// Turkish prose of exactly `len` bytes.
fn filler(len: usize) -> String {
    const PROSE: &str =
        "Mal ve hizmetler eksiksiz teslim edilmiştir; ödeme vadesi fatura tarihinden itibaren otuz gündür. ";
    let mut text = PROSE.repeat(len / PROSE.len() + 1);
    let mut end = len;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.extend(std::iter::repeat_n('.', len - end));
    text
}

fn open(root: &str, customization: &str, profile: &str, date: Date) -> String {
    let mut x = String::with_capacity(16_384);
    let _ = write!(
        x,
        r#"<?xml version="1.0" encoding="UTF-8"?>
<{root} xmlns="urn:oasis:names:specification:ubl:schema:xsd:{root}-2" xmlns:cac="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2" xmlns:cbc="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2" xmlns:ext="urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xades="http://uri.etsi.org/01903/v1.3.2#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:oasis:names:specification:ubl:schema:xsd:{root}-2 UBL-{root}-2.1.xsd">
	<ext:UBLExtensions>
		<ext:UBLExtension>
			<ext:ExtensionContent></ext:ExtensionContent>
		</ext:UBLExtension>
	</ext:UBLExtensions>
	<cbc:UBLVersionID>2.1</cbc:UBLVersionID>
	<cbc:CustomizationID>{customization}</cbc:CustomizationID>
	<cbc:ProfileID>{profile}</cbc:ProfileID>
	<cbc:ID>{NUMBER}</cbc:ID>
"#
    );
    if root != "ApplicationResponse" {
        x.push_str("\t<cbc:CopyIndicator>false</cbc:CopyIndicator>\n");
    }
    let _ = write!(
        x,
        "\t<cbc:UUID>{UUID}</cbc:UUID>\n\t<cbc:IssueDate>{date}</cbc:IssueDate>\n\t<cbc:IssueTime>10:15:00</cbc:IssueTime>\n"
    );
    x
}

fn notes(x: &mut String, note: &str) {
    if !note.is_empty() {
        let _ = writeln!(x, "\t<cbc:Note>{note}</cbc:Note>");
    }
}

fn attached(x: &mut String, base64: &str, date: Date) {
    if !base64.is_empty() {
        let _ = write!(
            x,
            r#"	<cac:AdditionalDocumentReference>
		<cbc:ID>{UUID}</cbc:ID>
		<cbc:IssueDate>{date}</cbc:IssueDate>
		<cbc:DocumentType>XSLT</cbc:DocumentType>
		<cac:Attachment>
			<cbc:EmbeddedDocumentBinaryObject characterSetCode="UTF-8" encodingCode="Base64" filename="gorunum.xslt" mimeCode="application/xml">{base64}</cbc:EmbeddedDocumentBinaryObject>
		</cac:Attachment>
	</cac:AdditionalDocumentReference>
"#
        );
    }
}

fn address(x: &mut String, tabs: &str, street: &str, district: &str, city: &str) {
    let _ = write!(
        x,
        "{tabs}<cac:PostalAddress>\n{tabs}\t<cbc:StreetName>{street}</cbc:StreetName>\n{tabs}\t<cbc:BuildingNumber>12</cbc:BuildingNumber>\n\
         {tabs}\t<cbc:CitySubdivisionName>{district}</cbc:CitySubdivisionName>\n{tabs}\t<cbc:CityName>{city}</cbc:CityName>\n\
         {tabs}\t<cbc:PostalZone>34722</cbc:PostalZone>\n{tabs}\t<cac:Country>\n{tabs}\t\t<cbc:Name>Türkiye</cbc:Name>\n{tabs}\t</cac:Country>\n{tabs}</cac:PostalAddress>\n"
    );
}

/// The taxpayer's number, with the scheme that goes with its length.
fn sealer(person: bool) -> (&'static str, &'static str) {
    if person { ("TCKN", TCKN) } else { ("VKN", VKN) }
}

fn signature(x: &mut String, person: bool) {
    let (scheme, number) = sealer(person);
    let _ = write!(
        x,
        r#"	<cac:Signature>
		<cbc:ID schemeID="VKN_TCKN">{number}</cbc:ID>
		<cac:SignatoryParty>
			<cac:PartyIdentification>
				<cbc:ID schemeID="{scheme}">{number}</cbc:ID>
			</cac:PartyIdentification>
"#
    );
    address(x, "\t\t\t", "Bağdat Caddesi", "Kadıköy", "İstanbul");
    let _ = write!(
        x,
        r"		</cac:SignatoryParty>
		<cac:DigitalSignatureAttachment>
			<cac:ExternalReference>
				<cbc:URI>#Signature_{NUMBER}</cbc:URI>
			</cac:ExternalReference>
		</cac:DigitalSignatureAttachment>
	</cac:Signature>
"
    );
}

/// The taxpayer as a party of the document.
fn own_party(x: &mut String, tabs: &str, person: bool) {
    let (scheme, number) = sealer(person);
    let _ = write!(
        x,
        "{tabs}<cbc:WebsiteURI>https://www.example.com.tr/</cbc:WebsiteURI>\n{tabs}<cac:PartyIdentification>\n\
         {tabs}\t<cbc:ID schemeID=\"{scheme}\">{number}</cbc:ID>\n{tabs}</cac:PartyIdentification>\n"
    );
    if !person {
        let _ = write!(
            x,
            "{tabs}<cac:PartyName>\n{tabs}\t<cbc:Name>Örnek Gıda Sanayi ve Dış Ticaret Anonim Şirketi</cbc:Name>\n{tabs}</cac:PartyName>\n"
        );
    }
    address(x, tabs, "Bağdat Caddesi", "Kadıköy", "İstanbul");
    tax_office(x, tabs, "Göztepe", "bilgi@example.com.tr");
    if person {
        let _ = write!(
            x,
            "{tabs}<cac:Person>\n{tabs}\t<cbc:FirstName>Ayşe</cbc:FirstName>\n{tabs}\t<cbc:FamilyName>Yıldız</cbc:FamilyName>\n{tabs}</cac:Person>\n"
        );
    }
}

/// The other side of the deal.
fn other_party(x: &mut String, tabs: &str) {
    let _ = write!(
        x,
        "{tabs}<cac:PartyIdentification>\n{tabs}\t<cbc:ID schemeID=\"VKN\">9205121120</cbc:ID>\n{tabs}</cac:PartyIdentification>\n\
         {tabs}<cac:PartyName>\n{tabs}\t<cbc:Name>Deneme İnşaat Taahhüt Limited Şirketi</cbc:Name>\n{tabs}</cac:PartyName>\n"
    );
    address(x, tabs, "Atatürk Bulvarı", "Çankaya", "Ankara");
    tax_office(x, tabs, "Çankaya", "muhasebe@example.org");
}

fn tax_office(x: &mut String, tabs: &str, office: &str, mail: &str) {
    let _ = write!(
        x,
        "{tabs}<cac:PartyTaxScheme>\n{tabs}\t<cac:TaxScheme>\n{tabs}\t\t<cbc:Name>{office}</cbc:Name>\n{tabs}\t</cac:TaxScheme>\n{tabs}</cac:PartyTaxScheme>\n\
         {tabs}<cac:Contact>\n{tabs}\t<cbc:Telephone>(216) 555 00 00</cbc:Telephone>\n{tabs}\t<cbc:ElectronicMail>{mail}</cbc:ElectronicMail>\n{tabs}</cac:Contact>\n"
    );
}

fn parties(x: &mut String, own: &str, other: &str, person: bool) {
    let _ = writeln!(x, "\t<cac:{own}>\n\t\t<cac:Party>");
    own_party(x, "\t\t\t", person);
    let _ = writeln!(x, "\t\t</cac:Party>\n\t</cac:{own}>\n\t<cac:{other}>\n\t\t<cac:Party>");
    other_party(x, "\t\t\t");
    let _ = writeln!(x, "\t\t</cac:Party>\n\t</cac:{other}>");
}

fn tax_total(x: &mut String, tabs: &str, taxable: u64, tax: u64, percent: Option<u64>) {
    let (taxable, tax) = (lira(taxable), lira(tax));
    let _ = write!(
        x,
        "{tabs}<cac:TaxTotal>\n{tabs}\t<cbc:TaxAmount currencyID=\"TRY\">{tax}</cbc:TaxAmount>\n{tabs}\t<cac:TaxSubtotal>\n\
         {tabs}\t\t<cbc:TaxableAmount currencyID=\"TRY\">{taxable}</cbc:TaxableAmount>\n{tabs}\t\t<cbc:TaxAmount currencyID=\"TRY\">{tax}</cbc:TaxAmount>\n"
    );
    if let Some(percent) = percent {
        let _ = writeln!(x, "{tabs}\t\t<cbc:Percent>{percent}</cbc:Percent>");
    }
    let _ = write!(
        x,
        "{tabs}\t\t<cac:TaxCategory>\n{tabs}\t\t\t<cac:TaxScheme>\n{tabs}\t\t\t\t<cbc:Name>KDV</cbc:Name>\n{tabs}\t\t\t\t<cbc:TaxTypeCode>0015</cbc:TaxTypeCode>\n\
         {tabs}\t\t\t</cac:TaxScheme>\n{tabs}\t\t</cac:TaxCategory>\n{tabs}\t</cac:TaxSubtotal>\n{tabs}</cac:TaxTotal>\n"
    );
}

fn totals(x: &mut String, lines: &[Line]) {
    let (net, tax) = (
        lines.iter().map(Line::net).sum::<u64>(),
        lines.iter().map(Line::tax).sum::<u64>(),
    );
    tax_total(x, "\t", net, tax, None);
    let (net, gross) = (lira(net), lira(net + tax));
    let _ = write!(
        x,
        r#"	<cac:LegalMonetaryTotal>
		<cbc:LineExtensionAmount currencyID="TRY">{net}</cbc:LineExtensionAmount>
		<cbc:TaxExclusiveAmount currencyID="TRY">{net}</cbc:TaxExclusiveAmount>
		<cbc:TaxInclusiveAmount currencyID="TRY">{gross}</cbc:TaxInclusiveAmount>
		<cbc:PayableAmount currencyID="TRY">{gross}</cbc:PayableAmount>
	</cac:LegalMonetaryTotal>
"#
    );
}

fn priced_lines(x: &mut String, element: &str, quantity: &str, lines: &[Line]) {
    for (index, line) in lines.iter().enumerate() {
        let net = lira(line.net());
        let _ = write!(
            x,
            "\t<cac:{element}>\n\t\t<cbc:ID>{}</cbc:ID>\n\t\t<cbc:{quantity} unitCode=\"{}\">{}</cbc:{quantity}>\n\
             \t\t<cbc:LineExtensionAmount currencyID=\"TRY\">{net}</cbc:LineExtensionAmount>\n",
            index + 1,
            line.unit,
            line.quantity
        );
        tax_total(x, "\t\t", line.net(), line.tax(), Some(line.percent));
        let _ = write!(
            x,
            "\t\t<cac:Item>\n\t\t\t<cbc:Name>{}</cbc:Name>\n\t\t</cac:Item>\n\t\t<cac:Price>\n\
             \t\t\t<cbc:PriceAmount currencyID=\"TRY\">{}</cbc:PriceAmount>\n\t\t</cac:Price>\n\t</cac:{element}>\n",
            line.name.replace('&', "&amp;"),
            lira(line.price)
        );
    }
}

fn invoice(profile: &str, lines: &[Line], attachment: &str, note: &str, person: bool, date: Date) -> String {
    let mut x = open("Invoice", "TR1.2.1", profile, date);
    x.push_str("\t<cbc:InvoiceTypeCode>SATIS</cbc:InvoiceTypeCode>\n");
    notes(&mut x, note);
    let _ = write!(
        x,
        "\t<cbc:DocumentCurrencyCode>TRY</cbc:DocumentCurrencyCode>\n\t<cbc:LineCountNumeric>{}</cbc:LineCountNumeric>\n",
        lines.len()
    );
    attached(&mut x, attachment, date);
    signature(&mut x, person);
    parties(&mut x, "AccountingSupplierParty", "AccountingCustomerParty", person);
    totals(&mut x, lines);
    priced_lines(&mut x, "InvoiceLine", "InvoicedQuantity", lines);
    x.push_str("</Invoice>\n");
    x
}

fn credit_note(lines: &[Line], attachment: &str, note: &str, person: bool, date: Date) -> String {
    let mut x = open("CreditNote", "TR1.2.1", "EARSIVBELGE", date);
    x.push_str("\t<cbc:CreditNoteTypeCode>MUSTAHSILMAKBUZ</cbc:CreditNoteTypeCode>\n");
    notes(&mut x, note);
    let _ = write!(
        x,
        "\t<cbc:DocumentCurrencyCode>TRY</cbc:DocumentCurrencyCode>\n\t<cbc:LineCountNumeric>{}</cbc:LineCountNumeric>\n",
        lines.len()
    );
    attached(&mut x, attachment, date);
    signature(&mut x, person);
    parties(&mut x, "AccountingSupplierParty", "AccountingCustomerParty", person);
    totals(&mut x, lines);
    priced_lines(&mut x, "CreditNoteLine", "CreditedQuantity", lines);
    x.push_str("</CreditNote>\n");
    x
}

fn despatch(lines: &[Line], attachment: &str, note: &str, person: bool, date: Date) -> String {
    let mut x = open("DespatchAdvice", "TR1.2.1", "TEMELIRSALIYE", date);
    x.push_str("\t<cbc:DespatchAdviceTypeCode>SEVK</cbc:DespatchAdviceTypeCode>\n");
    notes(&mut x, note);
    attached(&mut x, attachment, date);
    signature(&mut x, person);
    parties(&mut x, "DespatchSupplierParty", "DeliveryCustomerParty", person);
    let _ = write!(
        x,
        r#"	<cac:Shipment>
		<cbc:ID/>
		<cac:GoodsItem>
			<cbc:ValueAmount currencyID="TRY">{}</cbc:ValueAmount>
		</cac:GoodsItem>
		<cac:ShipmentStage>
			<cac:TransportMeans>
				<cac:RoadTransport>
					<cbc:LicensePlateID schemeID="PLAKA">34ABC123</cbc:LicensePlateID>
				</cac:RoadTransport>
			</cac:TransportMeans>
			<cac:DriverPerson>
				<cbc:FirstName>Hüseyin</cbc:FirstName>
				<cbc:FamilyName>Çağlar</cbc:FamilyName>
				<cbc:Title>Şoför</cbc:Title>
				<cbc:NationalityID>11111111110</cbc:NationalityID>
			</cac:DriverPerson>
		</cac:ShipmentStage>
		<cac:Delivery>
			<cac:Despatch>
				<cbc:ActualDespatchDate>{date}</cbc:ActualDespatchDate>
				<cbc:ActualDespatchTime>10:30:00</cbc:ActualDespatchTime>
			</cac:Despatch>
		</cac:Delivery>
	</cac:Shipment>
"#,
        lira(lines.iter().map(Line::net).sum())
    );
    moved_lines(&mut x, "DespatchLine", "DeliveredQuantity", lines);
    x.push_str("</DespatchAdvice>\n");
    x
}

fn receipt(lines: &[Line], attachment: &str, note: &str, person: bool, date: Date) -> String {
    let mut x = open("ReceiptAdvice", "TR1.2.1", "TEMELIRSALIYE", date);
    x.push_str("\t<cbc:ReceiptAdviceTypeCode>SEVK</cbc:ReceiptAdviceTypeCode>\n");
    notes(&mut x, note);
    let _ = write!(
        x,
        "\t<cac:DespatchDocumentReference>\n\t\t<cbc:ID>{UUID}</cbc:ID>\n\t\t<cbc:IssueDate>{date}</cbc:IssueDate>\n\t</cac:DespatchDocumentReference>\n"
    );
    attached(&mut x, attachment, date);
    signature(&mut x, person);
    parties(&mut x, "DeliveryCustomerParty", "DespatchSupplierParty", person);
    let _ = write!(
        x,
        "\t<cac:Shipment>\n\t\t<cbc:ID/>\n\t\t<cac:Delivery>\n\t\t\t<cbc:ActualDeliveryDate>{date}</cbc:ActualDeliveryDate>\n\
         \t\t\t<cbc:ActualDeliveryTime>16:40:00</cbc:ActualDeliveryTime>\n\t\t</cac:Delivery>\n\t</cac:Shipment>\n"
    );
    moved_lines(&mut x, "ReceiptLine", "ReceivedQuantity", lines);
    x.push_str("</ReceiptAdvice>\n");
    x
}

fn moved_lines(x: &mut String, element: &str, quantity: &str, lines: &[Line]) {
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let _ = write!(
            x,
            "\t<cac:{element}>\n\t\t<cbc:ID>{number}</cbc:ID>\n\t\t<cbc:{quantity} unitCode=\"{}\">{}</cbc:{quantity}>\n",
            line.unit, line.quantity
        );
        if element == "DespatchLine" {
            let _ = writeln!(
                x,
                "\t\t<cac:OrderLineReference>\n\t\t\t<cbc:LineID>{number}</cbc:LineID>\n\t\t</cac:OrderLineReference>"
            );
        }
        let _ = write!(
            x,
            "\t\t<cac:Item>\n\t\t\t<cbc:Name>{}</cbc:Name>\n\t\t\t<cac:SellersItemIdentification>\n\t\t\t\t<cbc:ID>STK{number:05}</cbc:ID>\n\
             \t\t\t</cac:SellersItemIdentification>\n\t\t</cac:Item>\n\t</cac:{element}>\n",
            line.name.replace('&', "&amp;")
        );
    }
}

fn response(lines: &[Line], attachment: &str, note: &str, person: bool, date: Date) -> String {
    let mut x = open("ApplicationResponse", "TR1.2.1", "TICARIFATURA", date);
    notes(&mut x, note);
    signature(&mut x, person);
    x.push_str("\t<cac:SenderParty>\n");
    own_party(&mut x, "\t\t", person);
    x.push_str("\t</cac:SenderParty>\n\t<cac:ReceiverParty>\n");
    other_party(&mut x, "\t\t");
    let _ = write!(
        x,
        r"	</cac:ReceiverParty>
	<cac:DocumentResponse>
		<cac:Response>
			<cbc:ReferenceID>{UUID}</cbc:ReferenceID>
			<cbc:ResponseCode>KABUL</cbc:ResponseCode>
			<cbc:Description>Fatura kabul edilmiştir.</cbc:Description>
		</cac:Response>
		<cac:DocumentReference>
			<cbc:ID>{UUID}</cbc:ID>
			<cbc:IssueDate>{date}</cbc:IssueDate>
			<cbc:DocumentTypeCode>FATURA</cbc:DocumentTypeCode>
			<cbc:DocumentType>FATURA</cbc:DocumentType>
"
    );
    if !attachment.is_empty() {
        let _ = write!(
            x,
            r#"			<cac:Attachment>
				<cbc:EmbeddedDocumentBinaryObject characterSetCode="UTF-8" encodingCode="Base64" filename="fatura.xml" mimeCode="application/xml">{attachment}</cbc:EmbeddedDocumentBinaryObject>
			</cac:Attachment>
"#
        );
    }
    x.push_str("\t\t</cac:DocumentReference>\n");
    for (index, line) in lines.iter().enumerate() {
        let _ = write!(
            x,
            "\t\t<cac:LineResponse>\n\t\t\t<cac:LineReference>\n\t\t\t\t<cbc:LineID>{}</cbc:LineID>\n\t\t\t</cac:LineReference>\n\t\t\t<cac:Response>\n\
             \t\t\t\t<cbc:ReferenceID>{UUID}</cbc:ReferenceID>\n\t\t\t\t<cbc:ResponseCode>KABUL</cbc:ResponseCode>\n\
             \t\t\t\t<cbc:Description>{}</cbc:Description>\n\t\t\t</cac:Response>\n\t\t</cac:LineResponse>\n",
            index + 1,
            line.name.replace('&', "&amp;")
        );
    }
    x.push_str("\t</cac:DocumentResponse>\n</ApplicationResponse>\n");
    x
}
