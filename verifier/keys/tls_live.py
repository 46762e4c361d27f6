"""The listener's TLS while its files change: new connections get the certificate of now, and a broken one is never taken up."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from verifier.keys.tls import ClientAnchors, TlsFiles

Stamp = tuple[tuple[Path, int, int, int] | None, ...]


class LiveTls:
    """TLS of a listener that stays open.

    Attributes:
        context: for the listener, for as long as it lives. A certificate that is loaded into a context a second time leaves that of
            another kind of key beside it, and is half loaded where key and certificate do not fit. So each connection is handed to
            a context that was made anew and whole.

    Raises:
        VerifierFault: the files cannot be used.
    """

    def __init__(self, files: TlsFiles, clients: ClientAnchors | None) -> None:
        self._clients = clients
        self._seen = self._stamp(files)
        self.context: Final = files.context(clients)
        self._current = self.context
        self.context.sni_callback = self._choose

    def refresh(self, files: TlsFiles) -> bool:
        """Take the files up if they changed; connections that are open go on as they are.

        Returns:
            Whether they had.

        Raises:
            VerifierFault: they cannot be used. What was served until now is served on.
        """
        seen = self._stamp(files)
        if seen == self._seen:
            return False
        self._current = files.context(self._clients)
        self._seen = seen
        return True

    def _choose(self, connection: ssl.SSLObject, _name: str | None, context: ssl.SSLContext) -> None:
        """Asked in every handshake, also where the client names no host."""
        if self._current is not context:
            connection.context = self._current

    def _stamp(self, files: TlsFiles) -> Stamp:
        clients = () if self._clients is None else (self._clients.ca, self._clients.crl)
        return tuple(_stamp(path) for path in (files.certificate, files.key, *clients))


def _stamp(path: Path | None) -> tuple[Path, int, int, int] | None:
    """What is different once a file was written, or another put in its place."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if path is None or found is None else (path, found.st_ino, found.st_size, found.st_mtime_ns)
