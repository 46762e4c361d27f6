"""HTTPS to the verifier by the standard library: one kept-alive connection, one trusted CA, bounded replies.

The server is authenticated by exactly one CA (from the join token's fingerprint or a file), never by the system's
store: a guest must not hand its evidence to whoever owns a certificate from some public CA.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from agent.errors import (
    AgentError,
    ConfigError,
    PinMismatchError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    UntrustedError,
)
from agent.wire.codec import JSON, MSGPACK, WireError, decode, encode
from agent.wire.messages import Problem

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
MAX_REPLY: Final = 4 * 1024 * 1024
MAX_CA: Final = 64 * 1024
CA_PATH: Final = "/v1/ca"
_DEFAULT_PORT: Final = 443
_PROBLEM_TYPES: Final = ("application/problem+json", JSON)
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM_END: Final = "-----END CERTIFICATE-----"

T = TypeVar("T")


class Server(Struct, frozen=True):
    """Where the verifier is."""

    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Server:
        """Of `https://host[:port][/prefix]`; nothing but HTTPS is accepted."""
        remedy = "write it as https://HOST[:PORT]"
        try:
            parts = urlsplit(url)
            port = parts.port or _DEFAULT_PORT
        except ValueError as error:
            raise ConfigError(f"server {url!r} is not a URL: {error}", remedy) from error
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ConfigError(f"server {url!r} is not an https:// address", remedy)
        return cls(parts.hostname, port, parts.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{self.prefix}"


def fingerprint(pem: str) -> bytes:
    """SHA-256 of a PEM certificate's DER."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()


def certificates_of(text: str) -> list[str]:
    """The PEM certificates in `text`."""
    pieces = text.split(_PEM_BEGIN)[1:]
    return [f"{_PEM_BEGIN}{piece.split(_PEM_END)[0]}{_PEM_END}\n" for piece in pieces if _PEM_END in piece]


def fetch_pinned_ca(server: Server, pin: bytes, timeout: float = CONNECT_SECONDS) -> str:
    """The verifier's CA certificate as PEM, accepted only if its SHA-256 is `pin`.

    The connection is not verified and carries no secret: what comes back is public, and only a certificate with the
    fingerprint from the join token is kept. From then on that CA verifies every connection.

    Raises:
        PinMismatchError: the server shows another CA. UnreachableError, ProtocolError: as they say.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Transport(server, context, connect=timeout, answer=timeout) as transport:
        text = transport.get_text(CA_PATH, MAX_CA)
    offered = certificates_of(text)
    match: str | None = None
    shown: list[str] = []
    for pem in offered:
        try:
            found = fingerprint(pem)
        except ValueError:
            continue
        shown.append(found.hex())
        if hmac.compare_digest(found, pin):
            match = pem
    if match is None:
        raise PinMismatchError(
            f"{server} shows {'CA ' + ', '.join(shown) if shown else 'no CA'}; the join token names CA {pin.hex()}",
            "use a join token made by this very verifier; if it is, someone is between this guest and the verifier",
        )
    return match


def trusting(ca_pem: str) -> ssl.SSLContext:
    """A TLS context that believes this CA only, and checks host names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"the CA certificate cannot be used: {error}", "give a PEM file with --ca-file"
        ) from error
    return context


