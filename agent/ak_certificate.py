"""The AK certificate that the verifier issues, kept in a file for whoever in this machine shows quotes to others."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path


class AkCertificateFile:
    """A PEM file with the certificate first and what is above it behind, replaced whole when it is renewed.

    A file that cannot be written is a remark: attesting goes on without it.
    """

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._kept: bytes | None = None

    @property
    def wanted(self) -> bool:
        """Whether the verifier is asked for one."""
        return self._path is not None

    def keep(self, certificate: bytes | None, chain: Sequence[bytes]) -> None:
        """Write it down; where none was issued, what lies there stays until it expires."""
        if self._path is None or certificate is None or certificate == self._kept:
            return
        content = "".join(ssl.DER_cert_to_PEM_cert(one) for one in (certificate, *chain))
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(content, encoding="ascii")
            temporary.replace(self._path)
        except OSError as error:
            self._say(f"the AK certificate cannot be kept at {self._path}: {error.strerror}")
            return
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._kept = certificate
