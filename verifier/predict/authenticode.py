"""Signatures inside PE images: which certificate lets an image run.

Microsoft, "Windows Authenticode Portable Executable Signature Format" (2008); UEFI 2.10, section 32.5; verified as
edk2 and shim do (AuthenticodeVerify): the trusted certificate may stand anywhere in the signer's chain, and no
certificate expires.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from asn1crypto import algos, cms, core, parser
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from verifier.errors import MalformedInputError, UnsupportedError
from verifier.predict.pe import PeImage, authenticode_digest, parse_pe
from verifier.refusals import REFUSALS
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.guid import guid_bytes

STRUCTURE: Final = "WIN_CERTIFICATE"
MAX_SIGNATURES: Final = 16
MAX_CHAIN: Final = 8

_HEADER: Final = struct.Struct("<IHH")
_ALIGNMENT: Final = 8
_PKCS_SIGNED_DATA: Final = 0x0002
_EFI_GUID: Final = 0x0EF1
_PKCS7_GUID: Final = guid_bytes("4aafd29d-68df-49ee-8aa9-347d375665a7")
_CONTENTS: Final = 4
"""Place of the content octets in what `asn1crypto.parser.parse` returns."""
_SPC_INDIRECT_DATA: Final = "1.3.6.1.4.1.311.2.1.4"
_MODULE_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.4.1.2312.16.1.2")
_HASHES: Final[dict[HashAlg, hashes.HashAlgorithm]] = {
    HashAlg.SHA1: hashes.SHA1(),  # noqa: S303 - what old images are signed with; firmware decides, not we
    HashAlg.SHA256: hashes.SHA256(),
    HashAlg.SHA384: hashes.SHA384(),
    HashAlg.SHA512: hashes.SHA512(),
}


_UNREADABLE: Final = (*REFUSALS, KeyError, IndexError, OverflowError, RecursionError, NotImplementedError)
"""What the two libraries raise for certificates and signatures that they cannot read."""


class _SpcAttribute(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    _fields: ClassVar = [("type", core.ObjectIdentifier), ("value", core.Any, {"optional": True})]


class _SpcIndirectData(core.Sequence):  # type: ignore[misc] # as above
    _fields: ClassVar = [("data", _SpcAttribute), ("message_digest", algos.DigestInfo)]


@dataclass(frozen=True, slots=True)
class ImageSignature:
    """A signature that holds: its signer's key signed the digest of this very image. Trust is another question.

    Made only by `image_signatures`.

    Attributes:
        digest: the Authenticode digest, in `alg`.
        signer: the certificate that signed.
        certificates: the others that came with it, to build a path from; not trusted.
    """

    alg: HashAlg
    digest: bytes
    signer: x509.Certificate
    certificates: tuple[x509.Certificate, ...]

    def anchored_in(self, certificate: bytes) -> bool:
        """Whether the signer is this certificate, or was issued by it through the certificates that came along.

        Args:
            certificate: DER of a trusted certificate; False where it does not parse.
        """
        try:
            anchor = x509.load_der_x509_certificate(certificate)
        except _UNREADABLE:
            return False
        current = self.signer
        for _ in range(MAX_CHAIN):
            if current == anchor or _issued(anchor, current):
                return True
            parent = next((each for each in self.certificates if _issued(each, current)), None)
            if parent is None or parent == current:
                return False
            current = parent
        return False


@dataclass(frozen=True, slots=True)
class RejectedSignature:
    """A signature that firmware passes over, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class BootImage:
    """An image of a boot chain: its name for people, its content, and what its signatures say."""

    name: str
    pe: PeImage
    signatures: tuple[ImageSignature | RejectedSignature, ...]

    @property
    def valid_signatures(self) -> tuple[ImageSignature, ...]:
        """Those that hold, in the order of the image."""
        return tuple(each for each in self.signatures if isinstance(each, ImageSignature))

    def digest(self, alg: HashAlg) -> bytes:
        """Its Authenticode digest. Raises `UnsupportedError` where this build lacks `alg`."""
        return authenticode_digest(self.pe, alg)


def read_image(name: str, data: bytes) -> BootImage:
    """Parse an image and verify its signatures.

    Raises:
        MalformedInputError: not a PE image, or its attribute certificates do not parse.
    """
    image = parse_pe(data)
    return BootImage(name, image, image_signatures(image))


def image_signatures(image: PeImage) -> tuple[ImageSignature | RejectedSignature, ...]:
    """Every attribute certificate of the image, in order: verified, or with the reason why it does not hold.

    Raises:
        MalformedInputError: the attribute certificate table does not parse.
    """
    return tuple(_verify(image, der) for der in _attribute_certificates(image))


