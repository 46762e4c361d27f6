"""PURE frozen facts that were proven; the only thing a policy sees.

Every value here was bound to a quoted PCR (or to the quote itself) before it was put in. Data a log merely
carries never reaches this module.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import Struct

from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo
from verifier.tcg.event_types import EventType

_OF_WINDOWS: Final = frozenset({12, 13})


class CertifiedIndex(NamedTuple):
    """An NV index that can only be extended, certified by the AK over our nonce, after the quote (TPM2_NV_Certify).

    Not proven: that it is what systemd set up; whoever may use the TPM's owner hierarchy can make such an index.
    """

    handle: int
    """NV index."""
    name: bytes
    """Its Name: handle, attributes and policy."""
    bank: HashAlg
    """Algorithm it is extended with."""
    value: bytes


class QuoteFacts(NamedTuple):
    """What a verified quote proves: these PCR values, at this clock, signed by this AK over our nonce."""

    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    clock: ClockInfo
    firmware_version: int
    signature_hash: HashAlg
    indices: tuple[CertifiedIndex, ...] = ()
    """NV indices that were certified beside the quote."""


class Binding(enum.Enum):
    """How an event's data relates to the digest that was extended."""

    BOUND = "bound"
    """The digest was recomputed from the data in the log under the rule of its type."""
    KNOWN = "known"
    """The digest equals that of a value this verifier knows (a section name, a supplied preimage)."""
    UNBOUND = "unbound"
    """The digest covers something that is not in the log; the data is a label nobody signed."""
    UNMEASURED = "unmeasured"
    """EV_NO_ACTION: nothing was extended."""


class EventFact(NamedTuple):
    """One event. Its digests are proven; `name` and `text` are there only when they are.

    `digests` is empty where nothing was proven: for EV_NO_ACTION, and for every event of a PCR that was not
    quoted or that the log does not explain. The type of an UNBOUND event is a label nobody signed.

    A named tuple, not a dataclass: there is one per event of every log, and it costs a quarter to make.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing needs
    pcr: int
    event_type: int
    type_name: str
    digests: Mapping[HashAlg, bytes]
    binding: Binding
    name: str | None
    """Stable proven name within its type: a variable (`SecureBoot`), a UKI section (`.cmdline`), or None."""
    text: str | None
    """Proven text of the event for people and for text rules, or None."""
    after_separator: bool
    """True when a separator of this PCR came before it: it belongs to the OS loader, not to firmware."""


@dataclass(frozen=True, slots=True)
class SecureBootFacts:
    """Secure Boot as measured into PCR 7; None where no bound event before the separator says it."""

    enabled: bool | None = None
    setup_mode: bool | None = None
    audit_mode: bool | None = None
    deployed_mode: bool | None = None


@dataclass(frozen=True, slots=True)
class SignatureDatabase:
    """PK, KEK, db or dbx as firmware measured it before its separator.

    Attributes:
        event_index: the event that proves it.
        certificates: SHA-256 of each X.509 certificate (DER), in order.
        digests: other entries by type (`sha256`: image digests; `x509-sha256`: certificates), raw.
        entries: how many entries of every type.
    """

    event_index: int
    certificates: tuple[bytes, ...]
    digests: Mapping[str, frozenset[bytes]]
    entries: int

    def lacks(self, reference: AbstractSet[bytes], kind: str = "sha256") -> frozenset[bytes]:
        """Which of `reference` are not in here: revocations that a dbx does not have yet."""
        return frozenset(reference) - self.digests.get(kind, frozenset())


@dataclass(frozen=True, slots=True)
class Authority:
    """What let an image run: an entry of a signature database (EV_EFI_VARIABLE_AUTHORITY).

    Attributes:
        variable: the database, or None where firmware measured the entry alone.
        entry_sha256: SHA-256 of the certificate (DER), or of the entry where it is no certificate.
        after_separator: for an OS loader, not for a driver of firmware.
    """

    event_index: int
    variable: str | None
    entry_sha256: bytes
    after_separator: bool


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image in PCR 2 (option ROMs, drivers) or 4 (loaders, kernels), by its Authenticode digest.

    Its path is a label nobody signed and therefore not here.
    """

    event_index: int
    pcr: int
    digests: Mapping[HashAlg, bytes]
    after_separator: bool


