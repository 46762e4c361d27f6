"""Where certificates say their issuers' certificates are (authority information access), and whether to ask there.

RFC 5280, section 4.2.2.1. Pure: what is decided here, an adapter does. What comes back is a helper for building
a path and never trusted by itself; the danger is in the asking, as whoever sends a certificate chooses the URL.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from asn1crypto import pem
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from verifier.crypto import der
from verifier.crypto.anchors import TrustAnchors
from verifier.crypto.cert_reader import parse_authority, parse_certificate
from verifier.crypto.certificate import Certificate
from verifier.crypto.nv_content import unwrap
from verifier.errors import EvidenceError
from verifier.refusals import REFUSALS

MAX_REPLY: Final = 64 * 1024
"""Bytes of an answer; an issuer's certificate has two thousand."""
MAX_URL: Final = 1024
_MAX_URLS: Final = 4
_MAX_DEPTH: Final = 8
_AUTHORITY_INFORMATION_ACCESS: Final = "1.3.6.1.5.5.7.1.1"
_CA_ISSUERS: Final = "1.3.6.1.5.5.7.48.2"
_URI: Final = 0x86
_PORTS: Final = {"http": 80, "https": 443}
_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_LOOK_AHEAD: Final = 32
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Whom to ask. No host listed: nobody.

    Attributes:
        hosts: names as `pki.example`, `*.pki.example` (any name below, not the name itself) or `pki.example:8080`.
        private: addresses that are not public may be asked too.
    """

    hosts: frozenset[str]
    private: bool = False

    def allow(self, url: str) -> bool:
        """Whether this URL may be asked at all; what its name resolves to is the adapter's to check."""
        parts = _split(url)
        if parts is None or parts.hostname is None:
            return False
        host = parts.hostname.lower()
        port = parts.port or _PORTS[parts.scheme]
        named = host if port == _PORTS[parts.scheme] else f"{host}:{port}"
        if not any(_fits(named, pattern) for pattern in self.hosts):
            return False
        literal = _address(host)
        return literal is None or self.private or is_public(literal)


def _split(url: str) -> SplitResult | None:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        return None
    # Userinfo and back slashes are read differently by different parsers.
    return None if "@" in parts.netloc or "\\" in url else parts


def _fits(host: str, pattern: str) -> bool:
    pattern = pattern.lower()
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether an address is of the public Internet, also where it holds another one inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


def issuer_urls(certificate: Certificate) -> tuple[str, ...]:
    """URLs of issuers' certificates, as written; none where the extension is absent or unreadable."""
    try:
        for extension in der.read_extensions(der.open_envelope(certificate.der).extensions):
            if extension.oid == _AUTHORITY_INFORMATION_ACCESS:
                return tuple(_read_urls(extension.value.value))[:_MAX_URLS]
    except EvidenceError:
        return ()
    return ()


def _read_urls(value: bytes) -> Iterator[str]:
    outer = der.DerCursor(value, structure="authorityInfoAccess")
    descriptions = outer.inside(outer.read(der.SEQUENCE, "authorityInfoAccess"))
    while descriptions.remaining:
        description = descriptions.inside(descriptions.read(der.SEQUENCE, "AccessDescription"))
        method = der.read_oid(description.read(der.OBJECT_IDENTIFIER, "accessMethod"), description.structure)
        location = description.read_any("accessLocation")
        if method == _CA_ISSUERS and location.tag == _URI:
            yield location.value.decode("ascii", "replace")


def missing_issuer_urls(
    certificates: Iterable[bytes], *, helpers: Sequence[bytes], anchors: TrustAnchors, rules: FetchRules
) -> tuple[str, ...]:
    """URLs worth asking: of certificates whose way up ends, by name, before any anchor.

    Args:
        certificates: DER of the certificates to be validated, padding allowed; unreadable ones are passed over.
        helpers: DER of CA certificates at hand.
        anchors: what is trusted.
        rules: whom to ask.
    """
    at_hand: dict[bytes, Certificate] = {}
    for helper in helpers:
        parsed = _parse(helper, authority=True)
        if parsed is not None:
            at_hand.setdefault(parsed.subject_key, parsed)
    wanted: dict[str, None] = {}
    for data in certificates:
        leaf = _parse(data, authority=False)
        last = None if leaf is None else _last(leaf, at_hand, anchors)
        if last is not None:
            wanted |= dict.fromkeys(url for url in issuer_urls(last) if rules.allow(url))
    return tuple(wanted)


def _last(leaf: Certificate, at_hand: dict[bytes, Certificate], anchors: TrustAnchors) -> Certificate | None:
    """The certificate whose issuer is missing; None where an anchor is reached, or nothing is above."""
    current = leaf
    for _ in range(_MAX_DEPTH):
        if anchors.named(current.issuer_key) or current.self_issued:
            return None
        above = at_hand.get(current.issuer_key)
        if above is None:
            return current
        current = above
    return None


def _parse(data: bytes, *, authority: bool) -> Certificate | None:
    try:
        trimmed = unwrap(data).der
        return parse_authority(trimmed) if authority else parse_certificate(trimmed)
    except EvidenceError:
        return None


def read_issuers(body: bytes) -> tuple[bytes, ...]:
    """DER certificates in an answer: DER, PEM or PKCS#7 (RFC 5280 allows the first and the last); else none."""
    if len(body) > MAX_REPLY:
        return ()
    try:
        if pem.detect(body):
            return tuple(
                certificate
                for label, _, block in pem.unarmor(body, multiple=True)
                for certificate in (_unpack(block) if label == "PKCS7" else (block,))
            )
        return _unpack(body)
    except (*REFUSALS, EvidenceError):
        return ()


def _unpack(body: bytes) -> tuple[bytes, ...]:
    if _SIGNED_DATA in body[:_LOOK_AHEAD]:
        return tuple(one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(body))
    return (parse_authority(unwrap(body).der).der,)