def is_module_signing_only(certificate: bytes) -> bool:
    """Whether shim passes this certificate over: its extended key usage is that of kernel modules."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        usage = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (*_UNREADABLE, x509.ExtensionNotFound):
        return False
    return _MODULE_SIGNING in usage


def subject(certificate: bytes) -> str:
    """The subject of a DER certificate for people."""
    try:
        return subject_of(x509.load_der_x509_certificate(certificate))
    except _UNREADABLE:
        return f"{len(certificate)} bytes that are not a certificate"


def subject_of(certificate: x509.Certificate) -> str:
    """The subject of a certificate for people. It is read only now, and need not be readable for a signature to hold."""
    try:
        return certificate.subject.rfc4514_string()
    except _UNREADABLE:
        return "somebody whose name cannot be read"


def _attribute_certificates(image: PeImage) -> Iterator[bytes]:
    """PKCS#7 of each entry of the attribute certificate table, as edk2 walks it; other kinds are passed over."""
    offset, size = image.certificates
    end = offset + size
    for _ in range(MAX_SIGNATURES):
        if end - offset <= _HEADER.size:
            return
        length, _, kind = _HEADER.unpack_from(image.data, offset)
        if not _HEADER.size < length <= end - offset:
            raise MalformedInputError(
                STRUCTURE, offset, f"dwLength is {length}, {end - offset} bytes are left"
            )
        content = image.data[offset + _HEADER.size : offset + length]
        if kind == _PKCS_SIGNED_DATA:
            yield content
        elif kind == _EFI_GUID and content.startswith(_PKCS7_GUID):
            yield content[len(_PKCS7_GUID) :]
        offset += length + -length % _ALIGNMENT
    raise MalformedInputError(STRUCTURE, offset, f"more than {MAX_SIGNATURES} attribute certificates")


def _verify(image: PeImage, der: bytes) -> ImageSignature | RejectedSignature:
    try:
        return _checked(image, der)
    except UnsupportedError as error:
        return RejectedSignature(error.detail)
    except InvalidSignature:
        return RejectedSignature("the signature does not verify under its signer's key")
    except _UNREADABLE as error:
        return RejectedSignature(f"not a PKCS#7 signature that can be read: {error}")


def _checked(image: PeImage, der: bytes) -> ImageSignature:
    signed = cms.ContentInfo.load(der)["content"]
    if signed["encap_content_info"]["content_type"].dotted != _SPC_INDIRECT_DATA:
        raise UnsupportedError("the signed content is not SpcIndirectDataContent")
    tagged = parser.parse(signed["encap_content_info"]["content"].dump(), strict=True)
    indirect = _SpcIndirectData.load(tagged[_CONTENTS], strict=True)
    alg = _hash(indirect["message_digest"]["digest_algorithm"]["algorithm"].native)
    digest = authenticode_digest(image, alg)
    if indirect["message_digest"]["digest"].native != digest:
        raise UnsupportedError(f"it covers another image than this, whose {alg.label} is {digest.hex()}")
    infos = signed["signer_infos"]
    if len(infos) != 1:
        raise UnsupportedError(f"{len(infos)} signers where Authenticode has one")
    certificates = _certificates(signed)
    signer = _signer(infos[0], certificates)
    _check_signature(infos[0], indirect.contents, signer)
    return ImageSignature(alg, digest, signer, tuple(each for each in certificates if each != signer))


def _certificates(signed: Any) -> list[x509.Certificate]:  # noqa: ANN401 - asn1crypto has no types
    found = signed["certificates"]
    chosen = [each.chosen for each in found] if found else []
    return [x509.load_der_x509_certificate(each.dump()) for each in chosen]


def _signer(info: Any, certificates: list[x509.Certificate]) -> x509.Certificate:  # noqa: ANN401 - as above
    if info["sid"].name != "issuer_and_serial_number":
        raise UnsupportedError("the signer is not named by issuer and serial number")
    named = info["sid"].chosen
    issuer, serial = named["issuer"].dump(), named["serial_number"].native
    for each in certificates:
        if each.serial_number == serial and each.issuer.public_bytes() == issuer:
            return each
    raise UnsupportedError("the signer's certificate is not in the signature")


def _check_signature(info: Any, content: bytes, signer: x509.Certificate) -> None:  # noqa: ANN401 - as above
    """PKCS#7 (RFC 2315, section 9): the attributes hold the content's digest, the key signed the attributes."""
    alg = _hash(info["digest_algorithm"]["algorithm"].native)
    attributes = info["signed_attrs"]
    if not len(attributes):
        raise UnsupportedError("nothing is signed but the content")
    stated = [each["values"][0].native for each in attributes if each["type"].native == "message_digest"]
    if stated != [alg.digest(content)]:
        raise UnsupportedError("its messageDigest is not that of the signed content")
    key = signer.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise UnsupportedError("the signer's key is not RSA, which is all that firmware verifies")
    signed = attributes.untag().dump(force=True)
    key.verify(info["signature"].native, signed, padding.PKCS1v15(), _HASHES[alg])


def _hash(name: str) -> HashAlg:
    alg = HASH_BY_LABEL.get(name)
    if alg is None or alg not in _HASHES:
        raise UnsupportedError(f"digest algorithm {name}")
    return alg


def _issued(issuer: x509.Certificate, issued: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return True  # version 1 certificates of old platforms
    except (*_UNREADABLE, InvalidSignature):
        return False
    return constraints.ca
