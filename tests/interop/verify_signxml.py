"""Asks signxml's XAdESVerifier about sealed files.

usage: verify_signxml.py CERTIFICATE.pem < list of files, one per line
Prints a line per file: "ok", or "refused: " and why.

signxml takes the signer's certificate from us: its own path building wants a subjectAltName, which no seal has.
"""

import sys
from pathlib import Path

from lxml import etree
from signxml import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.xades import XAdESSignatureConfiguration, XAdESVerifier


def verify(path: str, certificate: str) -> str:
    config = XAdESSignatureConfiguration(
        require_x509=True,
        expect_references=2,
        location=".//",
        signature_methods=frozenset(SignatureMethod),
        digest_algorithms=frozenset(DigestAlgorithm),
    )
    try:
        results = XAdESVerifier().verify(
            Path(path).read_bytes(), x509_cert=certificate, expect_config=config, id_attribute="Id"
        )
    # What is malformed only after a byte was changed fails in many ways (ValueError, lxml's own errors): all are a no.
    except (SignXMLException, etree.LxmlError, ValueError, TypeError, KeyError) as error:
        return f"refused: {type(error).__name__}: {' '.join(str(error).split())}"
    if not any(getattr(result, "signed_properties", None) is not None for result in results):
        return "refused: no XAdES properties"
    return "ok"


def main() -> None:
    certificate = Path(sys.argv[1]).read_text(encoding="ascii")
    for line in sys.stdin:
        print(verify(line.rstrip("\n"), certificate), flush=True)


if __name__ == "__main__":
    main()
