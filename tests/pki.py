"""Certificates written byte by byte, so that a test can put anything into one and still sign it.

The DER writer is this file's own and shares nothing with the readers under test.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.simulator.keys import private_key

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2034, 1, 1, tzinfo=UTC)

EK_PURPOSE = "2.23.133.8.1"
AK_PURPOSE = "2.23.133.8.3"
BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE = "2.5.29.19", "2.5.29.15", "2.5.29.37"
SUBJECT_KEY_ID, AUTHORITY_KEY_ID, SUBJECT_ALT_NAME = "2.5.29.14", "2.5.29.35", "2.5.29.17"
MANUFACTURER, MODEL, VERSION = "2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"

DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KEY_AGREEMENT, CERT_SIGN, CRL_SIGN = 0, 2, 4, 5, 6


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def seq(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    out = b""
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return tlv(0x06, out)


def utf8(text: str) -> bytes:
    return tlv(0x0C, text.encode())


def printable(text: str) -> bytes:
    return tlv(0x13, text.encode())


def rdn(*attributes: tuple[str, bytes]) -> bytes:
    return tlv(0x31, *(seq(oid(kind), value) for kind, value in attributes))


def name(*pairs: tuple[str, str]) -> bytes:
    """One attribute per RDN, as UTF8String."""
    return seq(*(rdn((kind, utf8(text))) for kind, text in pairs))


def common_name(text: str) -> bytes:
    return name(("2.5.4.3", text))


def time(value: datetime) -> bytes:
    if value.year < 2050:
        return tlv(0x17, value.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, value.strftime("%Y%m%d%H%M%SZ").encode())


def bits(*positions: int) -> bytes:
    top = max(positions)
    raw = bytearray(top // 8 + 1)
    for position in positions:
        raw[position // 8] |= 0x80 >> position % 8
    return tlv(0x03, bytes([7 - top % 8]), bytes(raw))


def extension(kind: str, value: bytes, *, critical: bool = False, flag: bytes | None = None) -> bytes:
    marks = flag if flag is not None else tlv(0x01, b"\xff") if critical else b""
    return seq(oid(kind), marks, tlv(0x04, value))


def basic_constraints(*, ca: bool, path_length: int | None = None, critical: bool = True) -> bytes:
    parts = (tlv(0x01, b"\xff"),) if ca else ()
    parts += (integer(path_length),) if path_length is not None else ()
    return extension(BASIC_CONSTRAINTS, seq(*parts), critical=critical)


def key_usage(*positions: int) -> bytes:
    return extension(KEY_USAGE, bits(*positions), critical=True)


def extended_key_usage(*purposes: str) -> bytes:
    return extension(EXTENDED_KEY_USAGE, seq(*(oid(purpose) for purpose in purposes)))


def key_id(public) -> bytes:
    return hashlib.sha1(spki_of(public)).digest()


def subject_key_id(identifier: bytes) -> bytes:
    return extension(SUBJECT_KEY_ID, tlv(0x04, identifier))


def authority_key_id(identifier: bytes) -> bytes:
    return extension(AUTHORITY_KEY_ID, seq(tlv(0x80, identifier)))


def directory_san(directory: bytes, *, critical: bool = False) -> bytes:
    return extension(SUBJECT_ALT_NAME, seq(tlv(0xA4, directory)), critical=critical)


def tpm_name(manufacturer="id:564D5700", model="VMware TPM2", version="id:00020065") -> bytes:
    return name((MANUFACTURER, manufacturer), (MODEL, model), (VERSION, version))


def spki_of(public) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def oaep_spki(public: rsa.RSAPublicKey) -> bytes:
    """The same RSA key, marked RSAES-OAEP as early Infineon and STMicroelectronics TPMs do."""
    numbers = public.public_numbers()
    key = seq(integer(numbers.n), integer(numbers.e))
    return seq(seq(oid("1.2.840.113549.1.1.7"), seq()), tlv(0x03, b"\x00", key))


def compressed_spki(public: ec.EllipticCurvePublicKey) -> bytes:
    """The same P-256 key, with one coordinate and a sign."""
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")), tlv(0x03, b"\x00", point))


@dataclass(frozen=True)
class Algorithm:
    """How to sign: AlgorithmIdentifier and the hash; RSA or ECDSA by the key."""

    identifier: bytes
    hash: hashes.HashAlgorithm
    pss_salt: int | None = None


def _pss(label: str, digest: hashes.HashAlgorithm) -> Algorithm:
    hash_oid = {"sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2"}[label]
    hash_id = seq(oid(hash_oid), b"\x05\x00")
    mask = seq(oid("1.2.840.113549.1.1.8"), hash_id)
    salt = integer(digest.digest_size)
    parameters = seq(tlv(0xA0, hash_id), tlv(0xA1, mask), tlv(0xA2, salt))
    return Algorithm(seq(oid("1.2.840.113549.1.1.10"), parameters), digest, digest.digest_size)


NULL = b"\x05\x00"
ALGORITHMS = {
    "ecdsa-sha1": Algorithm(seq(oid("1.2.840.10045.4.1")), hashes.SHA1()),
    "ecdsa-sha256": Algorithm(seq(oid("1.2.840.10045.4.3.2")), hashes.SHA256()),
    "ecdsa-sha384": Algorithm(seq(oid("1.2.840.10045.4.3.3")), hashes.SHA384()),
    "ecdsa-sha256-null": Algorithm(seq(oid("1.2.840.10045.4.3.2"), NULL), hashes.SHA256()),
    "rsa-md5": Algorithm(seq(oid("1.2.840.113549.1.1.4"), NULL), hashes.MD5()),
    "rsa-sha1": Algorithm(seq(oid("1.2.840.113549.1.1.5"), NULL), hashes.SHA1()),
    "rsa-sha256": Algorithm(seq(oid("1.2.840.113549.1.1.11"), NULL), hashes.SHA256()),
    "rsa-sha384": Algorithm(seq(oid("1.2.840.113549.1.1.12"), NULL), hashes.SHA384()),
    "rsa-sha512": Algorithm(seq(oid("1.2.840.113549.1.1.13"), NULL), hashes.SHA512()),
    "rsa-pss-sha256": _pss("sha256", hashes.SHA256()),
    "rsa-pss-sha384": _pss("sha384", hashes.SHA384()),
}


def sign(key, algorithm: Algorithm, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(algorithm.hash))
    if algorithm.pss_salt is not None:
        mode = padding.PSS(padding.MGF1(algorithm.hash), algorithm.pss_salt)
        return key.sign(data, mode, algorithm.hash)
    return key.sign(data, padding.PKCS1v15(), algorithm.hash)


@dataclass(frozen=True)
class Body:
    """Everything of a TBSCertificate, as DER."""

    issuer: bytes
    subject: bytes
    spki: bytes
    extensions: tuple[bytes, ...]
    serial: int = 1
    not_before: bytes = time(START)
    not_after: bytes = time(END)
    version: bytes = tlv(0xA0, integer(2))
    inner_algorithm: bytes | None = None

    def signed_by(self, key, algorithm: Algorithm | None = None) -> bytes:
        if algorithm is None:
            is_ec = isinstance(key, ec.EllipticCurvePrivateKey)
            algorithm = ALGORITHMS["ecdsa-sha256" if is_ec else "rsa-sha256"]
        tbs = seq(
            self.version,
            integer(self.serial),
            self.inner_algorithm or algorithm.identifier,
            self.issuer,
            seq(self.not_before, self.not_after),
            self.subject,
            self.spki,
            tlv(0xA3, seq(*self.extensions)) if self.extensions else b"",
        )
        return seq(tbs, algorithm.identifier, tlv(0x03, b"\x00", sign(key, algorithm, tbs)))


@dataclass(frozen=True)
class Ca:
    """A CA key with a name and a certificate. `below` makes a subordinate, `reissued` a cross-signed twin."""

    label: str
    key: object
    subject: bytes
    der: bytes = field(repr=False)

    @classmethod
    def root(cls, label="Root", *, seed=None, kind="p256", subject=None, **changes) -> Ca:
        key = private_key(kind, f"pki {seed or label}")
        subject = subject or common_name(label)
        body = ca_body(key, subject, subject, key, **changes)
        return cls(label, key, subject, body.signed_by(key))

    def below(self, label, *, seed=None, kind="p256", subject=None, algorithm=None, **changes) -> Ca:
        key = private_key(kind, f"pki {seed or label}")
        subject = subject or common_name(label)
        body = ca_body(key, subject, self.subject, self.key, **changes)
        return Ca(label, key, subject, body.signed_by(self.key, algorithm))

    def reissued(self, issuer: Ca) -> Ca:
        """The same name and key, certified by another CA."""
        body = ca_body(self.key, self.subject, issuer.subject, issuer.key)
        return replace(self, der=body.signed_by(issuer.key))

    def issue(self, body: Body, algorithm: Algorithm | None = None) -> bytes:
        return replace(body, issuer=self.subject).signed_by(self.key, algorithm)

    def ek(self, key=None, **changes) -> bytes:
        """An EK certificate; see `ek_body` for what can be changed."""
        algorithm = changes.pop("algorithm", None)
        return self.issue(
            ek_body(key or EK_KEY.public_key(), authority=key_id(self.key.public_key()), **changes), algorithm
        )

    @property
    def key_identifier(self) -> bytes:
        return key_id(self.key.public_key())


def ca_body(
    key,
    subject,
    issuer,
    issuer_key,
    *,
    path_length=None,
    ca=True,
    usage=(CERT_SIGN, CRL_SIGN),
    extra=(),
    **changes,
) -> Body:
    extensions = (
        basic_constraints(ca=ca, path_length=path_length),
        *((key_usage(*usage),) if usage else ()),
        subject_key_id(key_id(key.public_key())),
        authority_key_id(key_id(issuer_key.public_key())),
        *extra,
    )
    body = Body(issuer=issuer, subject=subject, spki=spki_of(key.public_key()), extensions=extensions)
    return replace(body, **changes)


EK_KEY = private_key("p256", "pki ek")


def ek_body(
    key,
    *,
    authority: bytes | None = None,
    usage: tuple[int, ...] | None = None,
    purposes: tuple[str, ...] = (EK_PURPOSE,),
    directory: bytes | None = None,
    subject: bytes = seq(),
    ca: bool = False,
    extra: tuple[bytes, ...] = (),
    **changes,
) -> Body:
    if usage is None:
        usage = (KEY_ENCIPHERMENT,) if isinstance(key, rsa.RSAPublicKey) else (KEY_AGREEMENT,)
    extensions = (
        basic_constraints(ca=ca),
        *((key_usage(*usage),) if usage else ()),
        *((extended_key_usage(*purposes),) if purposes else ()),
        *(
            (directory_san(tpm_name() if directory is None else directory, critical=True),)
            if directory != b""
            else ()
        ),
        *((authority_key_id(authority),) if authority else ()),
        *extra,
    )
    body = Body(issuer=seq(), subject=subject, spki=spki_of(key), extensions=extensions, serial=77)
    return replace(body, **changes)


def crl(
    ca: Ca,
    serials: tuple[int, ...] = (),
    *,
    this_update: datetime = START,
    next_update: datetime | None = END,
    extensions: tuple[bytes, ...] = (),
    key=None,
) -> bytes:
    algorithm = ALGORITHMS["ecdsa-sha256" if isinstance(ca.key, ec.EllipticCurvePrivateKey) else "rsa-sha256"]
    revoked = seq(*(seq(integer(serial), time(this_update)) for serial in serials)) if serials else b""
    tbs = seq(
        integer(1),
        algorithm.identifier,
        ca.subject,
        time(this_update),
        time(next_update) if next_update else b"",
        revoked,
        tlv(0xA0, seq(*extensions)) if extensions else b"",
    )
    return seq(tbs, algorithm.identifier, tlv(0x03, b"\x00", sign(key or ca.key, algorithm, tbs)))


def pem(label: str, der: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()
