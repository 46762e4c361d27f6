"""Which policies judge an attester: one decides, others are tried, the same on every replica."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import EvidenceError
from verifier.policy.assignment import (
    Assignment,
    Mode,
    Origin,
    PolicyRef,
    check_labels,
    parse_selector,
    resolve,
)

AT = datetime(2026, 11, 24, tzinfo=UTC)
PROD = {"env": "prod"}
WEB = {"env": "prod", "tier": "web"}


def assigned(policy="p", mode=Mode.ENFORCE, selector=PROD, **changes) -> Assignment:
    values = {"id": f"asg-{policy}-{mode}", "revision": None, "changed_at": AT} | changes
    return Assignment(policy_id=policy, mode=mode, selector=selector, **values)


def primary(labels, *assignments, explicit=None, default="fallback"):
    found = resolve(labels, explicit, assignments, default)
    return found.primary and found.primary.id, found.origin


def test_the_attesters_own_policy_goes_before_labels_and_labels_before_the_default():
    by_label = assigned("by-label", priority=1000)
    assert primary(PROD, by_label, explicit="own") == ("own", Origin.ATTESTER)
    assert primary(PROD, by_label) == ("by-label", Origin.ASSIGNMENT)
    assert primary({"env": "test"}, by_label) == ("fallback", Origin.DEFAULT)
    assert primary({}, default=None) == (None, None)


def test_every_label_of_a_selector_must_match_and_none_at_all_means_everyone():
    web = assigned("web", selector=WEB)
    assert primary(WEB | {"site": "b"}, web)[0] == "web"
    assert primary(PROD, web)[0] == "fallback"
    assert primary({"tier": "web", "env": "test"}, web)[0] == "fallback"
    assert primary({}, assigned("all", selector={}))[0] == "all"


def test_the_highest_priority_decides_then_the_longer_selector_then_the_last_change():
    wide, narrow = assigned("wide", selector=PROD), assigned("narrow", selector=WEB)
    assert primary(WEB, wide, narrow)[0] == "narrow"
    assert primary(WEB, assigned("wide", priority=1), narrow)[0] == "wide"
    late = assigned("late", selector=PROD, changed_at=AT + timedelta(seconds=1))
    assert primary(PROD, wide, late)[0] == "late"


def test_what_is_not_enforced_never_decides():
    for mode in (Mode.WARN, Mode.OBSERVE):
        assert primary(PROD, assigned("tried", mode, priority=1000)) == ("fallback", Origin.DEFAULT)
        found = resolve(PROD, None, [assigned("tried", mode)], None)
        assert found.primary is None
        assert [(each.policy.id, each.mode) for each in found.staged] == [("tried", mode)]


def test_staged_policies_come_by_priority_and_each_once_by_the_mode_that_may_say_more():
    found = resolve(
        WEB,
        None,
        [
            assigned("b", Mode.OBSERVE, priority=1),
            assigned("a", Mode.WARN, priority=5),
            assigned("b", Mode.WARN, WEB, id="asg-2"),
            assigned("elsewhere", Mode.WARN, {"env": "test"}),
        ],
        "fallback",
    )
    assert [(each.policy.id, each.mode) for each in found.staged] == [("a", Mode.WARN), ("b", Mode.WARN)]


def test_a_policy_is_not_tried_beside_itself_but_its_next_revision_is():
    current = assigned("p", revision="1")
    same, following = (
        assigned("p", Mode.OBSERVE, revision="1"),
        assigned("p", Mode.WARN, revision="2", id="asg-2"),
    )
    found = resolve(PROD, None, [current, same, following], None)
    assert found.primary == PolicyRef("p", "1")
    assert [each.policy for each in found.staged] == [PolicyRef("p", "2")]


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))
assignments = st.lists(
    st.builds(
        assigned,
        policy=st.sampled_from("pqr"),
        mode=st.sampled_from(Mode),
        selector=labels,
        priority=st.integers(-1, 1),
        revision=st.sampled_from([None, "1"]),
        id=st.sampled_from(["1", "2", "3", "4"]),
        changed_at=st.sampled_from([AT, AT + timedelta(seconds=1)]),
    ),
    max_size=4,
    unique_by=lambda each: each.id,
)


@given(labels, assignments)
def test_the_order_in_which_a_store_lists_assignments_changes_nothing(labels, found):
    answers = {resolve(labels, None, order, "d") for order in itertools.permutations(found)}
    assert len(answers) == 1
    (answer,) = answers
    assert answer.primary not in {each.policy for each in answer.staged}
    assert len({each.policy for each in answer.staged}) == len(answer.staged)


def test_selectors_are_read_from_text():
    assert parse_selector(["tier=web, env=prod", "a/b.c=x=y z"]) == {
        "a/b.c": "x=y z",
        "env": "prod",
        "tier": "web",
    }
    assert parse_selector([]) == parse_selector([""]) == {}


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["env"], "'env'"),
        (["=prod"], "''"),
        (["env=prod,env=test"], "'env'"),
        (["ümlaut=1"], "'ümlaut'"),
        ([f"k{n}=1" for n in range(17)], "17"),
        (["a=" + "x" * 129], "'a'"),
    ],
)
def test_a_selector_that_says_nothing_clear_is_refused_and_named(texts, named):
    with pytest.raises(EvidenceError, match=named):
        parse_selector(texts)


def test_labels_that_no_selector_could_name_are_refused():
    assert check_labels({"env": ""}) == {"env": ""}
    for bad in ({"a=b": "c"}, {"": "c"}, {"a": "b,c"}, {"a": "b\n"}, {"a\n": "b"}):
        with pytest.raises(EvidenceError):
            check_labels(bad)
