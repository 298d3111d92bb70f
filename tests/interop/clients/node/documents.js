// What there is to be sealed, and by whom; and a line for the test that runs this.
"use strict";

const RSA = "1000000000";
const EC = "1000000018";

function invoice(sealer = RSA, content = "", number = "TST2026000000001") {
  const ubl = "urn:oasis:names:specification:ubl:schema:xsd:";
  return Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<Invoice xmlns="${ubl}Invoice-2" ` +
      `xmlns:cac="${ubl}CommonAggregateComponents-2" xmlns:cbc="${ubl}CommonBasicComponents-2" ` +
      `xmlns:ext="${ubl}CommonExtensionComponents-2">\n` +
      "<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n" +
      `<cbc:ID>${number}</cbc:ID>\n` +
      `<cac:Signature><cbc:ID schemeID="VKN_TCKN">${sealer}</cbc:ID></cac:Signature>\n${content}</Invoice>\n`,
  );
}

const note = (text) => invoice(RSA, `<cbc:Note>${text}</cbc:Note>`);
const request = (document = invoice(), more = {}) => ({ taxpayer: RSA, document, ...more });
const held = (what) => console.log(`held: ${what}`);

module.exports = { EC, RSA, held, invoice, note, request };
