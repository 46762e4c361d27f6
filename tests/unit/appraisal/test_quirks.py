"""Logs that do not replay: which PCR, after which event, which quirk; and what a toleration makes believed."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import SHARED, shared_path
from tests.deviant import NO_ACTION, Case, Deviants, event, written
from tests.event_logs import CORPUS, Boot, Pcrs, boots, corpus_logs, pcrs_of, read_boot
from verifier.appraisal.boot.deviation import BUDGET, Budget
from verifier.appraisal.boot_facts import BoundBoot, bind_log
from verifier.claims import BootFacts
from verifier.errors import EvidenceError
from verifier.quirks import Certainty, Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import MAX_EVENTS, extend_all, initial_value, parse_event_log, replay

SHA1, SHA256 = HashAlg.SHA1, HashAlg.SHA256
BANKS = ((SHA256,), (SHA1, SHA256))
CAPTURED = {boot.name: boot.log for boot in boots() if boot.name in ("grub-sb-on", "uki-sb-on", "uki-sb-off")}


def sources() -> dict[str, bytes]:
    """Captured logs, and every log of the corpus that has all its digests."""
    found = dict(CAPTURED)
    for log in corpus_logs():
        if log.kind == "eventlog-agile":
            try:
                usable = Deviants(log.data).usable
            except EvidenceError:
                continue
            if usable:
                found[log.file] = log.data
    return found


SOURCES = sources()


@functools.cache
def cases(name: str, banks: tuple[HashAlg, ...]) -> tuple[Case, ...]:
    deviants = Deviants(SOURCES[name], banks)
    return tuple(deviants.all()) if deviants.usable else ()


def bind(case: Case, *tolerated: Quirk) -> BoundBoot:
    log = parse_event_log(case.log, allow_cut=True)
    leave = frozenset((quirk, pcr) for quirk in tolerated for pcr in case.pcrs)
    return bind_log(case.log, log, case.quoted, None, tolerated=leave)


def facts(bound: BoundBoot) -> BootFacts:
    assert bound.facts is not None
    return bound.facts


every_source = pytest.mark.parametrize("name", SOURCES)
a_few_sources = pytest.mark.parametrize("name", [*CAPTURED, *list(SOURCES)[len(CAPTURED) :: 6]])
in_each_bank = pytest.mark.parametrize("banks", BANKS, ids=["sha256", "both"])


@every_source
@in_each_bank
def test_each_deviation_is_told_by_name_with_its_pcr_and_event(name: str, banks: tuple[HashAlg, ...]) -> None:
    for case in cases(name, banks):
        mismatches = bind(case).mismatches
        told = {each.pcr: (each.quirk, each.after_event) for each in mismatches}
        assert told == {pcr: (case.quirk, after) for pcr, after in case.pcrs.items()}, case.name
        assert {each.bank for each in mismatches} <= set(banks)
        assert all(each.diagnosis.text for each in mismatches)


@a_few_sources
@in_each_bank
def test_without_leave_nothing_of_such_a_pcr_is_believed(name: str, banks: tuple[HashAlg, ...]) -> None:
    for case in cases(name, banks):
        found = facts(bind(case))
        assert case.pcrs.keys() <= set(found.unlogged_pcrs), case.name
        assert not any(fact.digests for fact in found.events if fact.pcr in case.pcrs)
        others = [quirk for quirk in Quirk if quirk is not case.quirk]
        assert facts(bind(case, *others)) == found, "leave for another quirk is no leave"


@a_few_sources
@in_each_bank
def test_with_leave_exactly_what_the_value_proves_is_believed(name: str, banks: tuple[HashAlg, ...]) -> None:
    for case in cases(name, banks):
        bound = bind(case, case.quirk)
        found = facts(bound)
        if not case.believed:
            assert found == facts(bind(case)), case.name
            continue
        assert not set(found.unlogged_pcrs) & case.pcrs.keys(), case.name
        assert all(each.repaired for each in bound.mismatches)
        for pcr in case.pcrs:
            for bank in banks:
                start = initial_value(pcr, bank, found.startup_locality or 0)
                kept = [fact.digests[bank] for fact in found.events if fact.pcr == pcr and fact.digests]
                assert leads_to(start, kept, bank, case), case.name


def leads_to(start: bytes, kept: list[bytes], bank: HashAlg, case: Case) -> bool:
    """Whether the believed events, and nothing before or between them, lead to the quoted value."""
    value = extend_all(start, kept, bank)
    goals = {case.quoted[bank][pcr] for pcr in case.pcrs}
    if case.quirk is Quirk.BANK_CAPPED:
        value = extend_all(value, [bytes(bank.size)], bank)
    if case.quirk is Quirk.EXIT_BOOT_SERVICES_UNLOGGED:
        return any(value_after(value, bank, many) & goals for many in range(1, 5))
    return value in goals


def value_after(value: bytes, bank: HashAlg, many: int) -> set[bytes]:
    from verifier.appraisal.boot.deviation import EXIT_STRINGS

    reached = {value}
    for _ in range(many):
        reached = {extend_all(each, [bank.digest(text)], bank) for each in reached for text in EXIT_STRINGS}
    return reached


# --- every log of the corpus with the PCRs it came with

NAMED = {
    "google_go-attestation/ebs_event_missing_eventlog": {("sha1", 5): Quirk.EXIT_BOOT_SERVICES_UNLOGGED},
    "immune-gmbh_guard-oss/evidence/dl160-fwupd-report.eventlog.bin": {
        ("sha1", 0): Quirk.FIRMWARE_PCR0,
        ("sha256", 0): Quirk.FIRMWARE_PCR0,
    },
    "immune-gmbh_guard-oss/evidence/hahuri-invalid-eventlog.eventlog.bin": {
        ("sha1", 11): Quirk.EXTENDED_AFTER_LOG,
        ("sha256", 11): Quirk.EXTENDED_AFTER_LOG,
    },
    "immune-gmbh_guard-oss/evidence/t480s.eventlog.bin": {
        **{("sha1", pcr): Quirk.BANK_CAPPED for pcr in (0, 1, 2, 3, 4, 5, 6, 7, 12, 13)},
        ("sha1", 11): Quirk.BANK_DIGESTS_WRONG,
        ("sha1", 14): Quirk.BANK_DIGESTS_WRONG,
    },
}
"""What the corpus has of logs that do not replay, all of it. Everything else replays in every bank."""


def stated() -> Iterator[tuple[str, Pcrs]]:
    """Logs of the corpus that came with PCR values, by whoever published them; CCEL registers by their index."""
    by_file = {log.file: log for log in corpus_logs()}
    for path in sorted(CORPUS.glob("*/**/*.json")):
        name = str(path.relative_to(CORPUS))
        for ending in (".expected.json", ".min.json", ".json"):
            stem = name.removesuffix(ending)
            for candidate in (
                stem,
                *(f"{stem}.{end}" for end in ("eventlog.bin", "bios_measurements", "bin")),
            ):
                if name.endswith(ending) and candidate in by_file:
                    document = json.loads(path.read_text())
                    pcrs = document.get("pcrs") if isinstance(document, dict) else None
                    if isinstance(pcrs, dict) and any(pcrs.values()):
                        yield candidate, pcrs_of(pcrs)
    registers = CORPUS / "confidential-containers_trustee" / "CCEL.expected.json"
    if registers.exists():
        for name, values in json.loads(registers.read_text())["sha384"].items():
            numbered = {int(rtmr.removeprefix("rtmr")) + 1: bytes.fromhex(v) for rtmr, v in values.items()}
            yield f"{registers.parent.name}/{name}", {HashAlg.SHA384: numbered}
    plain = CORPUS / "nsacyber_HIRS" / "tcgeventlog" / "TpmLogExpectedPcrs.txt"
    if plain.exists():
        yield (
            "nsacyber_HIRS/TpmLog.bin",
            {SHA256: dict(enumerate(map(bytes.fromhex, plain.read_text().split())))},
        )


STATED = dict(stated())
CAPTURES_SHARED = [path.parent for path in sorted(SHARED.glob("evidence/*/binary_bios_measurements"))]


def test_the_corpus_states_pcrs_of_many_logs() -> None:
    shared_path("corpus/MANIFEST.tsv")
    assert len(STATED) >= 25
    assert NAMED.keys() <= STATED.keys()


@pytest.mark.parametrize("file", STATED or [None])
def test_a_log_of_the_corpus_replays_or_has_its_named_quirk(file: str | None) -> None:
    if file is None:
        shared_path("corpus/VALIDATION_eventlogs.tsv")
    assert file is not None
    data = (CORPUS / file).read_bytes()
    log = parse_event_log(data)
    values = {bank: pcrs for bank, pcrs in STATED[file].items() if bank in log.algorithms}
    bound = bind_log(data, log, values, None)
    assert {(each.bank.label, each.pcr): each.quirk for each in bound.mismatches} == NAMED.get(file, {})


@pytest.mark.parametrize("folder", CAPTURES_SHARED or [None], ids=lambda path: path and path.name)
def test_every_captured_boot_replays_in_both_banks(folder: Path | None) -> None:
    if folder is None:
        shared_path("evidence/README.md")
    assert folder is not None
    captured = read_boot(folder)
    log = parse_event_log(captured.log)
    assert bind_log(captured.log, log, captured.quoted(SHA1, SHA256), None).mismatches == ()


# --- logs that end inside an event


@pytest.mark.parametrize("boot", boots()[:2], ids=lambda boot: boot.name)
def test_a_log_cut_anywhere_is_read_up_to_the_cut(boot: Boot) -> None:
    whole = parse_event_log(boot.log)
    starts = [event.offset for event in whole.events]
    for length in range(starts[1] + 1, len(boot.log), 11):
        kept = [place for place, start in enumerate(starts) if start < length]
        cut = parse_event_log(boot.log[:length], allow_cut=True)
        ends = [*starts[1:], whole.size]
        if length in ends:
            assert cut.cut_at is None
            assert cut.events == whole.events[: len(kept)]
        elif any(boot.log[starts[kept[-1]] : length]):
            assert cut.cut_at == starts[kept[-1]]
            assert cut.events == whole.events[: len(kept) - 1]
            assert Quirk.PADDED not in cut.quirks


def test_pcrs_whose_events_are_all_there_are_believed_in_spite_of_the_cut() -> None:
    deviants = Deviants(CAPTURED["grub-sb-on"])
    last = deviants.events[-1]
    cut = deviants.data[: last.offset + 20]
    bound = bind_log(cut, parse_event_log(cut, allow_cut=True), deviants.true, None)
    assert set(facts(bound).unlogged_pcrs) == {last.pcr}
    assert facts(bound).secure_boot.enabled is True


# --- what a forger could want of a toleration


def test_taking_a_separator_away_makes_no_late_event_early() -> None:
    """The system extends a Secure Boot variable of its own, and hides firmware's separator in the log."""
    deviants = Deviants(CAPTURED["uki-sb-off"])
    honest = next(e for e in deviants.events if b"S\0e\0c\0u\0r\0e\0B\0o\0o\0t\0" in e.data and e.pcr == 7)
    late = event(deviants.log, 7, honest.event_type, honest.data[:-1] + b"\1")
    true = [*deviants.events, late]
    forged = [e for e in true if not (e.pcr == 7 and e.event_type == EventType.EV_SEPARATOR)]
    from tests.deviant import quoted

    log = written(deviants.log, forged)
    leave = {(quirk, pcr) for quirk in Quirk for pcr in range(24)}
    bound = bind_log(log, parse_event_log(log), quoted(deviants.log, true, (SHA256,)), None, tolerated=leave)
    assert [(each.pcr, each.quirk) for each in bound.mismatches] == [(7, Quirk.EVENT_UNLOGGED)]
    assert facts(bound).secure_boot.enabled is None
    assert 7 in facts(bound).unlogged_pcrs


