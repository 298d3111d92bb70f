"""What there is to be sealed, and by whom."""

RSA, EC = "1000000000", "1000000018"


def invoice(sealer: str = RSA, content: str = "", number: str = "TST2026000000001") -> bytes:
    ubl = "urn:oasis:names:specification:ubl:schema:xsd:"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Invoice xmlns="{ubl}Invoice-2" '
        f'xmlns:cac="{ubl}CommonAggregateComponents-2" xmlns:cbc="{ubl}CommonBasicComponents-2" '
        f'xmlns:ext="{ubl}CommonExtensionComponents-2">\n'
        "<ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n"
        f"<cbc:ID>{number}</cbc:ID>\n"
        f'<cac:Signature><cbc:ID schemeID="VKN_TCKN">{sealer}</cbc:ID></cac:Signature>\n{content}</Invoice>\n'
    ).encode()


def note(text: str) -> bytes:
    return invoice(content=f"<cbc:Note>{text}</cbc:Note>")
