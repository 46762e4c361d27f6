"""The files of a certificate that a CA gives anew again and again: when it is time, and how they are replaced.

A listener that reads them at any moment finds a certificate and the key that fits, but for the instant between two names of files
changing; and a process that dies there leaves what `recover` makes whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from verifier.errors import VerifierFault
from verifier.keys.files import PUBLIC, write_file
from verifier.keys.pem import read_certificate


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """As the settings name them."""

    certificate: Path
    key: Path

    @property
    def _next_key(self) -> Path:
        return self.key.with_name(f"{self.key.name}.next")

    def due(self, names: Iterable[str], now: datetime) -> tuple[str, datetime | None]:
        """Why a new certificate is needed now; else empty, and from when on.

        It is at two thirds of its life, whatever that is.
        """
        if not self.certificate.exists() or not self.key.exists():
            return "there is none", None
        certificate = read_certificate(self.certificate)
        if not _fits(self.certificate, self.key):
            return "the key does not fit the certificate", None
        missing = sorted(set(names) - dns_names(certificate))
        if missing:
            return f"{', '.join(missing)} is not in it", None
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        turn = begins + (ends - begins) * 2 / 3
        return ("two thirds of its life are over" if now >= turn else ""), turn

    def put(self, chain: bytes, key: bytes) -> None:
        """Replace both. Raises `VerifierFault` where they do not fit or cannot be written."""
        write_file(self._next_key, key)
        if not _fits_pem(chain, key):
            self._next_key.unlink()
            raise VerifierFault("the CA has certified another key than it was asked to")
        write_file(self.certificate, chain, PUBLIC)
        self._next_key.replace(self.key)

    def recover(self) -> None:
        """Finish what a process that died in `put` had begun."""
        if not self._next_key.exists():
            return
        if self.certificate.exists() and _fits(self.certificate, self._next_key):
            self._next_key.replace(self.key)
        else:
            self._next_key.unlink()


def dns_names(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names that it is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(names.get_values_for_type(x509.DNSName))


def _fits(certificate: Path, key: Path) -> bool:
    return _fits_pem(certificate.read_bytes(), key.read_bytes())


def _fits_pem(certificate: bytes, key: bytes) -> bool:
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        return load_pem_private_key(key, password=None).public_key() == public
    except (ValueError, TypeError):
        return False
