"""When the verifier's own certificates end."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.keys.ak_ca import AkCa
from verifier.keys.tls import TlsFiles, read_certificate
from verifier.ports_trust import Ending, EndingKind

_HOLDER: Final = "verifier"
_LONG: Final = (90, 30, 7)
_RENEWED: Final = (7,)
"""What is renewed by itself, or lives 90 days, is news only when that failed."""
_SHORT_LIFE_DAYS: Final = 200


def own_endings(tls: TlsFiles, ak_ca: AkCa) -> tuple[Ending, ...]:
    """The server's certificate, the CA that agents pin, the CAs of AK certificates.

    Raises:
        VerifierFault: a certificate file cannot be read.
    """
    server = read_certificate(tls.certificate)
    life = server.not_valid_after_utc - server.not_valid_before_utc
    found = [_ending(EndingKind.TLS, server, _RENEWED if life.days < _SHORT_LIFE_DAYS else _LONG)]
    if tls.ca is not None:
        found.append(_ending(EndingKind.TLS_CA, read_certificate(tls.ca), _LONG))
    issuing, *_, root = map(x509.load_der_x509_certificate, ak_ca.authorities())
    found += [_ending(EndingKind.AK_CA, issuing, _RENEWED), _ending(EndingKind.AK_CA, root, _LONG)]
    return tuple(found)


def _ending(kind: EndingKind, certificate: x509.Certificate, thresholds: tuple[int, ...]) -> Ending:
    return Ending(
        kind=kind,
        holder=_HOLDER,
        sha256=certificate.fingerprint(SHA256()).hex(),
        subject=certificate.subject.rfc4514_string(),
        ends_at=certificate.not_valid_after_utc,
        thresholds=thresholds,
    )