@pytest.mark.parametrize("name", CAPTURED)
def test_no_edited_event_is_believed_whatever_is_tolerated(name: str) -> None:
    """Every quirk tolerated everywhere, and one digest of the log is not what was extended."""
    deviants = Deviants(CAPTURED[name])
    leave = frozenset((quirk, pcr) for quirk in Quirk for pcr in range(24))
    for place in deviants.measured:
        lie = event(deviants.log, deviants.events[place].pcr, EventType.EV_EFI_ACTION, b"something else")
        log = written(deviants.log, [*deviants.events[:place], lie, *deviants.events[place + 1 :]])
        bound = bind_log(log, parse_event_log(log), deviants.true, None, tolerated=leave)
        fact = facts(bound).events[place]
        assert not fact.digests, place
        assert fact.text is None


def test_a_repair_must_hold_in_every_bank() -> None:
    """SHA-1 replays only without an event that SHA-256 proves: neither story is the whole truth."""
    deviants = Deviants(CAPTURED["grub-sb-on"], (SHA1, SHA256))
    place = deviants.of(4)[-1]
    fewer = [one for number, one in enumerate(deviants.events) if number != place]
    from tests.deviant import quoted

    values = {**deviants.true, SHA1: quoted(deviants.log, fewer, (SHA1,))[SHA1]}
    leave = frozenset((quirk, 4) for quirk in Quirk)
    bound = bind_log(deviants.data, deviants.log, values, None, tolerated=leave)
    assert [(each.bank, each.pcr, each.repaired) for each in bound.mismatches] == [(SHA1, 4, False)]
    assert 4 in facts(bound).unlogged_pcrs


