"""Read off what bound events say in detail: databases, authorities, images, boot entries, shim, GRUB, UKI, Windows.

Separate from `BootFacts` because most policies need none of it: decoding is paid for by those that ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from verifier.appraisal.boot.binding import IMAGE_PCRS, SEPARATORS, BoundLog
from verifier.appraisal.boot.sections import UKI_PCR
from verifier.appraisal.boot.userspace import Userspace, read_userspace
from verifier.appraisal.boot.windows import read_windows
from verifier.claims import (
    Authority,
    Binding,
    BootDetails,
    BootEntry,
    DiskPartition,
    EventFact,
    LoadedImage,
    SignatureDatabase,
)
from verifier.errors import EvidenceError
from verifier.tcg import uefi
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.devicepath import device_path_text
from verifier.tcg.event_types import EventType
from verifier.tcg.preimage import SHIM_EXCESS
from verifier.tcg.sbat import parse_sbat
from verifier.tcg.signature_list import OWNER_SIZE, signature_entries

SECURE_BOOT_PCR: Final = 7
GRUB_PCR: Final = 8
LOADER_PCR: Final = 12
DATABASES: Final = frozenset({"PK", "KEK", "db", "dbx", "dbt", "dbr"})

_CONFIG: Final = int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG)
_BOOT: Final = (int(EventType.EV_EFI_VARIABLE_BOOT), int(EventType.EV_EFI_VARIABLE_BOOT2))
_GPT: Final = (int(EventType.EV_EFI_GPT_EVENT), int(EventType.EV_EFI_GPT_EVENT2))
_ACTIONS: Final = (int(EventType.EV_ACTION), int(EventType.EV_EFI_ACTION))
_DER_SEQUENCE: Final = b"\x30\x82"
_SBAT: Final = "SbatLevel"
_STATES: Final = frozenset({"MokListTrusted", "MokSBState", "MokDBState", "MokPolicy"})


def read_details(bound: BoundLog, userspace: Userspace | None = None) -> BootDetails:
    """Decode what is bound; `userspace` adds what systemd measured into NV indices.

    Whoever runs after the boot can hide an event (by editing its data) and append others. So what a rule may
    read as complete is None where anything is hidden, and nothing is taken from where it could be appended.
    """
    disk, partitions = _partitions(bound)
    secure_boot = _SecureBootEvents(bound)
    return BootDetails(
        firmware_version=_firmware_version(bound),
        databases=_databases(bound),
        authorities=secure_boot.authorities,
        firmware_actions=secure_boot.actions,
        images=tuple(_images(bound)),
        boot_entries=tuple(_boot_entries(bound)),
        boot_order=_boot_order(bound),
        disk_guid=disk,
        partitions=partitions,
        shim_states=secure_boot.states,
        sbat_level=_sbat_level(bound),
        mok_list_trusted=_mok_list_trusted(bound),
        grub_commands=_texts(bound, GRUB_PCR),
        uki_sections={fact.name: fact.digests for fact in bound.of(UKI_PCR) if fact.name is not None},
        loader_lines=_texts(bound, LOADER_PCR),
        windows=read_windows(bound),
        userspace=read_userspace(bound, userspace),
    )


def _data(bound: BoundLog, fact: EventFact) -> bytes:
    return bound.log.events[fact.index].data


def _early(bound: BoundLog, pcr: int) -> Iterator[EventFact]:
    """Bound events that firmware measured: those before a proven separator."""
    if pcr in bound.separated:
        for fact in bound.of(pcr):
            if fact.after_separator:
                return
            if fact.binding is Binding.BOUND:
                yield fact


def _texts(bound: BoundLog, pcr: int) -> tuple[str, ...] | None:
    """All of a PCR, if it is nothing but bound text."""
    if pcr not in bound.believed:
        return None
    texts = [fact.text for fact in bound.of(pcr) if fact.binding is Binding.BOUND and fact.text is not None]
    return tuple(texts) if len(texts) == len(bound.positions.get(pcr, ())) else None


def _firmware_version(bound: BoundLog) -> str | None:
    versions = [fact.text for fact in _early(bound, 0) if fact.event_type == EventType.EV_S_CRTM_VERSION]
    return next((version for version in versions if version), None)


def _databases(bound: BoundLog) -> Mapping[str, SignatureDatabase]:
    found: dict[str, SignatureDatabase | None] = {}
    for fact in _early(bound, SECURE_BOOT_PCR):
        if fact.name in DATABASES and fact.event_type == _CONFIG:
            variable = uefi.parse_variable(_data(bound, fact))
            # A database measured twice has no one content.
            found[fact.name] = (
                None if variable is None or fact.name in found else _database(fact, variable.value)
            )
    return {name: database for name, database in found.items() if database is not None}


def _database(fact: EventFact, value: bytes) -> SignatureDatabase | None:
    certificates: list[bytes] = []
    digests: dict[str, frozenset[bytes]] = {}
    total = 0
    try:
        lists = signature_entries(value)
    except EvidenceError:
        return None
    for kind, entries in lists:
        total += len(entries)
        if kind == "x509":
            certificates.extend(HashAlg.SHA256.digest(entry[OWNER_SIZE:]) for entry in entries)
        else:
            digests[kind] = digests.get(kind, frozenset()).union([entry[OWNER_SIZE:] for entry in entries])
    return SignatureDatabase(fact.index, tuple(certificates), digests, total)


class _SecureBootEvents:
    """What PCR 7 says beyond firmware's configuration; every field None where an event might be hidden.

    Labels choose nothing: behind the separator every variable is an authority or a switch of shim's, before it
    every one that is not firmware's configuration, and a configuration measured twice may be an authority in
    disguise.
    """

    def __init__(self, bound: BoundLog) -> None:
        self.authorities: tuple[Authority, ...] | None = None
        self.actions: tuple[str, ...] | None = None
        self.states: Mapping[str, int] | None = None
        self._authorities: list[Authority] = []
        self._actions: list[str] = []
        self._states: dict[str, int] = {}
        self._configured: set[str | None] = set()
        facts = bound.of(SECURE_BOOT_PCR)
        if SECURE_BOOT_PCR in bound.separated and all(self._read(fact, _data(bound, fact)) for fact in facts):
            self.authorities, self.actions = tuple(self._authorities), tuple(self._actions)
            self.states = self._states

    def _read(self, fact: EventFact, data: bytes) -> bool:
        """Take one event; False where it leaves a doubt."""
        if fact.binding is not Binding.BOUND:
            return False
        variable = _variable(data)
        if variable is None:
            return data in SEPARATORS or self._read_action(fact)
        if fact.event_type == _CONFIG and not fact.after_separator:
            first = fact.name not in self._configured
            self._configured.add(fact.name)
            return first
        if fact.name in _STATES and len(variable.value) == 1:
            return self._states.setdefault(fact.name or "", variable.value[0]) == variable.value[0]
        if fact.name != _SBAT:
            if _variable(variable.value) is not None:
                return (
                    False  # an authority wrapped in another, so that its certificate reads as something else
                )
            digest = HashAlg.SHA256.digest(_entry(variable.value))
            self._authorities.append(Authority(fact.index, fact.name, digest, fact.after_separator))
        return True

    def _read_action(self, fact: EventFact) -> bool:
        if fact.event_type not in _ACTIONS or fact.text is None or not fact.text.isprintable():
            return False
        self._actions.append(fact.text)
        return True


def _variable(data: bytes) -> uefi.Variable | None:
    """A variable as firmware logs it, or as old shims do, with up to six bytes too many."""
    ends = (0, SHIM_EXCESS, SHIM_EXCESS - 1)
    return next((found for end in ends if (found := uefi.parse_variable(data[: len(data) - end]))), None)


def _entry(value: bytes) -> bytes:
    """EFI_SIGNATURE_DATA without its owner; shim logs bare certificates."""
    return value if value.startswith(_DER_SEQUENCE) else value[OWNER_SIZE:]


def _images(bound: BoundLog) -> Iterator[LoadedImage]:
    """Whatever no readable text explains; labels choose nothing, so that no image can hide behind one."""
    for pcr in sorted(IMAGE_PCRS):
        for fact in bound.of(pcr):
            if fact.binding is Binding.UNBOUND:
                yield LoadedImage(fact.index, pcr, fact.digests, fact.after_separator)


def _boot_variables(bound: BoundLog) -> Iterator[tuple[EventFact, uefi.Variable]]:
    for fact in _early(bound, 1):
        variable = uefi.parse_variable(_data(bound, fact)) if fact.event_type in _BOOT else None
        if variable is not None:
            yield fact, variable


def _boot_entries(bound: BoundLog) -> Iterator[BootEntry]:
    for fact, variable in _boot_variables(bound):
        try:
            option = uefi.parse_load_option(variable.value)
            path = device_path_text(option.device_path)
        except EvidenceError:
            continue  # the boot order, or a vendor's own
        yield BootEntry(fact.index, fact.name, option.description, path)


def _boot_order(bound: BoundLog) -> tuple[str, ...] | None:
    for fact, variable in _boot_variables(bound):
        if fact.name == "BootOrder" and len(variable.value) % 2 == 0:
            return uefi.parse_boot_order(variable.value)
    return None


def _partitions(bound: BoundLog) -> tuple[str | None, tuple[DiskPartition, ...]]:
    """The first partition table; it cannot hide behind another label, and a later one can be appended."""
    for fact in bound.of(5):
        data = _data(bound, fact)
        if fact.binding is Binding.BOUND and uefi.GPT_SIGNATURE not in data:
            continue
        if fact.event_type not in _GPT or fact.binding is not Binding.BOUND:
            break
        try:
            table = uefi.parse_partition_table(data)
        except EvidenceError:
            break
        partitions = [DiskPartition(part.name, part.type_guid, part.guid) for part in table.partitions]
        return table.disk_guid, tuple(partitions)
    return None, ()


def _sbat_level(bound: BoundLog) -> Mapping[str, str] | None:
    """Shim's level, if the PCR leaves no doubt: nothing unbound before it, and its name nowhere else."""
    spelled = _SBAT.encode("utf-16-le")
    level: str | None = None
    for fact in bound.of(SECURE_BOOT_PCR):
        if level is None and fact.binding is not Binding.BOUND:
            return None
        if spelled in _data(bound, fact) or fact.name == _SBAT:
            if fact.name != _SBAT or level not in (None, fact.text):
                return None
            level = fact.text
    return None if level is None else parse_sbat(level)


def _mok_list_trusted(bound: BoundLog) -> bool | None:
    facts = bound.of(14)
    if not facts:
        return None
    # A later measurement can claim more trust, never less.
    trusted = bound.expected(b"\x01", facts[0].digests)
    return any(fact.digests == trusted for fact in facts)
