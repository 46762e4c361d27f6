"""Boot logs under mutation: a result or the one typed error; and no edit of a log ever makes a fact better."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import shared_path
from tests.event_logs import Boot, boots, corpus_logs, pcrs_of
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.event_data import describe
from verifier.appraisal.eventlog_report import explain_log
from verifier.claims import Authority, Binding, BootFacts, EventFact, SecureBootFacts
from verifier.errors import EvidenceError, MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import Event, ParsedEventLog, parse_event_log, replay
from verifier.tcg.preimage import parts, whole

SHA256 = HashAlg.SHA256
BOOTS = boots()
SEEDS = [boot.log for boot in BOOTS[:3]] + [
    log.data for log in corpus_logs() if log.kind in ("eventlog-sha1", "eventlog-ccel") and log.data
][:4]
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NEVER_COVERED = {
    EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
    EventType.EV_EFI_BOOT_SERVICES_DRIVER,
    EventType.EV_EFI_RUNTIME_SERVICES_DRIVER,
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB,
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2,
}


# --- any bytes at all


def parses_or_refuses(data: bytes) -> None:
    started = time.perf_counter()
    try:
        log = parse_event_log(data)
    except MalformedInputError as refusal:
        assert refusal.offset is not None
        assert 0 <= refusal.offset <= len(data)
    except EvidenceError:
        pass
    else:
        assert all(event.offset < len(data) for event in log.events)
        for bank in log.algorithms:
            replay(log, bank)
        explain_log(data)
    assert time.perf_counter() - started < 30.0, "a hang, whatever else the machine is doing"


@RELAXED
@given(data=st.binary(max_size=400))
@example(data=b"")
@example(data=b"\xff" * 64)
@example(data=bytes(64))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    parses_or_refuses(data)
    parses_or_refuses(BOOTS[0].log[:69] + data)


@RELAXED
@given(data=st.data())
def test_damaged_logs_are_refused_or_read(data: st.DataObject) -> None:
    log = bytearray(data.draw(st.sampled_from(SEEDS))[:20_000])
    for _ in range(data.draw(st.integers(1, 4))):
        if not log:
            break
        place = data.draw(st.integers(0, len(log) - 1))
        edit = data.draw(st.sampled_from(["byte", "word", "cut", "grow", "drop"]))
        if edit == "byte":
            log[place] = data.draw(st.integers(0, 255))
        elif edit == "word":
            value = data.draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0]))
            log[place : place + 4] = struct.pack("<I", value)
        elif edit == "grow":
            log[place:place] = data.draw(st.binary(max_size=40))
        elif edit == "drop":
            del log[place : place + data.draw(st.integers(1, 40))]
        else:
            del log[max(place, 1) :]
    parses_or_refuses(bytes(log))


@RELAXED
@given(
    event_type=st.sampled_from([*EventType, 0xDEADBEEF]),
    seed=st.sampled_from([event for log in SEEDS[:3] for event in parse_event_log(log).events]),
    data=st.data(),
)
def test_the_data_of_any_event_is_described_or_its_fault_is_named(
    event_type: int, seed: Event, data: st.DataObject
) -> None:
    content = bytearray(seed.data)
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    for candidate in (bytes(content), cut):
        assert isinstance(describe(event_type, candidate), dict)
        rule = whole(event_type)
        if rule is not None:
            rule(candidate)
        assert all(covered in candidate + b"\0" for covered, _ in parts(event_type, candidate))


def test_binding_a_log_takes_less_than_ten_times_its_size_in_memory() -> None:
    for boot in BOOTS:
        log = parse_event_log(boot.log)
        bind_log(boot.log, log, boot.quoted(), boot.command_line)
        tracemalloc.start()
        bind_log(boot.log, log, boot.quoted(), boot.command_line)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 * len(boot.log)


# --- edited logs against the quote of the true boot


def facts(boot: Boot, log: ParsedEventLog) -> BootFacts:
    bound = bind_log(boot.log, log, boot.quoted(), boot.command_line)
    assert bound.facts is not None
    return bound.facts


def edited(log: ParsedEventLog, position: int, **changes: object) -> ParsedEventLog:
    events = list(log.events)
    events[position] = events[position]._replace(**changes)
    return replace(log, events=tuple(events))


def no_better(honest: BootFacts, forged: BootFacts) -> None:
    """Every fact of the forged log is one of the honest log, or was lost."""
    for field in SecureBootFacts.__dataclass_fields__:
        assert getattr(forged.secure_boot, field) in (None, getattr(honest.secure_boot, field)), field
    assert forged.kernel_command_line in (None, honest.kernel_command_line)
    assert forged.startup_locality == honest.startup_locality
    assert forged.boot_phases == honest.boot_phases
    assert set(honest.unlogged_pcrs) <= set(forged.unlogged_pcrs)
    for was, now in zip(honest.events, forged.events, strict=True):
        assert now.digests == was.digests
        assert now.name in (None, was.name)
        assert now.text in (None, was.text) or proves(now)


def details_no_better(honest: BootFacts, forged: BootFacts) -> None:
    """What claims to be complete is whole or gone; what need not be complete has nothing new."""
    was, now = honest.details, forged.details
    assert was is not None
    assert now is not None
    assert was.authorities is not None or now.authorities is None
    if was.authorities is not None and now.authorities is not None:
        assert entries(now.authorities) >= entries(was.authorities)
    for name in (
        "firmware_actions",
        "shim_states",
        "sbat_level",
        "grub_commands",
        "loader_lines",
    ):
        assert getattr(now, name) in (None, getattr(was, name)), name
    for name in ("firmware_version", "boot_order", "disk_guid", "windows"):
        assert getattr(now, name) in (None, getattr(was, name)), name
    assert now.databases.items() <= was.databases.items()
    assert now.uki_sections.items() <= was.uki_sections.items()
    assert set(now.partitions) in (set(), set(was.partitions))
    assert {entry.description for entry in now.boot_entries} <= {
        entry.description for entry in was.boot_entries
    }
    assert {entry.name for entry in now.boot_entries} <= {None, *(entry.name for entry in was.boot_entries)}
    measured = [image.event_index for image in now.images]
    assert set(measured) >= {image.event_index for image in was.images}
    assert now.mok_list_trusted == was.mok_list_trusted


def entries(authorities: Iterable[Authority]) -> set[tuple[int, bytes]]:
    return {(authority.event_index, authority.entry_sha256) for authority in authorities}


def proves(fact: EventFact) -> bool:
    """Another label may cut the same covered bytes differently; what is shown must still be what was hashed."""
    assert fact.text is not None
    texts = {
        fact.text,
        fact.text + "\0",
        bytes.fromhex(fact.text).decode("latin-1") if is_hex(fact.text) else "",
    }
    encodings = {
        text.encode(encoding)
        for text in texts
        for encoding in ("utf-8", "utf-16-le", "latin-1")
        if latin(text)
    }
    return any(SHA256.digest(value) == fact.digests[SHA256] for value in encodings)


def is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(char in "0123456789abcdef" for char in text)


def latin(text: str) -> bool:
    return all(ord(char) < 256 for char in text)


def forgeries(data: bytes, donor: bytes) -> list[bytes]:
    flipped = bytes([data[0] ^ 0xFF]) + data[1:] if data else b"\x01"
    tail = data[:-1] + bytes([data[-1] ^ 0x01]) if data else b"\0"
    secure = data.replace(b"\0" * 1, b"\x01")
    texts = [
        b"kernel_cmdline: good\0",
        b"grub_cmd: linux good\0",
        b"grub_cmd: " + data,
        b"grub_cmd " + data + b"\0",
    ]
    return [b"", flipped, tail, data + b"\0", donor, secure, *texts]


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_edited_data_with_an_unchanged_digest_makes_no_fact_better(boot: Boot) -> None:
    log = parse_event_log(boot.log)
    honest = facts(boot, log)
    donors = [event.data for event in log.events]
    for position, event in enumerate(log.events):
        for data in forgeries(event.data, donors[(position * 7 + 3) % len(donors)]):
            if event.event_type == EventType.EV_NO_ACTION:
                continue  # unmeasured: see the test of forged localities
            forged = facts(boot, edited(log, position, data=data))
            no_better(honest, forged)
            details_no_better(honest, forged)
            if honest.events[position].binding is Binding.UNBOUND and event.event_type in NEVER_COVERED:
                assert forged == honest


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_an_edited_label_of_an_unbound_event_changes_nothing_at_all(boot: Boot) -> None:
    log = parse_event_log(boot.log)
    honest = facts(boot, log)
    for position, event in enumerate(log.events):
        if honest.events[position].binding is Binding.UNBOUND and honest.events[position].digests:
            for data in (b"", b"\0", event.data[::-1], b"LOADED_IMAGE::LoadOptions\0"):
                assert facts(boot, edited(log, position, data=data)) == honest


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_an_event_under_another_type_makes_no_fact_better(boot: Boot) -> None:
    log = parse_event_log(boot.log)
    honest = facts(boot, log)
    for position, event in enumerate(log.events):
        if event.event_type == EventType.EV_NO_ACTION:
            continue
        for label in (
            EventType.EV_SEPARATOR,
            EventType.EV_EFI_ACTION,
            EventType.EV_IPL,
            EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
            EventType.EV_EFI_VARIABLE_AUTHORITY,
            EventType.EV_EFI_VARIABLE_BOOT,
            EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
        ):
            forged = facts(boot, edited(log, position, event_type=int(label)))
            flags = ("enabled", "setup_mode", "audit_mode", "deployed_mode")
            for flag in flags:
                said = getattr(forged.secure_boot, flag)
                assert said in (None, getattr(honest.secure_boot, flag)), (position, label)
            assert forged.kernel_command_line in (None, honest.kernel_command_line)
            details_no_better(honest, forged)
            for now in forged.events:
                assert (
                    now.name is None or now.name in {fact.name for fact in honest.events} or proven_name(now)
                )


def windows_boot() -> Boot:
    path = shared_path("corpus/immune-gmbh_guard-oss/evidence/t480s.eventlog.bin")
    document = json.loads(path.with_name("t480s.min.json").read_text())
    return Boot("t480s", path.read_bytes(), pcrs_of(document["pcrs"]), "")


def test_an_edited_or_relabelled_windows_event_makes_no_fact_better() -> None:
    boot = windows_boot()
    log = parse_event_log(boot.log)
    honest = facts(boot, log)
    assert honest.details is not None
    assert honest.details.windows is not None
    for position, event in enumerate(log.events):
        if event.event_type == EventType.EV_NO_ACTION:
            continue
        for data in forgeries(event.data, log.events[(position + 1) % len(log.events)].data):
            details_no_better(honest, facts(boot, edited(log, position, data=data)))
        for label in (EventType.EV_EFI_ACTION, EventType.EV_SEPARATOR, EventType.EV_EFI_VARIABLE_BOOT):
            details_no_better(honest, facts(boot, edited(log, position, event_type=int(label))))


def proven_name(fact: EventFact) -> bool:
    """A name that only a matching digest can give."""
    return fact.binding is Binding.BOUND


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_an_edited_digest_is_a_mismatch_and_takes_every_fact_of_its_pcr(boot: Boot) -> None:
    log = parse_event_log(boot.log)
    column = log.algorithms.index(SHA256)
    for position, event in enumerate(log.events):
        if event.event_type == EventType.EV_NO_ACTION:
            continue
        digests = list(event.digests)
        digests[column] = SHA256.digest(digests[column])
        bound = bind_log(
            boot.log, edited(log, position, digests=tuple(digests)), boot.quoted(), boot.command_line
        )
        assert [mismatch.pcr for mismatch in bound.mismatches] == [event.pcr]
        assert bound.facts is not None
        assert all(not fact.digests for fact in bound.facts.events if fact.pcr == event.pcr)


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_dropped_repeated_and_swapped_events_are_mismatches(boot: Boot) -> None:
    log = parse_event_log(boot.log)
    for position in range(1, len(log.events), 3):
        events = list(log.events)
        dropped = events[:position] + events[position + 1 :]
        repeated = [*events[:position], events[position], *events[position:]]
        for forged in (dropped, repeated):
            bound = bind_log(boot.log, replace(log, events=tuple(forged)), boot.quoted(), None)
            assert bound.mismatches
            assert {mismatch.pcr for mismatch in bound.mismatches} == {events[position].pcr}
