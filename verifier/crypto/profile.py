"""What an EK certificate says of its TPM (TCG EK Credential Profile for TPM Family 2.0, section 3.2).

Every value here is the issuer's statement, as trustworthy as the anchor its path ends at, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from verifier.crypto.certificate import (
    OID_ANY_EXTENDED_KEY_USAGE,
    OID_SUBJECT_ALT_NAME,
    Certificate,
    KeyUsage,
)
from verifier.crypto.keys import PublicKey
from verifier.crypto.names import attributes

EK_CERTIFICATE_PURPOSE: Final = "2.23.133.8.1"
"""tcg-kp-EKCertificate."""

GCE_INSTANCE: Final = "1.3.6.1.4.1.11129.2.1.21"
"""Google's instance identity; its EK certificates may say nothing else of what they are."""

MANUFACTURER: Final = "2.23.133.2.1"
MODEL: Final = "2.23.133.2.2"
VERSION: Final = "2.23.133.2.3"
_ID_PREFIX: Final = "id:"
_ID_DIGITS: Final = 8
_SWTPM: Final = "00001014"
"""IBM's PCI vendor number, which swtpm's certificates carry in place of a TCG vendor id."""


@dataclass(frozen=True, slots=True)
class Manufacturer:
    """A vendor of the TCG Vendor ID Registry, or of a well-known virtual TPM."""

    name: str
    virtual: bool