@dataclass(frozen=True, slots=True)
class BootEntry:
    """A boot option as measured: description and device path are proven, `name` only where it was measured."""

    event_index: int
    name: str | None
    description: str
    device_path: str


@dataclass(frozen=True, slots=True)
class DiskPartition:
    """A partition of the measured partition table."""

    name: str
    type_guid: str
    guid: str


@dataclass(frozen=True, slots=True)
class WindowsModule:
    """An image that Windows loaded before its kernel ran: path, hash algorithm (TPM name), Authenticode digest."""

    path: str
    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class WindowsFacts:
    """What the boot manager and the OS loader measured into PCRs 12 and 13 before they closed them.

    Attributes:
        parameters: every number that was measured under one name (wbcl.h, lower case) with one value; a name
            that was measured with different values is in `contradictions` instead.
        bitlocker_unlock: by what the volume was unlocked (`tpm`, `pin`, `recovery`, ...); empty: not at all.
        transfers: to what the boot manager and loaders handed over, as wbcl.h numbers it (1: the OS loader).
        elam_drivers: early-launch antimalware, by key name.
        modules: images loaded, in order.
        policies: names of active code-integrity policies.
    """

    parameters: Mapping[str, int]
    contradictions: frozenset[str]
    bitlocker_unlock: frozenset[str]
    transfers: frozenset[int]
    elam_drivers: tuple[str, ...]
    modules: tuple[WindowsModule, ...]
    policies: tuple[str, ...]

    def flag(self, name: str) -> bool | None:
        """A parameter as a truth value; None where it was not measured or contradicts itself."""
        value = self.parameters.get(name)
        return None if value is None else value != 0


@dataclass(frozen=True, slots=True)
class NvPcr:
    """An NvPCR of systemd: an NV index whose start was measured into PCR 9 before systemd closed that part.

    Attributes:
        index: its NV index.
        bank: algorithm of its digests.
        value: its content as certified.
        texts: all strings measured into it, in order; None where one is not proven, or where the log does not lead
            to the value.
    """

    index: int
    bank: HashAlg
    value: bytes
    texts: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class UserspaceFacts:
    """What systemd measured from userspace (systemd, "TPM2 PCR Measurements Made by systemd").

    Attributes:
        machine_id: the one id in PCR 15, with nothing before it that could be another in disguise.
        identity_texts: all proven strings of PCR 15, in order; events without one are `volume_keys`.
        file_systems: strings of the file systems in PCR 15; None where any event of it has no proven text.
        volume_keys: digests of the events of PCR 15 that no proven text explains: an HMAC under a volume's key, or
            anything else.
        product_id: UUID in the NvPCR `hardware`, by the same rule as `machine_id`.
        nvpcrs: by systemd's name.
    """

    machine_id: str | None
    identity_texts: tuple[str, ...]
    file_systems: tuple[str, ...] | None
    volume_keys: tuple[Mapping[HashAlg, bytes], ...]
    product_id: str | None
    nvpcrs: Mapping[str, NvPcr]


