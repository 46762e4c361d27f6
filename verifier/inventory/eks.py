"""Endorsement keys as inventories list them, to the fingerprints that a TPM's key is looked up by. Pure."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.nv_content import unwrap
from verifier.errors import MalformedInputError
from verifier.reasons import Reason
from verifier.refusals import REFUSALS


def certificate_fingerprint(der: bytes) -> bytes:
    """SHA-256 of the canonical SubjectPublicKeyInfo of the certified key, as `keys.fingerprint` of its public area.

    Padding behind the certificate, as read from a TPM's NV memory, is passed over.

    Proves nothing of the certificate but that it can be read: the inventory vouches for the key, not its issuer.

    Raises:
        MalformedInputError: it cannot.
    """
    return parse_certificate(unwrap(der).der).key_fingerprint


def request_fingerprint(der: bytes) -> bytes:
    """The same of a certificate signing request (PKCS #10): a vTPM has these before any certificate.

    Raises:
        MalformedInputError: it cannot be read, or its key is of an unknown kind.
    """
    try:
        key = x509.load_der_x509_csr(der).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except REFUSALS as error:
        raise MalformedInputError(
            "CertificationRequest", 0, str(error), reason=Reason.EK_CERTIFICATE_MALFORMED
        ) from error
    return hashlib.sha256(spki).digest()
