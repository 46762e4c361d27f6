"""Signed policies: DSSE envelopes (Dead Simple Signing Envelope, v1.0.0, protocol.md and envelope.md).

Signatures are ES256 (ECDSA over P-256 with SHA-256) or Ed25519. An ECDSA signature is written as r || s, 32 bytes
each (RFC 7518, section 3.4), and read in that form or in DER, which other DSSE tools write. The key id is the
SHA-256 of the signer's SubjectPublicKeyInfo in hex; in an envelope it is a hint nobody signed, and decides nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from verifier.errors import PolicyError
from verifier.policy.document import MAX_SOURCE
from verifier.reasons import Reason
from verifier.refusals import REFUSALS

PAYLOAD_TYPE: Final = "application/vnd.vtpm-attest.policy.v1+yaml"
MAX_SIGNATURES: Final = 16
MAX_ENVELOPE: Final = MAX_SOURCE * 4 // 3 + 64 * 1024
_COORDINATE: Final = 32
_ES256: Final = ec.ECDSA(hashes.SHA256())

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class _Signature(msgspec.Struct, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as read. Nothing of it is believed yet.

    Attributes:
        signatures: bytes with the key id beside them, which is a hint.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class PolicySigners:
    """Public keys of which one must have signed a policy. Equal by their key ids."""

    keys: Mapping[str, PublicKey] = field(compare=False, repr=False)
    ids: frozenset[str]

    @classmethod
    def of(cls, keys: Iterable[PublicKey]) -> PolicySigners:
        """Signers from keys; raises `PolicyError` for keys that are neither P-256 nor Ed25519, and for none."""
        by_id = {key_id(key): key for key in map(_checked, keys)}
        if not by_id:
            raise PolicyError("no signer is named, so no policy could ever be accepted")
        return cls(by_id, frozenset(by_id))


@dataclass(frozen=True, slots=True)
class VerifiedSource:
    """A policy's bytes, and the accepted signers whose signatures hold over them; none where none was demanded."""

    payload: bytes
    signers: tuple[str, ...] = ()


