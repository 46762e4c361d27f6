"""What the certificate of a signing key says of its device: names, serial, capabilities, cloud instance.

Every value here is the issuer's statement, as trustworthy as the anchor its path ends at, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from verifier.crypto import der
from verifier.crypto.certificate import OID_CERTIFICATE_POLICIES, Certificate
from verifier.crypto.profile import (
    GCE_INSTANCE,
    MANUFACTURER,
    MANUFACTURERS,
    MODEL,
    VERSION,
    read_vendor,
    tpm_attributes,
)

AK_CERTIFICATE_PURPOSE: Final = "2.23.133.8.3"
"""tcg-kp-AIKCertificate."""
VERIFIED_RESIDENCY: Final = "2.23.133.11.1.1"
VERIFIED_FIXED: Final = "2.23.133.11.1.2"
VERIFIED_RESTRICTED: Final = "2.23.133.11.1.3"
"""tcg-cap-verifiedTPMResidency, -Fixed and -Restricted: certificate policies, written by some as key usages."""
_TPM_2_0: Final = "2.23.133.1.2"
"""tcg-sv-tpm20, the type of a hardware module."""
_HARDWARE_MODULE_NAME: Final = "1.3.6.1.5.5.7.8.4"
"""RFC 4108, section 5."""
_PERMANENT_IDENTIFIER: Final = "1.3.6.1.5.5.7.8.3"
"""RFC 4043."""
_UTF8: Final = 0x0C
_GCE_PROPERTIES: Final = 0xA0
_GCE_PRODUCTION: Final = 0xA1
_MAX_INTEGER: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GceInstance:
    """The Google Compute Engine instance a certificate was issued to."""

    zone: str
    project_number: int
    project_id: str
    instance_id: int
    instance_name: str
    production: bool | None
    """False for Google's own test machines; None where it is not said."""

    def as_mapping(self) -> dict[str, object]:
        """JSON-ready. The instance id is text: it is a u64, which JSON readers round."""
        return {
            "zone": self.zone,
            "project_number": self.project_number,
            "project_id": self.project_id,
            "instance_id": str(self.instance_id),
            "instance_name": self.instance_name,
            "production": self.production,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKeyProfile:
    """What the certificate says, for people and for policy.

    Attributes:
        manufacturer: vendor name for people, or None.
        vendor: the TCG vendor id's characters, or None.
        model: as written.
        version: as written.
        virtual: True for a vendor of virtual TPMs, False for one of chips, None when unknown.
        hardware_type: dotted OID of the hardware module's type (2.23.133.1.2 is TPM 2.0), or None.
        hardware_serial: hex of the hardware module's serial number, or None.
        permanent_identifier: text that identifies the device, or None; with assigner 2.23.133.12.1 it is the
            hex digest of the EK certificate.
        identifier_assigner: dotted OID of who assigned it, or None.
        purposes: extended key usages, dotted.
        policies: certificate policies, dotted.
        restricted: the issuer says that the key is a restricted TPM key.
        resident: the issuer says that the key lives in a TPM.
        gce: Google's instance identity, or None.
        notes: what a person should know; none of it refuses.
    """

    manufacturer: str | None
    vendor: str | None
    model: str | None
    version: str | None
    virtual: bool | None
    hardware_type: str | None
    hardware_serial: str | None
    permanent_identifier: str | None
    identifier_assigner: str | None
    purposes: tuple[str, ...]
    policies: tuple[str, ...]
    restricted: bool
    resident: bool
    gce: GceInstance | None
    notes: tuple[str, ...]

    def as_mapping(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            "manufacturer": self.manufacturer,
            "vendor": self.vendor,
            "model": self.model,
            "version": self.version,
            "virtual": self.virtual,
            "serial": self.hardware_serial,
            "permanent_identifier": self.permanent_identifier,
            "restricted": self.restricted,
            "gce": None if self.gce is None else self.gce.as_mapping(),
            "notes": list(self.notes),
        }


def read_device_profile(certificate: Certificate, notes: Iterable[str] = ()) -> DeviceKeyProfile:
    """Collect what the certificate says. Judges nothing.

    Raises:
        MalformedInputError: EK_CERTIFICATE_MALFORMED: a known extension whose value does not parse.
    """
    said, remarks = tpm_attributes(certificate)
    vendor, vendor_remarks = read_vendor(said.get(MANUFACTURER))
    listed = MANUFACTURERS.get(vendor) if vendor else None
    names = _device_names(certificate)
    purposes = certificate.extensions.extended_key_usage or ()
    policies = _policies(certificate)
    stated = {*purposes, *policies}
    restricted = bool(stated & {AK_CERTIFICATE_PURPOSE, VERIFIED_RESTRICTED})
    resident = (
        restricted or bool(stated & {VERIFIED_RESIDENCY, VERIFIED_FIXED}) or names.hardware_type == _TPM_2_0
    )
    all_notes = [*notes, *remarks, *vendor_remarks]
    if not restricted:
        all_notes.append("the certificate does not say that the key is restricted to what its TPM makes")
    return DeviceKeyProfile(
        manufacturer=listed.name if listed else vendor,
        vendor=vendor,
        model=said.get(MODEL),
        version=said.get(VERSION),
        virtual=listed.virtual if listed else None,
        hardware_type=names.hardware_type,
        hardware_serial=names.serial,
        permanent_identifier=names.identifier,
        identifier_assigner=names.assigner,
        purposes=purposes,
        policies=policies,
        restricted=restricted,
        resident=resident,
        gce=_gce_instance(certificate),
        notes=tuple(all_notes),
    )


def _cursor(value: bytes, what: str) -> der.DerCursor:
    """A cursor over the fields of the SEQUENCE that these bytes are."""
    outer = der.DerCursor(value, structure=what)
    fields = outer.inside(outer.read(der.SEQUENCE, what))
    outer.finish(what)
    return fields


def _extension(certificate: Certificate, oid: str) -> bytes | None:
    for extension in der.read_extensions(der.open_envelope(certificate.der).extensions):
        if extension.oid == oid:
            return extension.value.value
    return None


def _policies(certificate: Certificate) -> tuple[str, ...]:
    value = _extension(certificate, OID_CERTIFICATE_POLICIES)
    if value is None:
        return ()
    found = []
    policies = _cursor(value, "certificatePolicies")
    while policies.remaining:
        policy = policies.inside(policies.read(der.SEQUENCE, "PolicyInformation"))
        identifier = policy.read(der.OBJECT_IDENTIFIER, "policyIdentifier")
        found.append(der.read_oid(identifier, policies.structure))
    return tuple(found)


@dataclass(slots=True)
class _DeviceNames:
    """What alternative names say of the device."""

    hardware_type: str | None = None
    serial: str | None = None
    identifier: str | None = None
    assigner: str | None = None


def _device_names(certificate: Certificate) -> _DeviceNames:
    found = _DeviceNames()
    names = certificate.extensions.alternative_names
    for oid, value in names.other_names if names else ():
        if oid == _HARDWARE_MODULE_NAME:
            fields = _cursor(value, "HardwareModuleName")
            found.hardware_type = der.read_oid(fields.read(der.OBJECT_IDENTIFIER, "hwType"), fields.structure)
            found.serial = fields.read(der.OCTET_STRING, "hwSerialNum").value.hex()
        elif oid == _PERMANENT_IDENTIFIER:
            fields = _cursor(value, "PermanentIdentifier")
            if fields.peek() == _UTF8:
                found.identifier = _text(fields, "identifierValue")
            if fields.peek() == der.OBJECT_IDENTIFIER:
                found.assigner = der.read_oid(
                    fields.read(der.OBJECT_IDENTIFIER, "assigner"), fields.structure
                )
    return found


def _gce_instance(certificate: Certificate) -> GceInstance | None:
    value = _extension(certificate, GCE_INSTANCE)
    if value is None:
        return None
    fields = _cursor(value, "GCE instance identity")
    zone, project_number = _text(fields, "zone"), _integer(fields, "project number")
    project_id, instance_id = _text(fields, "project id"), _integer(fields, "instance id")
    name = _text(fields, "instance name")
    return GceInstance(
        zone=zone,
        project_number=project_number,
        project_id=project_id,
        instance_id=instance_id,
        instance_name=name,
        production=_gce_production(fields),
    )


def _gce_production(fields: der.DerCursor) -> bool | None:
    if fields.peek() != _GCE_PROPERTIES:
        return None
    wrapper = fields.inside(fields.read(_GCE_PROPERTIES, "security properties"))
    properties = wrapper.inside(wrapper.read(der.SEQUENCE, "security properties"))
    while properties.remaining:
        element = properties.read_any("security property")
        if element.tag == _GCE_PRODUCTION:
            flag = properties.inside(element).read(der.BOOLEAN, "is production")
            return flag.value != b"\x00"
    return None


def _text(fields: der.DerCursor, what: str) -> str:
    element = fields.read(_UTF8, what)
    try:
        return element.value.decode()
    except UnicodeDecodeError as error:
        raise fields.error(f"{what} is not UTF-8", element.content) from error


def _integer(fields: der.DerCursor, what: str) -> int:
    element = fields.read(der.INTEGER, what)
    if not 0 < len(element.value) <= _MAX_INTEGER:
        raise fields.error(f"{what} is empty or too long", element.start)
    return int.from_bytes(element.value, "big", signed=True)
