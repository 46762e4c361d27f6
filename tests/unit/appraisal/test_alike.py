"""What is remembered of very objects never answers for others, however alike or short-lived they are."""

from __future__ import annotations

from verifier.appraisal.alike import of_all_these, of_these, of_this
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Claim, Reason


def finding(message):
    return Finding(
        reason=Reason.QUOTE_VERIFIED,
        status=Status.PASSED,
        severity=Severity.INFO,
        claim=Claim.CONFIGURATION,
        message=message,
    )


class Counted:
    def __init__(self, kept):
        self.calls = 0
        self.of = of_these(self._work, kept)

    def _work(self, items):
        self.calls += 1
        return [item.message for item in items]


def test_the_same_objects_in_the_same_order_are_worked_out_once():
    counted, one, other = Counted(8), finding("one"), finding("other")
    assert counted.of((one, other)) == counted.of((one, other)) == ["one", "other"]
    assert counted.calls == 1
    assert counted.of((other, one)) == ["other", "one"]
    assert counted.of((one,)) == ["one"]
    assert counted.of(()) == []
    assert counted.calls == 4


def test_an_equal_object_is_another_one():
    counted = Counted(8)
    counted.of((finding("one"),))
    counted.of((finding("one"),))
    assert counted.calls == 2


def test_no_object_answers_for_one_that_took_its_place_in_memory():
    counted = Counted(4)
    for number in range(10_000):
        assert counted.of((finding(f"{number}"),)) == [f"{number}"]


def test_whoever_brings_ever_new_ones_takes_no_more_room_than_the_bound():
    made = []
    of = of_these(lambda items: made.append(items) or len(made), kept=4)
    steady = (finding("steady"),)
    of(steady)
    for number in range(3):
        of((finding(f"{number}"),))
    assert of(steady) == 1
    of((finding("one too many"),))
    assert of(steady) > 1


def test_a_single_object_is_worked_out_once_and_answers_for_no_other():
    calls = []

    def work(item):
        calls.append(item)
        return item.message

    of, one = of_this(work, kept=4), finding("one")
    assert of(one) == of(one) == "one"
    assert of(finding("one")) == "one"
    assert len(calls) == 2
    for number in range(10_000):
        assert of(finding(f"{number}")) == f"{number}"


def test_several_arguments_answer_only_for_those_very_ones_in_their_places():
    calls = []

    def work(first, second):
        calls.append((first, second))
        return first, second

    of, one, other = of_all_these(work, kept=8), (1, 2), frozenset({"a"})
    assert of(one, other) is of(one, other)
    assert of(other, one) == (other, one)
    assert of(one, frozenset({"a"})) == (one, frozenset({"a"}))
    assert len(calls) == 3


def test_what_may_have_been_changed_since_is_worked_out_anew():
    of, changed = of_all_these(lambda _, values: sum(values.values())), {"a": 1}
    assert of("first", changed) == 1
    changed["a"] = 2
    assert of("first", changed) == 2