def test_boot_phases_behind_a_repair_are_not_left_untold() -> None:
    """PCR 11 went on after the log, and the log has a record too many: `no phases` would be a false claim."""
    deviants = Deviants(CAPTURED["uki-sb-on"])
    extra = event(deviants.log, 11, EventType.EV_IPL, b"never extended")
    log = written(deviants.log, [*deviants.events, extra])
    value = extend_all(
        deviants.true[SHA256][11], [SHA256.digest(w) for w in (b"enter-initrd", b"ready")], SHA256
    )
    values = {SHA256: {**deviants.true[SHA256], 11: value}}
    leave = frozenset((quirk, 11) for quirk in Quirk)
    bound = bind_log(log, parse_event_log(log), values, None, tolerated=leave)
    (mismatch,) = bound.mismatches
    assert (mismatch.quirk, mismatch.after_event) == (Quirk.EXTRA_TAIL_EVENTS, deviants.of(11)[-1])
    assert not mismatch.repaired
    assert 11 in facts(bound).unlogged_pcrs


def test_contradicting_data_fits_no_quirk() -> None:
    deviants = Deviants(CAPTURED["grub-sb-on"])
    place = next(
        p for p in deviants.of(7) if deviants.events[p].event_type == EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
    )
    lie = deviants.events[place]._replace(
        digests=tuple(bank.digest(b"lie") for bank in deviants.log.algorithms)
    )
    log = written(deviants.log, [*deviants.events[:place], lie, *deviants.events[place + 1 :]])
    (mismatch,) = bind_log(log, parse_event_log(log), deviants.true, None).mismatches
    assert (mismatch.pcr, mismatch.quirk, mismatch.after_event) == (7, None, place)


