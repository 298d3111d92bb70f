#!/usr/bin/env python3
"""Take the seal out again and compare with what was sealed, by lxml.

usage: unseal.py INPUT SEALED [INPUT SEALED]...

Sealing may change one thing beside adding the seal, and only where the seal goes:
  - white space or a placeholder element in the extension that takes the seal is dropped;
  - a missing ext:UBLExtensions, or a missing free ext:UBLExtension in it, is added; so is oa:Signature in a user account.
After that and without the seal, the canonical forms (inclusive C14N 1.0, with comments) must be equal.

Prints a line per pair that differs, then 'N equal, N differ'. Exit 0 only where all are equal.
"""
import sys

from lxml import etree

EXT = "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}Signature"
OA_SIGNATURE = "{http://www.openapplications.org/oagis/9}Signature"
EXTENSIONS, CONTENT = (f"{{{EXT}}}{n}" for n in ("UBLExtensions", "ExtensionContent"))


def cut(element):
    """Remove an element, but not the text after it."""
    parent, before = element.getparent(), element.getprevious()
    if element.tail:
        if before is not None:
            before.tail = (before.tail or "") + element.tail
        else:
            parent.text = (parent.text or "") + element.tail
    parent.remove(element)


def cut_extension(given, sealed, seal):
    """Take a seal of the UBL family out of its extension, and what was dropped there out of the input."""
    content = seal.getparent()
    if len(content) != 1 or content.text or seal.tail:
        return "something stands beside the seal"
    extension = content.getparent()
    extensions = extension.getparent()
    if extensions.getparent() is not sealed:
        return "the seal is not in the root's own extensions"
    at = extensions.index(extension)
    before = given.find(EXTENSIONS)
    if before is None:
        cut(extensions)
    elif at >= len(before):
        cut(extension)
    else:
        cut(seal)
        was = before[at].find(CONTENT)
        if was is None:
            return "the seal's extension had no content element"
        if any(c.tag is not etree.Comment and len(c) + len(c.attrib) + len((c.text or "").strip()) for c in was):
            return "the extension that took the seal held real content"
        for child in list(was):
            was.remove(child)
        was.text = None
    return None


def compare(given, sealed):
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)
    given, sealed = etree.parse(given, parser), etree.parse(sealed, parser)
    seals = [s for s in sealed.getroot().iter(SIGNATURE) if not any(a.tag == SIGNATURE for a in s.iterancestors())]
    if len(seals) != 1:
        return f"{len(seals)} seals instead of one"
    seal, place = seals[0], seals[0].getparent()
    if place.tag == CONTENT:
        why = cut_extension(given.getroot(), sealed.getroot(), seal)
        if why:
            return why
    elif place.tag == OA_SIGNATURE and given.getroot().find(f".//{OA_SIGNATURE}") is None:
        cut(place)
    else:
        cut(seal)
    forms = [etree.tostring(t, method="c14n", with_comments=True) for t in (given, sealed)]
    if forms[0] != forms[1]:
        at = next((i for i, (a, b) in enumerate(zip(*forms)) if a != b), min(map(len, forms)))
        return f"differs at byte {at} of the canonical form: {forms[0][at - 30:at + 30]!r} became {forms[1][at - 30:at + 30]!r}"
    return None


def main(paths):
    if not paths or len(paths) % 2:
        sys.exit(__doc__)
    differ = 0
    for given, sealed in zip(paths[::2], paths[1::2]):
        why = compare(given, sealed)
        if why:
            differ += 1
            print(f"{sealed}: {why}")
    print(f"{len(paths) // 2 - differ} equal, {differ} differ")
    sys.exit(differ > 0)


main(sys.argv[1:])
