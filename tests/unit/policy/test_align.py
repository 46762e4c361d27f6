"""One change between a golden sequence and a boot reads as one change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verifier.policy.align import align
from verifier.policy.model import Accepted, Step


def step(*digests: bytes, optional: bool = False) -> Step:
    return Step(label="", accepted=Accepted(digests=dict.fromkeys(digests, "")), optional=optional)


A, B, C, X = b"a", b"b", b"c", b"x"
GOLDEN = [step(A), step(B), step(C)]


def test_equal_sequences_pair_up() -> None:
    assert align(GOLDEN, [A, B, C]) == [(0, 0), (1, 1), (2, 2)]


def test_a_changed_event_is_a_place_to_compare() -> None:
    assert align(GOLDEN, [A, X, C]) == [(0, 0), (1, 1), (2, 2)]


def test_an_added_event_does_not_shift_the_rest() -> None:
    assert align(GOLDEN, [A, X, B, C]) == [(0, 0), (None, 1), (1, 2), (2, 3)]


def test_a_missing_event_does_not_shift_the_rest() -> None:
    assert align(GOLDEN, [A, C]) == [(0, 0), (1, None), (2, 1)]


def test_an_optional_step_may_be_absent_or_there() -> None:
    golden = [step(A), step(B, optional=True), step(C)]
    assert align(golden, [A, C]) == [(0, 0), (1, None), (2, 1)]
    assert align(golden, [A, B, C]) == [(0, 0), (1, 1), (2, 2)]


def test_nothing_measured_and_nothing_expected() -> None:
    assert align([], []) == []
    assert align([], [X]) == [(None, 0)]
    assert align(GOLDEN[:1], []) == [(0, None)]


def test_a_hostile_log_cannot_cost_quadratic_memory() -> None:
    steps = [step(bytes([i % 256, i // 256])) for i in range(2000)]
    pairs = align(steps, [X] * 5000)
    assert len(pairs) == 7000
    assert all(left is None or right is None for left, right in pairs)


letters = st.sampled_from([A, B, C, X])


@given(
    st.lists(st.tuples(st.sets(letters, min_size=1, max_size=2), st.booleans()), max_size=8),
    st.lists(letters, max_size=8),
)
def test_every_step_and_every_event_is_accounted_for_once_and_in_order(
    golden: list[tuple[set[bytes], bool]], events: list[bytes]
) -> None:
    steps = [step(*digests, optional=optional) for digests, optional in golden]
    pairs = align(steps, events)
    assert [left for left, _ in pairs if left is not None] == list(range(len(steps)))
    assert [right for _, right in pairs if right is not None] == list(range(len(events)))
