"""Claims of the catalogue about the machine's identity: on whose word its keys are a TPM's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifier.claims import CloudInstance, DeviceFacts, InventoryFacts
from verifier.policy.claim_entry import Extract, Kind, Value, claim, endorsement


def _cloud(read: Callable[[CloudInstance], Value | None]) -> Extract:
    return endorsement(lambda facts: None if facts.cloud is None else read(facts.cloud))


def _device(read: Callable[[DeviceFacts], Value | None]) -> Extract:
    return endorsement(lambda facts: None if facts.device is None else read(facts.device))


def _inventory(read: Callable[[InventoryFacts], Value | None]) -> Extract:
    return endorsement(lambda facts: None if facts.inventory is None else read(facts.inventory))


IDENTITY: Final = (
    claim(
        "identity.endorsed_by",
        Kind.STRING,
        "Strongest enrolment method that held: `certificate`, `ak-certificate`, `device-certificate`, `inventory`,"
        " `approve` or `tofu`.",
        endorsement(lambda facts: facts.endorsed_by),
    ),
    claim(
        "identity.methods",
        Kind.STRINGS,
        "Every enrolment method that held, in the order of the settings; `token` among them.",
        endorsement(lambda facts: None if facts.methods is None else list(facts.methods)),
    ),
    claim(
        "identity.ek.issuer",
        Kind.STRING,
        "Issuer of the validated EK certificate.",
        endorsement(lambda facts: facts.issuer),
    ),
    claim(
        "identity.ek.manufacturer_id",
        Kind.STRING,
        "TPM manufacturer as the certificate writes it, for example `id:564D5700`.",
        endorsement(lambda facts: facts.manufacturer_id),
    ),
    claim(
        "identity.ek.manufacturer",
        Kind.STRING,
        "Its name, where the id is a known one.",
        endorsement(lambda facts: facts.manufacturer),
    ),
    claim(
        "identity.ek.model",
        Kind.STRING,
        "TPM model as the certificate writes it.",
        endorsement(lambda facts: facts.model),
    ),
    claim(
        "identity.ek.version",
        Kind.STRING,
        "TPM version as the certificate writes it.",
        endorsement(lambda facts: facts.version),
    ),
    claim(
        "identity.ek.virtual",
        Kind.BOOL,
        "The manufacturer makes virtual TPMs, not chips.",
        endorsement(lambda facts: facts.virtual),
    ),
    claim(
        "identity.ek.eku_present",
        Kind.BOOL,
        "The EK certificate has the purpose tcg-kp-EKCertificate.",
        endorsement(lambda facts: facts.eku_present),
    ),
    claim(
        "identity.ek.san_present",
        Kind.BOOL,
        "The EK certificate names its TPM in a subject alternative name.",
        endorsement(lambda facts: facts.san_present),
    ),
    claim(
        "identity.ek.revocation",
        Kind.STRING,
        "What revocation lists said at enrolment of the EK certificate and every CA below the trust anchor: `current`,"
        " `overdue` (a newer list was due) or `unchecked`. What is listed is refused in any case.",
        endorsement(lambda facts: facts.revocation),
    ),
    claim(
        "identity.ak.issuer",
        Kind.STRING,
        "Issuer of the validated certificate of the AK itself (a cloud, or an IAK's maker).",
        endorsement(lambda facts: facts.ak_issuer),
    ),
    claim(
        "identity.cloud.project_id",
        Kind.STRING,
        "Google Cloud project the AK is certified for.",
        _cloud(lambda facts: facts.project_id),
    ),
    claim(
        "identity.cloud.zone",
        Kind.STRING,
        "Its zone.",
        _cloud(lambda facts: facts.zone),
    ),
    claim(
        "identity.cloud.instance_id",
        Kind.STRING,
        "Its instance id, decimal.",
        _cloud(lambda facts: facts.instance_id),
    ),
    claim(
        "identity.cloud.instance_name",
        Kind.STRING,
        "Its instance name.",
        _cloud(lambda facts: facts.instance_name),
    ),
    claim(
        "identity.device.issuer",
        Kind.STRING,
        "Issuer of a device identity (IAK, IDevID) that is tied to this TPM.",
        _device(lambda facts: facts.issuer),
    ),
    claim(
        "identity.device.manufacturer",
        Kind.STRING,
        "Its TPM's manufacturer.",
        _device(lambda facts: facts.manufacturer),
    ),
    claim(
        "identity.device.model",
        Kind.STRING,
        "Its TPM's model.",
        _device(lambda facts: facts.model),
    ),
    claim(
        "identity.device.serial",
        Kind.STRING,
        "Serial number of its hardware module, hex.",
        _device(lambda facts: facts.serial),
    ),
    claim(
        "identity.inventory.outcome",
        Kind.STRING,
        "How this TPM and the SMBIOS UUID of its guest fit the inventory now: `match`, `ek-only`,"
        " `ek-of-another-machine`, `ek-on-several-machines`, `uuid-known-ek-unknown`, `ek-not-listed` or `unknown`."
        " The inventory's word, not the TPM's; unproven while its sources are not current.",
        _inventory(lambda facts: facts.outcome),
    ),
    claim(
        "identity.inventory.source",
        Kind.STRING,
        "Configured name of the inventory that lists this machine.",
        _inventory(lambda facts: facts.source),
    ),
    claim(
        "identity.inventory.machine",
        Kind.STRING,
        "The machine's name there.",
        _inventory(lambda facts: facts.machine),
    ),
    claim(
        "identity.inventory.instance_uuid",
        Kind.STRING,
        "vCenter's identifier of the machine (`instanceUuid`), lower case.",
        _inventory(lambda facts: facts.instance_uuid),
    ),
    claim(
        "identity.inventory.secure_boot",
        Kind.BOOL,
        "Secure Boot as configured for the machine, which is not what booted.",
        _inventory(lambda facts: facts.secure_boot),
    ),
    claim(
        "identity.inventory.encrypted",
        Kind.BOOL,
        "The machine's files are encrypted; its vTPM's state is among them.",
        _inventory(lambda facts: facts.encrypted),
    ),
)
