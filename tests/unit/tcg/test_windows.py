"""SIPA records of Windows boot logs: nesting, sizes, names, payloads; the logs of the corpus."""

from __future__ import annotations

import struct

import pytest

from tests.conftest import shared_path
from verifier.errors import MalformedInputError
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.windows import MAX_DEPTH, MAX_RECORDS, Sipa, parse_si_policy, parse_sipa, unlock_flags

LOGS = (
    "immune-gmbh_guard-oss/evidence/t480s.eventlog.bin",
    "immune-gmbh_guard-oss/evidence/r340.eventlog.bin",
    "immune-gmbh_guard-oss/dell-notebook-5eventlogs-WBCL.log",
    "immune-gmbh_guard-oss/tpm12_windows_lenovo_x1carbonv3",
    "google_go-attestation/windows_gcp_shielded_vm.eventlog.bin",
    "kgoldman_ibmtss/dell1.log",
    "kgoldman_ibmtss/p511.log",
)


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def test_records_are_read_in_order_and_containers_hold_records() -> None:
    inner = record(Sipa.TESTSIGNING, b"\x01") + record(Sipa.SYSTEMROOT, "\\Windows\0".encode("utf-16-le"))
    flag, boundary = parse_sipa(
        record(Sipa.BOOTCOUNTER, b"\x05" + bytes(7)) + record(Sipa.TRUSTBOUNDARY, inner)
    )
    assert (flag.name, flag.number, flag.parts) == ("bootcounter", 5, ())
    assert boundary.name == "trustboundary"
    assert [part.name for part in boundary.parts] == ["testsigning", "systemroot"]
    assert boundary.parts[1].text == "\\Windows"


def test_a_record_nobody_registered_has_its_number_for_a_name() -> None:
    (unknown,) = parse_sipa(record(0x00051234, b"?"))
    assert unknown.name == "0x00051234"


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"1234567", 0),
        (struct.pack("<II", 1, 1), 4),
        (struct.pack("<II", 1, 0xFFFFFFFF), 4),
        (record(Sipa.TRUSTBOUNDARY, b"short"), 8),
        (record(Sipa.TRUSTBOUNDARY, struct.pack("<II", 1, 9) + b"12345678"), 12),
        (record(1, b"") * (MAX_RECORDS + 1), MAX_RECORDS * 8),
    ],
)
def test_sizes_that_lie_are_refused_where_they_stand(data: bytes, offset: int) -> None:
    with pytest.raises(MalformedInputError) as raised:
        parse_sipa(data)
    assert raised.value.offset == offset


def test_containers_nest_only_so_deep() -> None:
    nested = record(1, b"")
    for _ in range(MAX_DEPTH - 1):
        nested = record(Sipa.TRUSTBOUNDARY, nested)
    parse_sipa(nested)
    with pytest.raises(MalformedInputError, match="levels"):
        parse_sipa(record(Sipa.TRUSTBOUNDARY, nested))


def test_a_code_integrity_policy_has_a_name() -> None:
    name = "{A244370E}\0".encode("utf-16-le")
    payload = struct.pack("<QHHI", 1, len(name), 0x800C, 32) + name + bytes(32)
    assert parse_si_policy(payload) == "{A244370E}"
    with pytest.raises(MalformedInputError):
        parse_si_policy(payload[:18])


def test_how_bitlocker_unlocked_a_volume_is_named() -> None:
    assert unlock_flags(0) == frozenset()
    assert unlock_flags(0x14) == {"tpm", "pin"}
    assert unlock_flags(0x40) == {"recovery"}
    assert unlock_flags(0x8001) == {"cached", "0x8000"}


@pytest.mark.parametrize("name", LOGS)
def test_every_tagged_event_of_a_real_windows_log_decodes(name: str) -> None:
    log = parse_event_log(shared_path(f"corpus/{name}").read_bytes())
    tagged = [
        event
        for event in log.events
        if event.event_type == EventType.EV_EVENT_TAG and event.pcr in (12, 13, 14)
    ]
    assert len(tagged) >= 6
    for event in tagged:
        for boundary in parse_sipa(event.data):
            assert boundary.name in ("trustboundary", "authoritypubkey")
            assert all(not part.name.startswith("0x") for part in boundary.parts)