def open_policy(source: bytes, signers: PolicySigners | None) -> VerifiedSource:
    """The policy in `source`, which is YAML or an envelope around it.

    Proven on return when `signers` are given: one of them signed exactly these bytes as a policy. Not proven: that
    it is their latest one. Without signers nothing is proven, and an envelope is merely unpacked.

    Raises:
        PolicyError: the envelope is malformed, or (`policy-signature`) no accepted signature holds.
    """
    if not is_envelope(source):
        if signers is not None:
            raise _unsigned("the policy is not signed: no DSSE envelope")
        return VerifiedSource(source)
    envelope = parse_envelope(source)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise PolicyError(f"payloadType is {envelope.payload_type!r}, not {PAYLOAD_TYPE!r}", where="DSSE")
    if signers is None:
        return VerifiedSource(envelope.payload)
    return VerifiedSource(envelope.payload, verify(envelope, signers))


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed (protocol.md)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(key: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo (DER), hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign(payload: bytes, keys: Iterable[PrivateKey]) -> bytes:
    """An envelope around a policy, as JSON, with a signature by every key.

    Raises `PolicyError` for keys that are neither P-256 nor Ed25519, and for more than `MAX_SIGNATURES`.
    """
    return cosign(Envelope(payload, PAYLOAD_TYPE, ()), keys)


def cosign(envelope: Envelope, keys: Iterable[PrivateKey]) -> bytes:
    """The envelope with a further signature by every key; whether those it has hold is not looked at."""
    message = pae(envelope.payload_type, envelope.payload)
    signatures = [_Signature(_encode(signature), hint) for hint, signature in envelope.signatures]
    signatures += [
        _Signature(_encode(_sign(key, message)), key_id(_checked(key.public_key()))) for key in keys
    ]
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise PolicyError(
            f"{len(signatures)} signatures; an envelope has 1 to {MAX_SIGNATURES}", where="DSSE"
        )
    document = msgspec.json.encode(_Envelope(_encode(envelope.payload), envelope.payload_type, signatures))
    return msgspec.json.format(document, indent=2) + b"\n"


def parse_envelope(source: bytes) -> Envelope:
    """Read an envelope; raises `PolicyError` for anything that is none."""
    if len(source) > MAX_ENVELOPE:
        raise PolicyError(f"an envelope of {len(source)} bytes is larger than {MAX_ENVELOPE}", where="DSSE")
    try:
        document = msgspec.json.decode(source, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"not an envelope: {error}", where="DSSE") from error
    if not 0 < len(document.signatures) <= MAX_SIGNATURES:
        count = len(document.signatures)
        raise PolicyError(f"{count} signatures; an envelope has 1 to {MAX_SIGNATURES}", where="DSSE")
    return Envelope(
        payload=_decode(document.payload, "payload"),
        payload_type=document.payload_type,
        signatures=tuple([(each.keyid, _decode(each.sig, "sig")) for each in document.signatures]),
    )


def verify(envelope: Envelope, signers: PolicySigners) -> tuple[str, ...]:
    """Key ids of the signers whose signature holds, each once; raises `PolicyError` where there is none."""
    message = pae(envelope.payload_type, envelope.payload)
    valid = tuple(
        identifier
        for identifier, key in signers.keys.items()
        if any(_holds(key, signature, message) for _, signature in envelope.signatures)
    )
    if not valid:
        hints = ", ".join(sorted(hint[:64] for hint, _ in envelope.signatures if hint)) or "no key id"
        raise _unsigned(f"no signature holds under an accepted key; the envelope names {hints}")
    return valid


def load_public_key(pem: bytes, where: str) -> PublicKey:
    """A signer's public key; raises `PolicyError` naming `where` for anything but P-256 and Ed25519."""
    try:
        return _checked(load_pem_public_key(pem), where)
    except REFUSALS as error:
        raise PolicyError(f"not a PEM public key: {error}", where=where) from error


def load_private_key(pem: bytes, where: str) -> PrivateKey:
    """A signer's private key, unencrypted; raises `PolicyError` naming `where` likewise."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise PolicyError("the key is encrypted; decrypt it first (openssl pkey)", where=where) from None
    except REFUSALS as error:
        raise PolicyError(f"not a PEM private key: {error}", where=where) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise _wrong_key(where)
    _checked(key.public_key(), where)
    return key


def _checked(key: object, where: str = "signer") -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _wrong_key(where)


def _wrong_key(where: str) -> PolicyError:
    return PolicyError("policies are signed with P-256 or Ed25519 keys; this is another kind", where=where)


def _unsigned(detail: str) -> PolicyError:
    return PolicyError(detail, where="DSSE", reason=Reason.POLICY_SIGNATURE)


def is_envelope(source: bytes) -> bool:
    """JSON with a `payloadType`: YAML is never that, but a policy in YAML may well begin with a brace."""
    return source.lstrip()[:1] == b"{" and b'"payloadType"' in source


def _sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    r, s = decode_dss_signature(key.sign(message, _ES256))
    return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return any(_verified(key, form, message) for form in _der_forms(signature))
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _der_forms(signature: bytes) -> tuple[bytes, ...]:
    if len(signature) != 2 * _COORDINATE:
        return (signature,)
    r, s = signature[:_COORDINATE], signature[_COORDINATE:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), signature


def _verified(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message, _ES256)
    except InvalidSignature:
        return False
    return True


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str, where: str) -> bytes:
    """Standard or URL-safe base64, either of which a verifier must accept (protocol.md)."""
    try:
        standard = text.translate(_URL_SAFE).encode("ascii")
        return base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise PolicyError(f"{where} is not base64: {error}", where="DSSE") from error


_URL_SAFE: Final = str.maketrans("-_", "+/")
