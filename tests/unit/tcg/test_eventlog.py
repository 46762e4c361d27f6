"""Boot logs: both formats, exact errors, padding, localities, replay."""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest

from tests.event_logs import CAPTURES, boots
from tests.logs import (
    EV_EFI_ACTION,
    EV_NO_ACTION,
    EV_SEPARATOR,
    Written,
    agile_event,
    agile_log,
    sha1_log,
    spec_id,
)
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.quirks import Quirk
from verifier.tcg import eventlog
from verifier.tcg.algorithms import HASH_BY_ID, HashAlg
from verifier.tcg.event_types import EVENT_TYPE_BY_NAME, EventType, type_name
from verifier.tcg.eventlog import LogFormat, parse_event_log, replay

SHA1, SHA256, SHA384 = HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384
ACTION = Written(4, EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
HEADER = spec_id()


def error(log: bytes) -> MalformedInputError:
    with pytest.raises(MalformedInputError) as raised:
        parse_event_log(log)
    assert raised.value.structure == "TCG event log"
    return raised.value


def locality(value: int, pcr: int = 0) -> Written:
    return Written(pcr, EV_NO_ACTION, b"StartupLocality\0" + bytes([value]))


# --- formats


def test_the_sha1_format_is_a_list_of_events_without_a_spec_id() -> None:
    log = parse_event_log(sha1_log([ACTION, Written(7, EV_SEPARATOR, bytes(4))]))
    assert (log.format, log.spec_id, log.algorithms, log.quirks) == (LogFormat.SHA1, None, (SHA1,), ())
    assert [(event.pcr, event.event_type, event.data) for event in log.events] == [
        (4, EV_EFI_ACTION, ACTION.data),
        (7, EV_SEPARATOR, bytes(4)),
    ]
    assert log.events[0].digests == (SHA1.digest(ACTION.data),)
    assert [event.offset for event in log.events] == [0, 32 + len(ACTION.data)]


def test_a_spec_id_event_of_tpm_1_2_opens_the_sha1_format() -> None:
    body = b"Spec ID Event02\0" + bytes(9)
    log = parse_event_log(sha1_log([Written(0, EV_NO_ACTION, body), ACTION]))
    assert log.format is LogFormat.SHA1
    assert replay(log, SHA1) == {4: SHA1.digest(bytes(20) + SHA1.digest(ACTION.data))}


def test_the_crypto_agile_format_declares_its_banks_first() -> None:
    log = parse_event_log(agile_log([ACTION], (SHA1, SHA256, SHA384)))
    assert log.format is LogFormat.CRYPTO_AGILE
    assert log.algorithms == (SHA1, SHA256, SHA384)
    assert log.spec_id is not None
    assert log.spec_id.version == (2, 0, 0)
    assert log.spec_id.algorithms == ((4, 20), (11, 32), (12, 48))
    header, action = log.events
    assert (header.event_type, header.digests) == (EV_NO_ACTION, (b"", b"", b""))
    assert action.digests == tuple(alg.digest(ACTION.data) for alg in log.algorithms)
    assert log.size == len(agile_log([ACTION], (SHA1, SHA256, SHA384)))


def test_digests_may_stand_in_another_order_than_declared() -> None:
    log = parse_event_log(HEADER + agile_event(ACTION, (SHA256, SHA1)))
    assert log.events[1].digests == (SHA1.digest(ACTION.data), SHA256.digest(ACTION.data))


def test_an_event_may_lack_a_bank_which_then_does_not_replay() -> None:
    log = parse_event_log(HEADER + agile_event(ACTION, (SHA256,)))
    assert log.events[1].digests == (b"", SHA256.digest(ACTION.data))
    assert replay(log, SHA256).keys() == {4}
    assert replay(log, SHA1) == {}


def test_a_declared_algorithm_nobody_knows_is_skipped_and_recorded() -> None:
    header = declaring((0x000B, 32), (0x00F0, 10))
    digests = struct.pack("<H", 0x00F0) + b"?" * 10 + struct.pack("<H", 0x000B) + SHA256.digest(b"x")
    event = struct.pack("<III", 4, EV_EFI_ACTION, 2) + digests + struct.pack("<I", 1) + b"x"
    log = parse_event_log(header + event)
    assert log.unknown_algorithms == ((0x00F0, 10),)
    assert log.algorithms == (SHA256,)
    assert log.events[1].digests == (SHA256.digest(b"x"),)


def test_a_log_of_unknown_algorithms_only_is_unsupported() -> None:
    with pytest.raises(UnsupportedError):
        parse_event_log(declaring((0x00F0, 10)))


def declaring(*algorithms: tuple[int, int], vendor: bytes = b"", counted: bool = True) -> bytes:
    body = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
    body += b"".join(struct.pack("<HH", *pair) for pair in algorithms) + bytes([len(vendor)])
    size = len(body) + (len(vendor) if counted else 0)
    return struct.pack("<II20sI", 0, EV_NO_ACTION, bytes(20), size) + body + vendor


# --- the Spec ID event


def spec_id_with(offset: int, value: bytes) -> bytes:
    return HEADER[:offset] + value + HEADER[offset + len(value) :]


@pytest.mark.parametrize(
    ("log", "offset", "detail"),
    [
        (spec_id_with(53, b"\x01"), 53, "specification version 1.0"),
        (spec_id_with(56, b"\0\0\0\0"), 56, "0 algorithms"),
        (spec_id_with(56, b"\xff\xff\xff\xff"), 56, "4294967295 algorithms"),
        (spec_id_with(56, b"\x10\0\0\0"), 56, "16 algorithms"),
        (spec_id_with(64, struct.pack("<H", 4)), 64, "declared twice"),
        (spec_id_with(62, struct.pack("<H", 21)), 62, "digests of 21 bytes"),
        (spec_id_with(60, struct.pack("<HH", 0xF0, 0)), 62, "digests of 0 bytes"),
        (spec_id_with(68, b"\x05"), 68, "vendorInfoSize 5"),
        (declaring((4, 20), vendor=b"1234") + b"x" * 40, 65 + 4, "PCR index"),
    ],
)
def test_a_malformed_spec_id_event_is_refused_where_the_fault_is(
    log: bytes, offset: int, detail: str
) -> None:
    raised = error(log)
    assert detail in raised.detail
    assert raised.offset == offset


def test_a_spec_id_event_that_is_cut_short_is_refused() -> None:
    for size in range(16, 37):
        body = HEADER[32 : 32 + size]
        raised = error(struct.pack("<II20sI", 0, EV_NO_ACTION, bytes(20), size) + body)
        assert raised.offset is not None
        assert raised.offset <= 32 + size


def test_vendor_information_is_kept() -> None:
    log = parse_event_log(declaring((11, 32), vendor=b"acme") + agile_event(ACTION, (SHA256,)))
    assert log.spec_id is not None
    assert log.spec_id.vendor_info == b"acme"
    assert len(log.events) == 2
    assert log.quirks == ()


def test_vendor_information_behind_the_events_size_is_a_named_quirk() -> None:
    log = parse_event_log(declaring((11, 32), vendor=b"acme", counted=False) + agile_event(ACTION, (SHA256,)))
    assert log.quirks == (Quirk.SPEC_ID_SIZE_OMITS_VENDOR_INFO,)
    assert log.events[1].data == ACTION.data


# --- hostile and damaged logs


EVENT = len(HEADER)
"""Offset of the first event behind the header."""


def raw_event(pcr: int = 4, count: int = 2, first: int = 4, second: int = 11, size: int = 0) -> bytes:
    digests = struct.pack("<H", first) + bytes(20) + struct.pack("<H", second) + bytes(32)
    return HEADER + struct.pack("<III", pcr, EV_EFI_ACTION, count) + digests + struct.pack("<I", size) + b"!"


@pytest.mark.parametrize(
    ("log", "offset", "detail"),
    [
        (b"", 0, "needs 32 bytes, 0 are here"),
        (b"\x01" * 31, 31, "31 are here"),
        (struct.pack("<II20sI", 0, 1, bytes(20), 0xFFFFFFFF), 28, "event size 4294967295"),
        (struct.pack("<II20sI", 0, 1, bytes(20), 1), 28, "event size 1"),
        (struct.pack("<II20sI", 24, 1, b"\1" * 20, 0), 0, "PCR index 24"),
        (sha1_log([ACTION]) + b"tail", 32 + len(ACTION.data), "4 are left"),
        (raw_event(), EVENT + 72, "an event needs 12 bytes, 1 are left"),
        (raw_event(size=2), EVENT + 68, "event size 2 exceeds the 1 bytes left"),
        (raw_event(size=0xFFFFFFFF), EVENT + 68, "event size 4294967295"),
        (raw_event(pcr=24), EVENT, "PCR index 24"),
        (raw_event(pcr=0xFFFFFFFF), EVENT, "PCR index 4294967295"),
        (raw_event(count=0), EVENT + 8, "0 digests"),
        (raw_event(count=3), EVENT + 8, "3 digests"),
        (raw_event(count=0xFFFFFFFF), EVENT + 8, "4294967295 digests"),
        (raw_event(first=12), EVENT + 12, "0x000c is not declared"),
        (raw_event(second=4), EVENT + 34, "0x0004 is repeated"),
        (raw_event()[: EVENT + 13], EVENT + 12, "ends inside a digest"),
        (raw_event()[: EVENT + 50], EVENT + 36, "a digest needs 32 bytes, 14 are left"),
        (raw_event(second=0x1234)[: EVENT + 69], EVENT + 34, "0x1234 is not declared"),
        (raw_event()[: EVENT + 69] + b"\1", EVENT + 68, "ends before the event size"),
    ],
)
def test_a_malformed_log_names_the_byte_and_the_value(log: bytes, offset: int, detail: str) -> None:
    raised = error(log)
    assert detail in raised.detail
    assert raised.offset == offset


def test_a_log_cut_anywhere_but_between_events_is_refused() -> None:
    log = boots()[0].log
    ends = {event.offset for event in parse_event_log(log).events} | {len(log)}
    for cut in range(1, len(log), 7):
        if cut in ends:
            assert len(parse_event_log(log[:cut]).events) < len(parse_event_log(log).events)
            continue
        if cut - max(end for end in ends if end < cut) < 4:
            continue  # the first bytes of the next event may be zeros, which is padding
        assert 0 <= (error(log[:cut]).offset or 0) <= cut


def test_a_log_above_the_limit_is_refused_before_it_is_read() -> None:
    log = agile_log([ACTION])
    parse_event_log(log, limit=len(log))
    with pytest.raises(MalformedInputError, match="at most"):
        parse_event_log(log, limit=len(log) - 1)


@pytest.mark.parametrize("log", [sha1_log, agile_log])
def test_more_events_than_any_machine_has_are_refused(log: object) -> None:
    many = log([Written(1, 1, b"")] * 50)  # type: ignore[operator]
    one = log([Written(1, 1, b"")])  # type: ignore[operator]
    event = many[len(one) : len(one) + (len(many) - len(one)) // 49]
    assert "more than" in error(one + event * eventlog.MAX_EVENTS).detail


def test_neither_time_nor_memory_explodes_on_a_log_of_empty_events() -> None:
    """Zeroed events look like padding until the very last byte."""
    log = bytes(32) * (eventlog.MAX_EVENTS * 4) + b"\x01" + bytes(31)
    tracemalloc.start()
    started = time.perf_counter()
    error(log)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 30.0, "a hang, whatever else the machine is doing"
    assert peak < 10 * len(log)


@pytest.mark.parametrize("captured", boots(), ids=lambda captured: captured.name)
def test_parsing_takes_less_than_ten_times_the_log_in_memory(captured: object) -> None:
    log = captured.log  # type: ignore[attr-defined]
    parse_event_log(log)
    tracemalloc.start()
    parsed = parse_event_log(log)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parsed.events
    assert peak < 10 * len(log)


# --- padding


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
@pytest.mark.parametrize("length", [1, 3, 31, 32, 33, 5000])
@pytest.mark.parametrize("log", [sha1_log([ACTION]), agile_log([ACTION])], ids=["sha1", "agile"])
def test_a_buffer_padded_behind_the_last_event_is_a_named_quirk(
    log: bytes, length: int, filler: bytes
) -> None:
    parsed = parse_event_log(log + filler * length)
    assert parsed.quirks == (Quirk.PADDED,)
    assert parsed.events == parse_event_log(log).events
    assert parsed.size == len(log)


def test_padding_that_is_not_uniform_is_not_padding() -> None:
    error(agile_log([ACTION]) + bytes(100) + b"\x01")


def test_an_event_of_zeros_at_the_end_is_still_an_event() -> None:
    log = parse_event_log(agile_log([ACTION, Written(7, EV_SEPARATOR, bytes(4))]))
    assert (len(log.events), log.quirks) == (3, ())


def test_windows_records_outside_any_pcr_are_kept_and_extend_nothing() -> None:
    record = Written(0xFFFFFFFF, EV_NO_ACTION, b"\x04\0\x01\xc0")
    log = parse_event_log(agile_log([ACTION, record]))
    assert log.events[-1].pcr == eventlog.NO_PCR
    assert replay(log, SHA256).keys() == {4}
    assert parse_event_log(sha1_log([ACTION, record])).events[-1].pcr == eventlog.NO_PCR


# --- replay


def test_replay_extends_in_order_and_skips_no_action() -> None:
    log = parse_event_log(agile_log([ACTION, Written(4, EV_NO_ACTION, b"nothing"), ACTION]))
    for bank in (SHA1, SHA256):
        value = bytes(bank.size)
        for _ in range(2):
            value = bank.digest(value + bank.digest(ACTION.data))
        assert replay(log, bank) == {4: value}


def test_replay_refuses_a_bank_the_log_does_not_have() -> None:
    with pytest.raises(UnsupportedError, match="no sha384 bank"):
        replay(parse_event_log(agile_log([ACTION])), SHA384)


@pytest.mark.parametrize("value", [0, 3, 4])
def test_startup_locality_is_the_last_byte_of_the_first_value_of_pcr_0(value: int) -> None:
    log = parse_event_log(agile_log([locality(value), Written(0, EV_EFI_ACTION, b"x")]))
    assert log.locality == value
    start = bytes(31) + bytes([value])
    assert replay(log, SHA256)[0] == SHA256.digest(start + SHA256.digest(b"x"))


@pytest.mark.parametrize(
    "record",
    [
        locality(7),
        locality(3, pcr=1),
        Written(0, EV_NO_ACTION, b"StartupLocality\0"),
        Written(0, EV_NO_ACTION, b"StartupLocality\0\x03\x03"),
        Written(0, EV_SEPARATOR, b"StartupLocality\0\x03"),
    ],
)
def test_what_is_no_startup_locality_record_is_ignored(record: Written) -> None:
    assert parse_event_log(agile_log([record])).locality is None


def test_only_the_first_startup_locality_counts() -> None:
    assert parse_event_log(agile_log([locality(3), locality(0)])).locality == 3


def test_an_hcrtm_event_starts_pcr_0_at_locality_4() -> None:
    hcrtm = Written(0, EventType.EV_EFI_HCRTM_EVENT, b"HCRTM")
    log = parse_event_log(agile_log([hcrtm]))
    assert log.hcrtm
    assert log.initial_locality == 4
    assert replay(log, SHA256)[0] == SHA256.digest(bytes(31) + b"\x04" + SHA256.digest(b"HCRTM"))
    assert parse_event_log(agile_log([locality(0), hcrtm])).initial_locality == 0


def test_pcrs_of_a_dynamic_launch_start_with_ones() -> None:
    log = parse_event_log(agile_log([Written(17, EV_EFI_ACTION, b"x")]))
    assert replay(log, SHA256)[17] == SHA256.digest(b"\xff" * 32 + SHA256.digest(b"x"))


def test_a_bank_this_build_cannot_hash_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    log = parse_event_log(agile_log([ACTION]))
    monkeypatch.setattr(SHA256, "new", None)
    with pytest.raises(UnsupportedError, match="no sha256"):
        replay(log, SHA256)


@pytest.mark.parametrize("captured", boots(), ids=lambda captured: captured.name)
def test_every_captured_boot_replays_to_its_true_pcrs_in_both_banks(captured: object) -> None:
    parsed = parse_event_log(captured.log)  # type: ignore[attr-defined]
    for bank in (SHA1, SHA256):
        true = captured.pcrs[bank]  # type: ignore[attr-defined]
        assert {pcr: value.hex() for pcr, value in replay(parsed, bank).items()} == {
            pcr: true[pcr].hex() for pcr in replay(parsed, bank)
        }


def test_captures_are_shipped() -> None:
    assert CAPTURES.is_dir()
    assert len(boots()) >= 5


# --- event types


def test_event_types_have_their_registered_names() -> None:
    assert type_name(0x80000001) == "EV_EFI_VARIABLE_DRIVER_CONFIG"
    assert type_name(0x0000040E) == "0x0000040e"
    assert EVENT_TYPE_BY_NAME["EV_IPL"] == 0xD
    assert HASH_BY_ID[0x000B] is SHA256