_HARDWARE: Final = {
    "AMD": "AMD",
    "ANT": "Ant Group",
    "ATML": "Atmel",
    "BRCM": "Broadcom",
    "CROS": "Google (Chrome OS)",
    "CSCO": "Cisco",
    "FLYS": "Flyslice",
    "HISI": "Huawei",
    "HPE": "Hewlett Packard Enterprise",
    "HPI": "HP Inc.",
    "IFX": "Infineon",
    "INTC": "Intel",
    "LEN": "Lenovo",
    "NSG": "NSING",
    "NSM": "National Semiconductor",
    "NTC": "Nuvoton",
    "NTZ": "Nationz",
    "QCOM": "Qualcomm",
    "ROCC": "Fuzhou Rockchip",
    "SEAL": "Wisekey",
    "SMSC": "SMSC",
    "SMSN": "Samsung",
    "SNS": "Sinosun",
    "STM": "STMicroelectronics",
    "TXN": "Texas Instruments",
    "WEC": "Winbond",
}
_VIRTUAL: Final = {
    "AMZN": "Amazon (NitroTPM)",
    "GOOG": "Google (vTPM)",
    "IBM": "IBM (software TPM)",
    "MSFT": "Microsoft (vTPM)",
    "QEMU": "QEMU (vTPM)",
    "VMW": "VMware (vTPM)",
    **{f"SIM{n}": "TPM simulator" for n in range(8)},
}
MANUFACTURERS: Final[Mapping[str, Manufacturer]] = {
    **{vendor: Manufacturer(name, virtual=False) for vendor, name in _HARDWARE.items()},
    **{vendor: Manufacturer(name, virtual=True) for vendor, name in _VIRTUAL.items()},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EkProfile:
    """What the certificate says, for people and for policy.

    Attributes:
        manufacturer_id: as written, for example `id:564D5700`, or None.
        manufacturer: vendor name for people, the bare four characters when unlisted, or None.
        vendor: the vendor id's characters, for example `VMW`, or None.
        model: as written.
        version: as written, for example `id:00020065`.
        virtual: True for a vendor of virtual TPMs, False for one of chips, None when unknown.
        eku_present: tcg-kp-EKCertificate is among the extended key usages.
        san_present: a subject alternative name with a directory name is there.
        key: `RSA-2048`, `EC-secp256r1` and so on.
        signature: how the certificate is signed.
        notes: departures from the profile and other things a person should know; none of them refuses.
    """

    manufacturer_id: str | None
    manufacturer: str | None
    vendor: str | None
    model: str | None
    version: str | None
    virtual: bool | None
    eku_present: bool
    san_present: bool
    key: str
    signature: str
    notes: tuple[str, ...]

    def as_mapping(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "manufacturer_id": self.manufacturer_id,
            "manufacturer": self.manufacturer,
            "vendor": self.vendor,
            "model": self.model,
            "version": self.version,
            "virtual": self.virtual,
            "eku_present": self.eku_present,
            "san_present": self.san_present,
            "key": self.key,
            "signature": self.signature,
            "notes": list(self.notes),
        }


def profile_problem(certificate: Certificate) -> str | None:
    """Why this certificate cannot be one of an endorsement key, or None.

    That usages or names are absent is no problem here (real vTPM certificates lack them; policy decides).
    Usages that are there and exclude an EK are; and so is a certificate in which nothing speaks of a TPM: a
    CA such as VMCA certifies servers too, whose keys anyone may have and a software TPM may pretend to hold.
    """
    extensions = certificate.extensions
    if extensions.basic_constraints is not None and extensions.basic_constraints.ca:
        return "it is a CA certificate"
    if unenforced := certificate.unenforced():
        return f"extension {', '.join(unenforced)} cannot be enforced"
    usage = extensions.key_usage
    if usage is not None and not usage & (KeyUsage.KEY_ENCIPHERMENT | KeyUsage.KEY_AGREEMENT):
        return f"its key usage ({usage_text(usage)}) allows neither encipherment nor agreement, as an EK must"
    return _purpose_problem(certificate)


def _purpose_problem(certificate: Certificate) -> str | None:
    extensions = certificate.extensions
    purposes = extensions.extended_key_usage
    if purposes is not None and not {EK_CERTIFICATE_PURPOSE, OID_ANY_EXTENDED_KEY_USAGE} & set(purposes):
        return f"it is for other purposes ({', '.join(purposes)})"
    named = _has_directory(certificate)
    if OID_SUBJECT_ALT_NAME in extensions.critical and not named:
        return "its critical subject alternative name holds no directory name"
    named = named or bool(tpm_attributes(certificate)[0]) or GCE_INSTANCE in extensions.present
    if purposes is None and not named:
        return "nothing in it speaks of a TPM: neither purpose, nor directory name, nor a cloud instance"
    return None


def read_profile(certificate: Certificate, key: PublicKey, notes: Iterable[str] = ()) -> EkProfile:
    """Collect what the certificate says. Judges nothing.

    Args:
        certificate: a certificate without `profile_problem`.
        key: its public key.
        notes: what validation found and a person should know.
    """
    said, remarks = tpm_attributes(certificate)
    vendor, vendor_remarks = read_vendor(said.get(MANUFACTURER))
    listed = MANUFACTURERS.get(vendor) if vendor else None
    purposes = certificate.extensions.extended_key_usage or ()
    eku_present = EK_CERTIFICATE_PURPOSE in purposes
    san_present = _has_directory(certificate)
    all_notes = [*notes, *remarks, *vendor_remarks]
    if not eku_present:
        all_notes.append("extended key usage tcg-kp-EKCertificate is absent")
    if not san_present:
        all_notes.append("no directory name in a subject alternative name")
    return EkProfile(
        manufacturer_id=said.get(MANUFACTURER),
        manufacturer=listed.name if listed else vendor,
        vendor=vendor,
        model=said.get(MODEL),
        version=said.get(VERSION),
        virtual=listed.virtual if listed else None,
        eku_present=eku_present,
        san_present=san_present,
        key=key_text(key),
        signature=str(certificate.algorithm),
        notes=tuple(all_notes),
    )


def key_text(key: PublicKey) -> str:
    """Algorithm and size or curve, for people."""
    match key:
        case RSAPublicKey():
            return f"RSA-{key.key_size}"
        case EllipticCurvePublicKey():
            return f"EC-{key.curve.name}"
        case _:
            assert_never(key)


def _has_directory(certificate: Certificate) -> bool:
    names = certificate.extensions.alternative_names
    return names is not None and names.has_directory


def tpm_attributes(certificate: Certificate) -> tuple[dict[str, str], list[str]]:
    """TPM attributes by OID, the alternative name's before the subject's; and where the two disagree."""
    names = certificate.extensions.alternative_names
    said: dict[str, str] = {}
    remarks: list[str] = []
    for oid, text in (*(names.directory if names else ()), *attributes(certificate.subject)):
        if oid not in (MANUFACTURER, MODEL, VERSION):
            continue
        if said.setdefault(oid, text) != text:
            remarks.append(f"the certificate says both {said[oid]!r} and {text!r} of its TPM")
    return said, remarks


def read_vendor(written: str | None) -> tuple[str | None, list[str]]:
    """Vendor characters of `id:XXXXXXXX` (hexadecimal of up to four ASCII characters, zero or blank padded)."""
    if written is None:
        return None, []
    digits = written.removeprefix(_ID_PREFIX)
    if digits == _SWTPM:
        return "IBM", []
    try:
        raw = bytes.fromhex(digits) if len(digits) == _ID_DIGITS else b""
        vendor = raw.decode("ascii").rstrip("\0 ")
    except ValueError:
        vendor = ""
    if not vendor.isalnum():
        return None, [f"manufacturer {written!r} is not a TCG vendor id"]
    return vendor, []


def usage_text(usage: KeyUsage) -> str:
    """Key usages for people."""
    return ", ".join((bit.name or "").lower().replace("_", " ") for bit in usage) or "none"
