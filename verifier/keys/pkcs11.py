"""A signing key that never leaves its token: PKCS#11 (RFC 7512 names it), through python-pkcs11."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from verifier.errors import VerifierFault
from verifier.keys.jose import SigningKey, p256

if TYPE_CHECKING:
    from pkcs11 import PrivateKey

SCHEME: Final = "pkcs11"
_KNOWN: Final = frozenset(
    {"token", "serial", "object", "id", "type", "module-path", "pin-source", "pin-value"}
)


def parse_uri(uri: str) -> dict[str, str]:
    """Attributes of a PKCS#11 URI, path and query alike; `id` in hex (RFC 7512, section 2.3).

    Raises:
        VerifierFault: no such URI, an attribute this build does not know or one given twice, or none that names the
            module, the token and the key.
    """
    parts = urlsplit(uri)
    if parts.scheme != SCHEME:
        raise VerifierFault("ear.key is neither a file nor a pkcs11: URI")
    found: dict[str, str] = {}
    for pair in [*parts.path.split(";"), *parts.query.split("&")]:
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if name not in _KNOWN or name in found:
            raise VerifierFault(f"ear.key: attribute {name!r} of the pkcs11: URI is unknown or given twice")
        # A key's id is bytes; whatever else is named is text (RFC 7512, section 2.3).
        found[name] = unquote_to_bytes(value).hex() if name == "id" else unquote(value)
    for wanted in ({"module-path"}, {"token", "serial"}, {"object", "id"}):
        if wanted.isdisjoint(found):
            raise VerifierFault(f"ear.key: the pkcs11: URI needs {' or '.join(sorted(wanted))}")
    if {"pin-source", "pin-value"} <= found.keys():
        raise VerifierFault("ear.key: the pkcs11: URI has both pin-source and pin-value")
    return found


def open_key(uri: str) -> SigningKey:
    """Log in and find the key; the session is kept.

    Raises:
        VerifierFault: module, token, PIN or key are not what the URI says; the PIN is never in the text.
    """
    attributes = parse_uri(uri)
    try:
        import pkcs11  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise VerifierFault("ear.key is a pkcs11: URI; install vtpm-attest[pkcs11]") from error
    try:
        private, public = _find(pkcs11, attributes)
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        raise VerifierFault(
            f"ear.key: the PKCS#11 token refuses ({name}); check token, object and PIN"
        ) from None
    lock = Lock()

    def sign(message: bytes) -> bytes:
        digest = hashlib.sha256(message).digest()
        try:
            with lock:  # a PKCS#11 session is for one thread at a time
                return bytes(private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
        except pkcs11.PKCS11Error as error:
            raise VerifierFault(f"the PKCS#11 token does not sign: {type(error).__name__}") from error

    return SigningKey(public, sign)


def _find(pkcs11: Any, attributes: Mapping[str, str]) -> tuple[PrivateKey, ec.EllipticCurvePublicKey]:  # noqa: ANN401 - a module
    serial, identifier = attributes.get("serial"), attributes.get("id")
    token = pkcs11.lib(attributes["module-path"]).get_token(
        token_label=attributes.get("token"), token_serial=None if serial is None else serial.encode()
    )
    session = _session(pkcs11, token, _pin(attributes))
    named = {
        "label": attributes.get("object"),
        "id": None if identifier is None else bytes.fromhex(identifier),
        "key_type": pkcs11.KeyType.EC,
    }
    private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **named)
    public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **named)
    return private, _public_key(bytes(public[pkcs11.Attribute.EC_POINT]))


def _session(pkcs11: Any, token: Any, pin: str | None) -> Any:  # noqa: ANN401 - a module, and its objects
    try:
        return token.open(user_pin=pin)
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        return token.open()  # a login is the process's, not the session's (PKCS#11 v3.0, section 5.6.8)


def _public_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """CKA_EC_POINT is the point in an OCTET STRING; some tokens leave that out (PKCS#11 v3.0, section 6.3.3)."""
    raw = point[2:] if point[:2] == bytes((0x04, len(point) - 2)) else point
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError as error:
        raise VerifierFault("ear.key: the token's key is not a P-256 key") from error
    return p256(key, "ear.key")


def _pin(attributes: Mapping[str, str]) -> str | None:
    source = attributes.get("pin-source")
    if source is None:
        return attributes.get("pin-value")
    path = Path(source.removeprefix("file:"))
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise VerifierFault(f"ear.key: pin-source {path} cannot be read: {error.strerror}") from error
