"""UEFI structures: variables, load options, partition tables, signature databases, SBAT levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.event_data import seeds as events
from verifier.errors import MalformedInputError
from verifier.tcg import devicepath, sbat, signature_list, uefi
from verifier.tcg.event_types import EventType

RAISES = (MalformedInputError,)
RUNS = 1500
MEMORY = Bound(400, 1 << 20)
READERS: tuple[Callable[[bytes], object], ...] = (
    uefi.parse_variable,
    uefi.parse_image_load,
    uefi.parse_load_option,
    uefi.parse_boot_order,
    uefi.parse_partition_table,
    lambda data: uefi.parse_firmware_blob(data, described=False),
    lambda data: uefi.parse_firmware_blob(data, described=True),
    lambda data: uefi.parse_handoff_tables(data, described=False),
    lambda data: uefi.parse_handoff_tables(data, described=True),
    uefi.parse_tagged_event,
    devicepath.device_path_text,
    signature_list.parse_signature_lists,
    signature_list.parse_signature,
    signature_list.parse_security_version,
    lambda data: sbat.parse_sbat(data.decode("utf-8", "replace")),
)


def seeds() -> Iterator[bytes]:
    found: dict[int, list[bytes]] = {number: [] for number in range(len(READERS))}
    for data in events():
        kind, content = int.from_bytes(data[:4], "little"), data[4:]
        variable = uefi.parse_variable(content)
        if variable is not None:
            found[0].append(content)
            values = (2, 3, 11, 12, 13, 14)
            for number in values:
                found[number].append(variable.value)
        elif kind == EventType.EV_EFI_BOOT_SERVICES_APPLICATION:
            found[1].append(content)
            found[10].append(uefi.parse_image_load(content).device_path)
        elif kind == EventType.EV_EFI_GPT_EVENT:
            found[4].append(content)
        else:
            for number in (5, 6, 7, 8, 9):
                found[number].append(content)
    yield from choices(found)


def target(data: bytes) -> None:
    READERS[data[0] % len(READERS) if data else 0](data[1:])
