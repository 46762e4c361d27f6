"""systemd's log under mutation: a result or the one typed error; and no edit makes a fact of what was not measured."""

from __future__ import annotations

import json
import time
import tracemalloc

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.appraisal.test_userspace import Guest
from tests.userspace import MACHINE_ID
from verifier.appraisal.boot.userspace import Userspace
from verifier.appraisal.boot_facts import bind_log
from verifier.claims import CertifiedIndex
from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.nv import parse_nv_public
from verifier.tcg.userspace_log import UserspaceLog, parse_userspace_log

SHA256 = HashAlg.SHA256
GUEST = Guest.booted(encrypted=True)
RECORDS = GUEST.systemd.records
LOG = GUEST.systemd.log
EVIDENCE = GUEST.evidence()
INDICES = tuple(
    CertifiedIndex(public.handle, public.name, public.name_alg, GUEST.tpm.nv_index(public.handle).value)
    for public in (parse_nv_public(each.public) for each in EVIDENCE.nvpcrs)
)
BOOT = parse_event_log(GUEST.log)
RELAXED = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parsed(data: bytes) -> UserspaceLog | None:
    started = time.perf_counter()
    try:
        log = parse_userspace_log(data)
    except MalformedInputError as refusal:
        assert refusal.offset is not None
        assert 0 <= refusal.offset <= len(data)
        log = None
    assert time.perf_counter() - started < 30.0, "a hang, whatever else the machine is doing"
    return log


def facts(log: UserspaceLog):
    bound = bind_log(GUEST.log, BOOT, EVIDENCE.pcrs, None, Userspace(log, INDICES))
    assert bound.facts is not None
    return bound.facts


HONEST = facts(parse_userspace_log(LOG))


def says_nothing_new(log: UserspaceLog) -> None:
    """Whatever stands in the log: of what is proven, a part of the truth."""
    forged = facts(log)
    true, told = HONEST.details.userspace, forged.details.userspace
    assert told.machine_id in (None, true.machine_id)
    assert told.product_id in (None, true.product_id)
    assert set(told.identity_texts) <= set(true.identity_texts)
    assert told.file_systems in (None, true.file_systems)
    assert set(told.nvpcrs) <= set(true.nvpcrs)
    for name, each in told.nvpcrs.items():
        assert each.value == true.nvpcrs[name].value
        assert each.texts in (None, true.nvpcrs[name].texts)
    assert forged.boot_phases in (None, (), HONEST.boot_phases)
    assert set(HONEST.unlogged_pcrs) <= set(forged.unlogged_pcrs)


@RELAXED
@given(data=st.binary(max_size=400))
@example(data=b"")
@example(data=b"\x1e")
@example(data=b"\x1e\x1e\n\x1e{")
@example(data=b'{"pcr":1}')
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    parsed(data)
    parsed(LOG + data)
    parsed(b"\x1e" + data + LOG)


@RELAXED
@given(edits=st.lists(st.tuples(st.integers(0, len(LOG) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_prove_nothing_that_was_not_measured(edits: list[tuple[int, int]]) -> None:
    changed = bytearray(LOG)
    for place, value in edits:
        changed[place] = value
    log = parsed(bytes(changed))
    if log is not None:
        says_nothing_new(log)


@RELAXED
@given(order=st.lists(st.integers(0, len(RECORDS) - 1), max_size=2 * len(RECORDS)))
def test_dropped_repeated_and_reordered_records_prove_nothing_new(order: list[int]) -> None:
    log = parsed(b"".join(RECORDS[number] for number in order))
    assert log is not None
    says_nothing_new(log)


TEXTS = st.one_of(
    st.sampled_from(
        ["ready", f"machine-id:{MACHINE_ID}", "machine-id:" + "0" * 32, "os-separator", "nvpcr-separator", ""]
    ),
    st.text(max_size=20),
    st.none(),
)


@RELAXED
@given(
    number=st.integers(0, len(RECORDS) - 1),
    text=TEXTS,
    pcr=st.integers(0, 23),
    label=st.sampled_from(["phase", "machine-id", "volume-key", "nvpcr-init", "x"]),
)
def test_relabelled_records_prove_nothing_new(number: int, text: str | None, pcr: int, label: str) -> None:
    document = json.loads(RECORDS[number][1:])
    document["content"] |= {"string": text, "eventType": label}
    if "pcr" in document:
        document["pcr"] = pcr
    changed = b"\x1e" + json.dumps(document).encode() + b"\n"
    log = parsed(b"".join([*RECORDS[:number], changed, *RECORDS[number + 1 :]]))
    assert log is not None
    says_nothing_new(log)


@RELAXED
@given(kept=st.integers(0, len(LOG)))
def test_a_log_cut_anywhere_is_the_log_of_an_earlier_moment(kept: int) -> None:
    log = parsed(LOG[:kept])
    assert log is not None
    assert log.torn <= 1
    says_nothing_new(log)


def test_memory_stays_in_proportion_to_the_log() -> None:
    short = b'\x1e{"pcr":1,"digests":[{"hashAlg":"sha256","digest":"%s"}]}\n' % (b"0" * 64)
    many = short * 4000
    tracemalloc.start()
    try:
        parse_userspace_log(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(many)