@dataclass(frozen=True, slots=True)
class BootDetails:
    """What a boot log proves beyond `BootFacts`, decoded; for rules and people that look closer.

    Attributes:
        firmware_version: EV_S_CRTM_VERSION.
        databases: by name: PK, KEK, db, dbx, dbt, dbr; those that are not proven are not in it.
        authorities: all of them; None where one might be hidden.
        firmware_actions: all texts firmware measured into PCR 7, such as a disabled DMA protection; None likewise.
        images: all of PCRs 2 and 4.
        boot_entries: not all need be here: one can be hidden, none invented.
        boot_order: only where firmware measures the variable's name.
        shim_states: shim's switches by name, as measured into PCR 7: `MokSBState` 1 is validation switched off;
            a name that is missing was not measured. None where one might be hidden.
        sbat_level: shim's revocation level by component.
        mok_list_trusted: shim was told to trust its MOK list for more than itself.
        grub_commands: all of PCR 8, in order; None where it is not quoted or has anything but text.
        uki_sections: digests by section, as systemd-stub measured them.
        loader_lines: all of PCR 12, where it is text (command lines that systemd-boot or systemd-stub passed),
            in order; None where it is not quoted or has anything else.
        windows: None where Windows did not close its measurements.
        userspace: what systemd measured once the kernel ran.
    """

    firmware_version: str | None
    databases: Mapping[str, SignatureDatabase]
    authorities: tuple[Authority, ...] | None
    firmware_actions: tuple[str, ...] | None
    images: tuple[LoadedImage, ...]
    boot_entries: tuple[BootEntry, ...]
    boot_order: tuple[str, ...] | None
    disk_guid: str | None
    partitions: tuple[DiskPartition, ...]
    shim_states: Mapping[str, int] | None
    sbat_level: Mapping[str, str] | None
    mok_list_trusted: bool | None
    grub_commands: tuple[str, ...] | None
    uki_sections: Mapping[str, Mapping[HashAlg, bytes]]
    loader_lines: tuple[str, ...] | None
    windows: WindowsFacts | None
    userspace: UserspaceFacts


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What a replayed boot log proves."""

    digest: bytes
    """SHA-256 of the log's bytes; names the blob, proves nothing."""
    banks: tuple[HashAlg, ...]
    """Quoted banks the log was replayed in; PCRs that failed in any of them are among `unlogged_pcrs`."""
    events: tuple[EventFact, ...]
    secure_boot: SecureBootFacts
    kernel_command_line: str | None
    """Bound by GRUB's text or by a supplied preimage of the measured digest."""
    startup_locality: int | None
    unlogged_pcrs: tuple[int, ...] = ()
    """Quoted PCRs that the log does not explain, or contradicts; nothing was claimed from them."""
    error_separators: tuple[int, ...] = ()
    """PCRs that firmware closed with the separator of an error: their earlier events are not what they should be."""
    boot_phases: tuple[str, ...] | None = ()
    """Words systemd-pcrphase extended into PCR 11 after the log ended, in order; proven by the quoted value. None
    where something else was extended among them."""
    quirks: tuple[tuple[int, Quirk], ...] = ()
    """PCRs that the log does not lead to as it stands, each with the known quirk that fits: names, and no facts."""
    decode: Callable[[], BootDetails] | None = field(default=None, compare=False, repr=False)
    """Decodes the details, once; most policies never ask, and decoding costs as much as all the rest."""
    tagged: bool = field(init=False, compare=False, repr=False)
    """PCRs 12 and 13 have events such as only Windows measures there: the details will say more of it."""

    def __post_init__(self) -> None:
        """Work out once what is asked at every attestation."""
        tagged = any(
            one.event_type == EventType.EV_EVENT_TAG and one.pcr in _OF_WINDOWS for one in self.events
        )
        object.__setattr__(self, "tagged", tagged)

    @property
    def details(self) -> BootDetails | None:
        """What the log proves in detail, decoded on first use; None for facts that were not read off a log."""
        return None if self.decode is None else self.decode()


class CloudInstance(Struct, frozen=True, kw_only=True):
    """The instance a cloud certified the AK for; the cloud's word (Google writes it into its AK certificates)."""

    project_id: str
    zone: str
    instance_id: str
    """Decimal."""
    instance_name: str


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """A device identity (IAK, IDevID) that is tied to this TPM; its maker's word."""

    issuer: str
    manufacturer: str | None
    model: str | None
    serial: str | None
    """Of the hardware module, hex."""


