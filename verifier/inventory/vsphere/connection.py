"""One HTTPS connection pool to a vCenter: verified TLS, time-outs, and faults in our own words."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
import weakref
from http.client import HTTPException, HTTPSConnection
from typing import Any, Final
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

from verifier.inventory.errors import (
    VcenterError,
    VcenterLoginError,
    VcenterProtocolError,
    VcenterSessionError,
    VcenterTimeoutError,
    VcenterUnreachableError,
    VcenterUntrustedError,
)
from verifier.inventory.settings import VcenterSettings

API_VERSION: Final = "vim.version.version12"
"""vSphere 6.7, the first with vTPMs. A later server answers a client of this version with the types of it, so an
upgrade of a vCenter cannot send anything that is unknown here."""

_GONE: Final = (
    vim.fault.NotAuthenticated,
    vmodl.fault.ManagedObjectNotFound,
    vmodl.query.InvalidCollectorVersion,
    vmodl.fault.RequestCanceled,
)


def tls_context(settings: VcenterSettings) -> ssl.SSLContext:
    """TLS that verifies chain and host name, or exactly one certificate; there is no other kind here.

    Where the operator names the CAs, exactly those are trusted, a subordinate one included: a VMCA below a
    corporate root can be named by itself. Where a certificate is pinned, chain, host name and dates say nothing
    that the pin does not: `_PinnedConnection` compares it before a byte is sent.

    Raises:
        VcenterUntrustedError: the CA file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VcenterUntrustedError(settings.name, f"CA file {settings.ca_file}: {reason}") from None
    if settings.thumbprint is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.ca_file is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class _PinnedConnection(HTTPSConnection):
    """Talks to the holder of one certificate."""

    def __init__(self, thumbprint: bytes, **arguments: Any) -> None:  # noqa: ANN401 - whatever pyVmomi passes on
        super().__init__(**arguments)
        self._thumbprint = thumbprint

    def connect(self) -> None:
        """Connect, and hang up on whoever shows another certificate."""
        super().connect()
        shown = self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None
        digest = hashlib.sha256(shown or b"").digest()
        if not hmac.compare_digest(digest, self._thumbprint):
            self.close()
            raise OtherCertificateError(digest)


class OtherCertificateError(OSError):
    """Not the pinned certificate."""

    def __init__(self, shown: bytes) -> None:
        super().__init__(f"its certificate is another one than the pinned: SHA-256 {shown.hex()}")


class Transport:
    """pyVmomi's stub with sockets that can be cut from outside.

    pyVmomi's own `connect` functions are not used: they leave certificates of `localhost` unchecked, and with a
    thumbprint they turn verification off.
    """

    def __init__(self, settings: VcenterSettings, context: ssl.SSLContext) -> None:
        self._connections: weakref.WeakSet[HTTPSConnection] = weakref.WeakSet()
        self._closed = False
        self._thumbprint = settings.thumbprint
        # The longest silence on a socket is that of a request for changes that vCenter holds.
        silence = settings.timeout + settings.wait
        self.stub: Any = SoapStubAdapter(
            host=settings.host,
            port=settings.port,
            path="/sdk",
            version=API_VERSION,
            sslContext=context,
            httpConnectionTimeout=silence.total_seconds(),
        )
        self.stub.scheme = self._connection

    def _connection(self, **arguments: Any) -> HTTPSConnection:  # noqa: ANN401 - whatever pyVmomi passes on
        if self._closed:
            raise ConnectionAbortedError("closed")
        connection = (
            HTTPSConnection(**arguments)
            if self._thumbprint is None
            else _PinnedConnection(self._thumbprint, **arguments)
        )
        self._connections.add(connection)
        return connection

    def abort(self) -> None:
        """Cut every connection, so that a thread waiting on one wakes up with an error."""
        self._closed = True
        for connection in list(self._connections):
            sock = connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the TLS object away from under the waiting thread.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def translate(name: str, error: BaseException) -> VcenterError:  # noqa: PLR0911 - one line a kind
    """A failure of pyVmomi, of TLS or of the network as one of ours. The text holds no credential."""
    if isinstance(error, VcenterError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return VcenterUntrustedError(name, f"its certificate is not trusted: {error.verify_message}")
    if isinstance(error, OtherCertificateError):
        return VcenterUntrustedError(name, str(error))
    if isinstance(error, TimeoutError):
        return VcenterTimeoutError(name, "it did not answer in time")
    if isinstance(error, (OSError, HTTPException)):
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return VcenterUnreachableError(name, f"no connection: {text}")
    if isinstance(error, vim.fault.InvalidLogin):
        return VcenterLoginError(name, "it refuses the user name or the password")
    if isinstance(error, _GONE):
        return VcenterSessionError(name, f"the session is gone ({type(error).__name__.rpartition('.')[2]})")
    if isinstance(error, vmodl.MethodFault):
        kind = type(error).__name__.rpartition(".")[2]
        return VcenterProtocolError(name, f"it answers with the fault {kind}: {str(error.msg or '')[:200]}")
    if isinstance(error, ExpatError):
        return VcenterProtocolError(name, f"its answer is not XML: {error}")
    return VcenterProtocolError(name, f"its answer does not fit the API ({type(error).__name__})")
