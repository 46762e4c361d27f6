"""When the verifier's own certificates end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.errors import VerifierFault
from verifier.keys.ak_ca import AkCa
from verifier.keys.pem import read_certificate
from verifier.keys.tls import TlsFiles
from verifier.ports_trust import Ending, EndingKind

_log: Final = structlog.get_logger("vtpm_attest.keys")
_HOLDER: Final = "verifier"
_LONG: Final = (90, 30, 7)
_RENEWED: Final = (7,)
"""What is renewed by itself, or lives 90 days, is news only when that failed."""
_SHORT_LIFE_DAYS: Final = 200


class OwnEndings:
    """The server's certificate, the CA that agents pin, the CAs of AK certificates.

    What ends does so whether or not its file can be read: then it is told, and what was known before is given.
    """

    def __init__(self, tls: TlsFiles, ak_ca: AkCa) -> None:
        self._tls = tls
        self._ak_ca = ak_ca
        self._known: dict[Path, x509.Certificate] = {}

    def __call__(self) -> tuple[Ending, ...]:
        """As they are now."""
        found = []
        if (server := self._read(self._tls.certificate)) is not None:
            life = server.not_valid_after_utc - server.not_valid_before_utc
            found.append(_ending(EndingKind.TLS, server, _RENEWED if life.days < _SHORT_LIFE_DAYS else _LONG))
        if self._tls.ca is not None and (ca := self._read(self._tls.ca)) is not None:
            found.append(_ending(EndingKind.TLS_CA, ca, _LONG))
        issuing, *_, root = map(x509.load_der_x509_certificate, self._ak_ca.authorities())
        found += [_ending(EndingKind.AK_CA, issuing, _RENEWED), _ending(EndingKind.AK_CA, root, _LONG)]
        return tuple(found)

    def _read(self, path: Path) -> x509.Certificate | None:
        try:
            self._known[path] = read_certificate(path)
        except VerifierFault as error:
            _log.error("expiry.certificate-unreadable", problem=str(error))
        return self._known.get(path)


def _ending(kind: EndingKind, certificate: x509.Certificate, thresholds: tuple[int, ...]) -> Ending:
    return Ending(
        kind=kind,
        holder=_HOLDER,
        sha256=certificate.fingerprint(SHA256()).hex(),
        subject=certificate.subject.rfc4514_string(),
        ends_at=certificate.not_valid_after_utc,
        thresholds=thresholds,
    )