class InventoryFacts(Struct, frozen=True, kw_only=True):
    """What the operator's inventories say of this TPM's machine now; their word, which no TPM has signed.

    There are none while the sources they would rest on are not current.
    """

    outcome: str
    """How key and SMBIOS UUID fit: `match`, `ek-only`, `unknown` and so on (`verifier.appraisal.correlate`)."""
    source: str | None = None
    """Configured name of the source that lists the machine; None here and below where no machine can be named."""
    machine: str | None = None
    instance_uuid: str | None = None
    secure_boot: bool | None = None
    """As configured, which is not what booted."""
    encrypted: bool | None = None
    """The machine's files are; None: the source does not say."""


class EndorsementFacts(Struct, frozen=True, kw_only=True):
    """On whose word the keys are a TPM's, and what that word says of it.

    `endorsed_by` and `methods` are the verifier's own. All else is the statement of the CA that issued the
    certificate, as trustworthy as the trust anchor its path ends at; None where no validated certificate says it.
    """

    endorsed_by: str
    """The strongest enrolment method that held: `certificate`, `ak-certificate`, `device-certificate`, `inventory`,
    `approve` or `tofu`."""
    methods: tuple[str, ...] | None = None
    """Every enrolment method that was asked for and held, in the order of the settings."""
    issuer: str | None = None
    manufacturer_id: str | None = None
    """As the TCG Vendor ID Registry writes it: `id:564D5700`."""
    manufacturer: str | None = None
    """Its name, where the id is a known one."""
    model: str | None = None
    version: str | None = None
    virtual: bool | None = None
    """A TPM in software behind a hypervisor; None where the manufacturer is not known to make only one kind."""
    eku_present: bool | None = None
    """The EK certificate says tcg-kp-EKCertificate among its purposes."""
    san_present: bool | None = None
    """The EK certificate names its TPM in a subject alternative name."""
    revocation: str | None = None
    """What revocation lists said at enrolment of the EK certificate and the CAs above it: `current`, `overdue` or
    `unchecked`."""
    ak_issuer: str | None = None
    """Issuer of the AK's own certificate: a cloud, or the maker of the machine."""
    cloud: CloudInstance | None = None
    device: DeviceFacts | None = None
    inventory: InventoryFacts | None = None


class RuntimeFacts(NamedTuple):
    """What the proven part of an IMA list came to under the policy's runtime reference, since boot.

    Attributes:
        entries: proven entries.
        known: files that the reference knows.
        staged: known to a staged set only.
        excluded: of paths that the policy does not judge.
        signed: good by their signature alone.
        unknown: files of unknown paths.
        wrong: files whose digest is not what the reference has for their path.
        violations: files written while they were measured or used; of which kind, the PCR does not say.
        unknown_modules: kernel modules among the unknown and wrong files.
        policy_loads: IMA policies among them.
        keys: keys loaded onto keyrings, known or not.
        buffers: other critical data, known or not.
        boot_aggregate: the list's own record of the boot agrees with the quoted PCRs; None where it is not checkable.
        kernels: boot aggregates in the list: more than one after kexec.
        unproven: entries of PCRs that were not quoted.
        allowed: entries that are not known and that the policy lets through.
    """

    entries: int
    known: int
    staged: int
    excluded: int
    signed: int
    unknown: int
    wrong: int
    violations: int
    unknown_modules: int
    policy_loads: int
    keys: int
    buffers: int
    boot_aggregate: bool | None
    kernels: int
    unproven: int
    allowed: int = 0


class ProvenClaims(Struct, frozen=True):
    """Everything a policy may judge."""

    quote: QuoteFacts
    boot: BootFacts | None
    endorsement: EndorsementFacts | None = None
    """None where no activation bound the AK to an endorsed EK (an offline bundle)."""
    runtime: RuntimeFacts | None = None
    """None where no IMA list was sent, or where none of it is proven."""
