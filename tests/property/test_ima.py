"""IMA lists under mutation: a result or the one typed error; and no edit of a proven prefix stays proven."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ima_kernel import TEMPLATES, ImaKernel
from tests.runtime_reference import Known
from verifier.appraisal.ima.judge import Continuity, ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL, ImaState
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ImaFormatError, ImaList
from verifier.tcg.ima.parse import parse_list, to_binary
from verifier.tcg.ima.replay import Route, Scan
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.walk import detect_encoding

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.text(
    alphabet=st.characters(codec="utf-8", exclude_characters="\0\n", exclude_categories=["Cs"]),
    min_size=1,
    max_size=200,
).map(lambda text: "/" + text.replace(" ", "_"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("measure"), NAMES, st.binary(max_size=40)),
        st.tuples(st.just("buffer"), st.sampled_from([".ima", "kexec-cmdline"]), st.binary(max_size=300)),
        st.tuples(st.just("violation"), NAMES, st.just(b"")),
    ),
    max_size=12,
)
KERNELS = st.builds(
    ImaKernel,
    template=st.sampled_from(sorted(set(TEMPLATES) - {"ima-buf"})),
    order=st.sampled_from("<>"),
    padded=st.booleans(),
)


def grown(kernel: ImaKernel, steps: list[tuple[str, str, bytes]]) -> ImaKernel:
    for what, name, content in steps:
        match what:
            case "measure":
                kernel.measure(name, content)
            case "buffer":
                kernel.buffer(name, content)
            case _:
                kernel.violation(name)
    return kernel


def parsed(data: bytes) -> ImaList | None:
    try:
        return parse_list(data)
    except ImaFormatError as refusal:
        assert refusal.offset is not None
        assert 0 <= refusal.offset <= max(len(data), 4)
        return None


def scanned(data: bytes, kernel: ImaKernel, target: bytes, step: int = 5) -> Scan:
    rule = BankRule.PADDED_SHA1 if kernel.padded else BankRule.OWN_HASH
    route = Route(HashAlg.SHA256, rule, {}, {10: target}, 10)
    scan = Scan(data, detect_encoding(kernel.list), route)
    while not scan.advance(step):
        pass
    return scan


@given(kernel=KERNELS, steps=STEPS)
@RELAXED
def test_what_a_kernel_measures_is_read_back_in_both_forms(
    kernel: ImaKernel, steps: list[tuple[str, str, bytes]]
) -> None:
    grown(kernel, steps)
    entries = parse_list(kernel.list).entries
    assert [one.fields.path for one in entries] == ["boot_aggregate", *(name for _, name, _ in steps)]
    assert [one.offset for one in entries] == kernel.offsets
    if kernel.template != "ima" or kernel.order == "<":
        assert to_binary(kernel.ascii) == kernel.list


@given(kernel=KERNELS, before=STEPS, after=STEPS, step=st.integers(1, 20))
@RELAXED
def test_the_prefix_is_found_exactly(
    kernel: ImaKernel, before: list[tuple[str, str, bytes]], after: list[tuple[str, str, bytes]], step: int
) -> None:
    grown(kernel, before)
    target, end, count = kernel.pcrs["sha256"][10], len(kernel.list), len(kernel.offsets)
    grown(kernel, after)
    scan = scanned(kernel.list, kernel, target, step)
    assert (scan.found, scan.position, scan.index) == (True, end, count)


@given(kernel=KERNELS, steps=STEPS, data=st.data())
@RELAXED
def test_any_edit_of_hashed_bytes_is_no_longer_proven(
    kernel: ImaKernel, steps: list[tuple[str, str, bytes]], data: st.DataObject
) -> None:
    grown(kernel, steps)
    target = kernel.pcrs["sha256"][10]
    at = data.draw(st.integers(0, len(kernel.list) - 1))
    edited = bytearray(kernel.list)
    edited[at] ^= data.draw(st.integers(1, 255))
    try:
        scan = scanned(bytes(edited), kernel, target)
    except ImaFormatError:
        return
    if scan.found:
        assert scan.position == len(kernel.list)
        assert at in uncovered(kernel), "proven all the same: only what no PCR covers may be edited"


def uncovered(kernel: ImaKernel) -> set[int]:
    """Offsets of template digests, template names and the data of violations."""
    found: set[int] = set()
    for entry in parse_list(kernel.list).entries:
        name = entry.offset + 28
        found.update(range(entry.offset + 4, entry.offset + 24), range(name, name + len(entry.template_name)))
        if entry.is_violation:
            found.update(range(name, name + len(entry.template_name) + 4 + len(entry.template_data)))
    return found


@given(
    data=st.binary(max_size=400),
    prefix=st.sampled_from([b"", ImaKernel().list, ImaKernel().ascii, ImaKernel(order=">").list]),
)
@RELAXED
def test_anything_else_is_the_one_typed_error(data: bytes, prefix: bytes) -> None:
    parsed(prefix + data)


@given(size=st.integers(0, 0xFFFFFFFF), where=st.integers(0, 120))
@RELAXED
def test_a_hostile_length_costs_nothing(size: int, where: int) -> None:
    data = bytearray(ImaKernel().list)
    data[where : where + 4] = size.to_bytes(4, "little")
    tracemalloc.start()
    parsed(bytes(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_a_captured_prefix_is_not_another_lists() -> None:
    """The generator and the scan agree on a plain case, worked out by hashlib alone."""
    kernel = ImaKernel(banks=("sha256",))
    (entry,) = parse_list(kernel.list).entries
    value = hashlib.sha256(bytes(32) + hashlib.sha256(entry.template_data).digest()).digest()
    assert kernel.pcrs["sha256"][10] == value
    assert scanned(kernel.list, kernel, value).found


REFERENCE = Known(excludes=("/[a-m]*",)).knows("/usr/bin/known", "known")


def judged(state: ImaState, kernel: ImaKernel, end: int, target: bytes) -> ImaOutcome:
    segment = ImaSegment(kernel.list[state.offset : end], state.offset)
    return judge(state, segment, {HashAlg.SHA256: {10: target}}, REFERENCE)


@given(kernel=KERNELS, steps=STEPS, data=st.data())
@RELAXED
def test_however_a_list_grows_it_comes_to_the_same(
    kernel: ImaKernel, steps: list[tuple[str, str, bytes]], data: st.DataObject
) -> None:
    """Quoted at any moments, with the list read any time after each."""
    moments = [(len(kernel.list), kernel.pcrs["sha256"][10])]
    for step in steps:
        grown(kernel, [step])
        moments.append((len(kernel.list), kernel.pcrs["sha256"][10]))
    whole = judged(INITIAL, kernel, len(kernel.list), moments[-1][1])
    assert whole.continuity is Continuity.FIRST
    state = INITIAL
    quoted = data.draw(st.sets(st.integers(0, len(moments) - 1)).map(sorted), label="quoted")
    for number in [*quoted, len(moments) - 1]:
        end, target = moments[number]
        read = data.draw(st.integers(end, len(kernel.list)), label="read up to")
        outcome = judged(state, kernel, read, target)
        assert outcome.claims is not None
        assert outcome.state.offset == end
        state = ImaState.from_json(outcome.state.to_json())
    assert plain(state) == plain(whole.state)


def plain(state: ImaState) -> ImaState:
    """Without the hint of which kind a violation looks like: that needs the entry after it, which may come later."""
    findings = tuple(
        replace(one, message="") if one.reason is Reason.IMA_VIOLATION else one
        for one in state.summary.findings
    )
    return replace(state, summary=state.summary._replace(findings=findings))


@given(kernel=KERNELS, before=STEPS, after=STEPS, data=st.data())
@RELAXED
def test_whatever_is_sent_instead_of_the_list_nothing_else_is_claimed(
    kernel: ImaKernel,
    before: list[tuple[str, str, bytes]],
    after: list[tuple[str, str, bytes]],
    data: st.DataObject,
) -> None:
    grown(kernel, before)
    state = judged(INITIAL, kernel, len(kernel.list), kernel.pcrs["sha256"][10]).state
    grown(kernel, after)
    target = kernel.pcrs["sha256"][10]
    true = judged(state, kernel, len(kernel.list), target)
    forged = bytearray(kernel.list[state.offset :])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(forged)))
        cut = data.draw(st.integers(0, 40))
        forged[at : at + cut] = data.draw(st.binary(max_size=40))
    try:
        outcome = judge(
            state, ImaSegment(bytes(forged), state.offset), {HashAlg.SHA256: {10: target}}, REFERENCE
        )
    except ImaFormatError:
        return
    if outcome.claims is not None:
        assert outcome.claims.entries == true.state.count
        assert outcome.state.summary.counts.known <= true.state.summary.counts.known