# --- order and cost


def test_the_pcr_that_diverges_first_comes_first() -> None:
    deviants = Deviants(CAPTURED["grub-sb-on"])
    extra = [event(deviants.log, pcr, EventType.EV_EFI_ACTION, b"x") for pcr in (9, 4)]
    middle = deviants.of(7)[2]
    lie = event(deviants.log, 7, EventType.EV_EFI_ACTION, b"x")
    log = written(deviants.log, [*deviants.events[:middle], lie, *deviants.events[middle:], *extra])
    bound = bind_log(log, parse_event_log(log), deviants.true, None)
    places = [mismatch.diagnosis.at_event for mismatch in bound.mismatches]
    assert [mismatch.pcr for mismatch in bound.mismatches] == [7, 9, 4]
    assert places == sorted(places)


@pytest.mark.parametrize("pcr", [5, 8, 11])
def test_a_hostile_log_costs_a_bounded_number_of_hashes(pcr: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many events as a log may have, all alike, in one PCR; and a few hundred, where the search begins."""
    spent = []
    spend = Budget.spend

    def counting(self: Budget, extends: int) -> bool:
        allowed = spend(self, extends)
        spent.append(extends if allowed else 0)
        return allowed

    monkeypatch.setattr(Budget, "spend", counting)
    deviants = Deviants(CAPTURED["grub-sb-on"])
    for many in (300, MAX_EVENTS - 100):
        alike = [event(deviants.log, pcr, EventType.EV_EFI_ACTION, b"x")] * many
        log = written(deviants.log, [*deviants.events, *alike])
        values = {SHA256: {**deviants.true[SHA256], pcr: bytes(31) + b"\1"}}
        spent.clear()
        (mismatch,) = bind_log(log, parse_event_log(log), values, None).mismatches
        assert mismatch.pcr == pcr
        assert sum(spent) <= BUDGET


def test_a_log_that_replays_is_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("diagnosed although it replays")

    monkeypatch.setattr("verifier.appraisal.boot.explain.diagnose", fail)
    deviants = Deviants(CAPTURED["grub-sb-on"])
    assert not bind_log(deviants.data, deviants.log, deviants.true, None).mismatches


def test_every_quirk_that_can_be_told_of_a_pcr_is_made_by_the_generator() -> None:
    made = {case.quirk for name in CAPTURED for banks in BANKS for case in cases(name, banks)}
    told = {q for q in Quirk if q.entry.tolerable and not q.entry.of_whole_log}
    assert told - made == {Quirk.BANK_DIGESTS_WRONG}, "which the corpus has"
    assert {case.quirk for name in CAPTURED for case in cases(name, BANKS[0]) if case.believed} == {
        q for q in told if q.entry.certainty is Certainty.REPAIRED
    }


def test_a_padded_locality_record_is_read_and_anything_else_behind_it_is_not() -> None:
    deviants = Deviants(CAPTURED["grub-sb-on"])
    for tail, locality in ((b"\3" + bytes(40), 3), (b"\3" + bytes(5) + b"\1", None), (b"", None)):
        record = event(deviants.log, 0, NO_ACTION, b"StartupLocality\0" + tail)
        log = parse_event_log(written(deviants.log, [deviants.events[0], record, *deviants.events[1:]]))
        assert log.locality == locality
        assert (Quirk.STARTUP_LOCALITY_PADDED in log.quirks) == (locality is not None)
        start = initial_value(0, SHA256, locality or 0)
        digests = [
            e.digests[log.algorithms.index(SHA256)]
            for e in log.events
            if e.pcr == 0 and e.event_type != NO_ACTION
        ]
        assert replay(log, SHA256)[0] == extend_all(start, digests, SHA256)


def test_names_are_no_facts() -> None:
    case = next(c for c in cases("grub-sb-on", (SHA256,)) if c.quirk is Quirk.VMWARE_PCR0)
    found = facts(bind(case))
    assert found.quirks == ((0, Quirk.VMWARE_PCR0),)
    assert replace(found, quirks=()).unlogged_pcrs == (0,)
