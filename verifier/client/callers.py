"""Who is calling: how a server may soundly learn which attester is at the other end, and what each way proves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Protocol
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from verifier.client.client import AttestationClient
from verifier.client.errors import EarError
from verifier.client.requirement import Denied, Refusal
from verifier.client.results import Standing

EAR_HEADER: Final = "attestation-result"
UNIX: Final = "unix"
"""As a proxy's address: whoever may connect to the Unix socket."""
UNREADABLE: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_XFCC_CERT: Final = re.compile(r'(?:^|;)Cert="([^",;]+)"', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A request, as far as it says who sends it.

    Attributes:
        headers: name in lower case, and value, as often as they were sent.
        peer: address of the connection's other end; `unix` for a Unix socket; None where it is not known.
        certificate: DER of the TLS client certificate, only if the server verified its chain; its key was then proven.
    """

    headers: Sequence[tuple[str, str]]
    peer: str | None
    certificate: bytes | None

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value.strip() for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Whom one source takes the caller for."""

    attester_id: str
    source: str
    standing: Standing | None = None
    """What it says itself, as an EAR does."""


class Source(Protocol):
    """A way to learn who is calling."""

    async def identify(self, caller: Caller) -> Identified | Denied | None:
        """Who it is, why that is not believed, or None where the request has nothing of this kind."""


class PresentedEar:
    """An EAR in the `Attestation-Result` header, or as `Authorization: Bearer` if told so.

    Proves that the verifier said this of that attester, for this audience, not long ago. Does **not** prove that the caller
    is that attester: whoever holds the token may present it. Add `ClientCertificate` to bind it to a key.
    """

    def __init__(self, client: AttestationClient, audience: str, *, bearer: bool = False) -> None:
        if not audience:
            raise ValueError(
                "name this relying party's audience; without one, EARs for others would be accepted"
            )
        self._client = client
        self._audience = audience
        self._bearer = bearer

    async def identify(self, caller: Caller) -> Identified | Denied | None:
        """See `Source`."""
        tokens = caller.values(EAR_HEADER)
        if self._bearer:
            for value in caller.values("authorization"):
                scheme, _, token = value.partition(" ")
                tokens += [token.strip()] if scheme.lower() == "bearer" else []
        if not tokens:
            return None
        if len(tokens) > 1:
            return ambiguous("more than one attestation result came with the request")
        try:
            ear = await self._client.verify_ear(tokens[0], audience=self._audience)
        except EarError as error:
            return Denied(refusal=Refusal.INVALID, detail=error.detail, remedy=error.remedy, cause=error.code)
        standing = ear.standing
        return Identified(attester_id=standing.attester_id, source="ear", standing=standing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Which attester a verified TLS client certificate names.

    Attributes:
        issuer: the verifier's `public_url`: a URI in the subject alternative name, `<issuer>/v1/attesters/<id>`, names one.
        pins: SHA-256 of the certificate (hex) to attester id, for certificates that say nothing; a pin goes first.
    """

    issuer: str
    pins: Mapping[str, str] = field(default_factory=dict)

    def attester(self, certificate: bytes) -> str | None:
        """The id; None where it names no attester, or several.

        Raises:
            ValueError, or cryptography's own errors: it cannot be read.
        """
        pinned = self.pins.get(hashlib.sha256(certificate).hexdigest())
        if pinned is not None:
            return pinned
        prefix = f"{self.issuer.rstrip('/')}/v1/attesters/"
        parsed = x509.load_der_x509_certificate(certificate)
        try:
            names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        ids = {uri.removeprefix(prefix) for uri in uris if uri.startswith(prefix)}
        return next(iter(ids)) if len(ids) == 1 and all(_ID.match(found) for found in ids) else None


class ClientCertificate:
    """The TLS client certificate of the connection, verified by the server's TLS against a CA that names attesters.

    Proves that the caller holds the certificate's key, and that your CA says the key belongs to that attester. That it lies in the
    attester's TPM is proven only if the CA made sure. An AK certificate cannot be used: an AK signs no TLS handshake.
    """

    def __init__(self, naming: Naming) -> None:
        self._naming = naming

    async def identify(self, caller: Caller) -> Identified | Denied | None:
        """See `Source`."""
        return None if caller.certificate is None else named(self._naming, caller.certificate)


class Proxies:
    """Addresses from which a proxy's word counts.

    Args:
        addresses: networks (`10.0.0.0/24`, `127.0.0.1`), or `unix` for whoever may connect to the Unix socket.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._unix = UNIX in addresses
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(address) for address in addresses if address != UNIX
        )

    def trusts(self, peer: str | None) -> bool:
        """Whether the connection's other end is one of them."""
        if peer is None or peer == UNIX:
            return self._unix and peer == UNIX
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


class ProxyHeader:
    """The attester's id in a header that a proxy sets, which has authenticated the caller; from a proxy's address alone.

    Proves no more than that the proxy says so. The proxy must drop what callers send under this name; from another address the
    header is refused, not ignored, so that a hole in front does not stay unseen.
    """

    def __init__(self, proxies: Proxies, header: str = "x-attester-id") -> None:
        self._proxies = proxies
        self._header = header.lower()

    async def identify(self, caller: Caller) -> Identified | Denied | None:
        """See `Source`."""
        values = caller.values(self._header)
        if not values:
            return None
        if not self._proxies.trusts(caller.peer):
            return untrusted(self._header)
        if len(values) > 1:
            return ambiguous(f"{self._header} came more than once")
        if not _ID.match(values[0]):
            return Denied(
                refusal=Refusal.INVALID,
                detail=f"{self._header} is no attester id",
                remedy="Mend the proxy's settings.",
            )
        return Identified(attester_id=values[0], source="proxy")


class ForwardedCertificate:
    """The client certificate that a proxy verified and passes on, from a proxy's address alone.

    nginx: `X-Client-Cert $ssl_client_escaped_cert` and `X-Client-Verify $ssl_client_verify`. Envoy: the `Cert` of
    `X-Forwarded-Client-Cert` (`SANITIZE_SET`, so that it is the only element). Proves what `ClientCertificate` does, by the proxy's word.
    """

    def __init__(self, proxies: Proxies, naming: Naming) -> None:
        self._proxies = proxies
        self._naming = naming

    async def identify(self, caller: Caller) -> Identified | Denied | None:
        """See `Source`."""
        ours = [value for value in caller.values("x-client-cert") if value]
        theirs = [value for value in caller.values("x-forwarded-client-cert") if value]
        if not ours and not theirs:
            return None
        if not self._proxies.trusts(caller.peer):
            return untrusted("a forwarded client certificate")
        if len(ours) + len(theirs) > 1:
            return ambiguous("more than one client certificate was forwarded")
        if ours and caller.values("x-client-verify") != ["SUCCESS"]:
            return Denied(
                refusal=Refusal.INVALID,
                detail="the proxy did not verify the client certificate",
                remedy="Set ssl_client_certificate and ssl_verify_client, and pass X-Client-Verify $ssl_client_verify.",
            )
        return self._named(ours or _XFCC_CERT.findall(theirs[0]))

    def _named(self, found: Sequence[str]) -> Identified | Denied:
        if len(found) != 1:
            return ambiguous("X-Forwarded-Client-Cert has not one Cert")
        try:
            certificate = x509.load_pem_x509_certificate(unquote(found[0]).encode())
        except UNREADABLE:
            return _unreadable()
        return named(self._naming, certificate.public_bytes(Encoding.DER))


def named(naming: Naming, certificate: bytes) -> Identified | Denied:
    """Whom a verified certificate names."""
    try:
        attester_id = naming.attester(certificate)
    except UNREADABLE:
        return _unreadable()
    if attester_id is None:
        return Denied(
            refusal=Refusal.INVALID,
            detail="the client certificate names no attester of this verifier",
            remedy=f"Use one whose subject alternative name has the URI {naming.issuer}/v1/attesters/<id>.",
        )
    return Identified(attester_id=attester_id, source="certificate")


def ambiguous(detail: str) -> Denied:
    """Two answers to who is calling are none."""
    return Denied(
        refusal=Refusal.AMBIGUOUS, detail=detail, remedy="Say once, and in one way, who is calling."
    )


def untrusted(what: str) -> Denied:
    """Somebody says what only a proxy may say."""
    return Denied(
        refusal=Refusal.INVALID,
        detail=f"{what} came from an address that is no trusted proxy",
        remedy="Send the request through the proxy; if this was the proxy, name its address among the trusted ones.",
    )


def _unreadable() -> Denied:
    return Denied(
        refusal=Refusal.INVALID,
        detail="the client certificate cannot be read",
        remedy="Send an X.509 certificate as the server or proxy expects it.",
    )
