"""Who a TLS client certificate is for. The handshake has proven that its issuer is trusted and its key is the client's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.refusals import REFUSALS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Its subject alternative names as `dns:`, `uri:` and `email:`, when it ends, and SHA-256 over its DER."""

    names: frozenset[str]
    not_after: datetime
    fingerprint: str


def read_client_certificate(der: bytes) -> ClientCertificate:
    """Names as RFC 5280, section 4.2.1.6 has them; the subject's common name says nothing.

    Raises:
        RefusedError: it cannot be read.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except REFUSALS as error:  # OpenSSL, which verified it, is less strict
        raise RefusedError(Reason.UNAUTHENTICATED, "the client certificate cannot be read") from error
    return ClientCertificate(
        names=frozenset(
            {f"dns:{name.lower()}" for name in names.get_values_for_type(x509.DNSName)}
            | {f"uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier)}
            | {f"email:{name}" for name in names.get_values_for_type(x509.RFC822Name)}
        ),
        not_after=certificate.not_valid_after_utc,
        fingerprint=hashlib.sha256(der).hexdigest(),
    )