class Transport:
    """Requests to one verifier over one connection, opened when first needed and again when it was closed."""

    def __init__(
        self,
        server: Server,
        context: ssl.SSLContext,
        *,
        connect: float = CONNECT_SECONDS,
        answer: float = ANSWER_SECONDS,
    ) -> None:
        self.server = server
        self._context = context
        self._connect = connect
        self._answer = answer
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Transport:  # noqa: PYI034 - not meant to be subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def post(self, path: str, message: object, reply: type[T], media_type: str = JSON) -> T:
        """Send `message`, return the reply.

        Raises:
            RefusedError: the verifier explained why not. UnreachableError: no usable answer; try again later.
            UntrustedError: not the verifier this agent trusts. ProtocolError: an answer that is not a `reply`.
        """
        headers = {"Content-Type": media_type, "Accept": f"{media_type}, application/problem+json"}
        status, answer_headers, body = self._request(
            "POST", path, encode(message, media_type), headers, MAX_REPLY
        )
        content_type = answer_headers.get("content-type", "").partition(";")[0].strip().lower()
        if status >= 400:  # noqa: PLR2004 - HTTP
            raise self._refusal(status, content_type, answer_headers, body)
        if content_type not in {JSON, MSGPACK}:
            raise self._not_a_verifier(f"HTTP {status} with content type {content_type or 'none'!r}")
        try:
            return decode(body, reply, content_type)
        except WireError as error:
            raise self._not_a_verifier(f"{reply.__name__}: {error}") from error

    def get_text(self, path: str, limit: int) -> str:
        """Fetch a small text."""
        status, _, body = self._request("GET", path, None, {}, limit)
        if status != 200:  # noqa: PLR2004 - HTTP
            raise self._not_a_verifier(f"HTTP {status} for {path}")
        return body.decode("ascii", "replace")

    # --- one exchange

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], limit: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One exchange. A kept-alive connection the server has closed meanwhile is replaced, once."""
        reused = self._connection is not None
        try:
            return self._exchange(method, path, body, headers, limit)
        except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError, ssl.SSLEOFError) as error:
            self.close()
            if not reused:
                raise self._translate(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._translate(error) from error
        try:
            return self._exchange(method, path, body, headers, limit)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._translate(error) from error

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], limit: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self._connection
        if connection is None:
            connection = http.client.HTTPSConnection(
                self.server.host, self.server.port, timeout=self._connect, context=self._context
            )
            connection.connect()
            connection.sock.settimeout(self._answer)
            self._connection = connection
        connection.request(method, self.server.prefix + path, body, dict(headers))
        response = connection.getresponse()
        content = response.read(limit + 1)
        if len(content) > limit:
            self.close()
            raise self._not_a_verifier(f"a reply of more than {limit} bytes")
        if response.will_close:
            self.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content

    # --- what went wrong, in words

    def _refusal(self, status: int, content_type: str, headers: Mapping[str, str], body: bytes) -> AgentError:
        wait = _seconds(headers.get("retry-after"))
        if content_type in _PROBLEM_TYPES:
            try:
                return RefusedError(decode(body, Problem), wait)
            except WireError:
                pass  # some proxy's own JSON
        error = UnreachableError(
            f"{self.server} answered HTTP {status} without an explanation",
            "a proxy or another service may be answering there; check the address and the verifier's log",
        )
        error.retry_after = wait
        return error

    def _not_a_verifier(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self.server} answered with something else than this agent expects: {what}",
            "check that the address is a vtpm-attest verifier of a version that fits this agent",
        )

    def _translate(self, error: Exception) -> AgentError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return UntrustedError(
                f"{self.server} is not trusted: {error.verify_message}",
                "the CA this agent trusts did not sign that server's certificate, or it names another host, or this "
                "machine's clock is wrong: compare `attest-agent status` with the verifier's CA fingerprint, use "
                "the host name in the certificate, check the time",
            )
        if isinstance(error, socket.gaierror):
            why = f"its name cannot be resolved ({error.strerror})"
        elif isinstance(error, TimeoutError):
            why = "no answer in time"
        elif isinstance(error, ConnectionRefusedError):
            why = "connection refused: nothing listens on that port"
        elif isinstance(error, OSError):
            why = error.strerror or str(error)
        else:
            why = f"broken answer ({type(error).__name__})"
        return UnreachableError(
            f"verifier {self.server} is unreachable: {why}",
            "check the address, the network and firewall of this guest, and that the verifier runs",
        )


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds; the date form is not used by the verifier and is ignored."""
    return float(value) if value is not None and value.isascii() and value.isdigit() else None
