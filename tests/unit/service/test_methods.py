"""Enrolment methods as they are written: what can be meant, and what a known machine's new TPM may do instead."""

from __future__ import annotations

import pytest

from verifier.service.methods import Method, parse_methods


@pytest.mark.parametrize(
    "entries",
    [
        ["approve"],
        ["tofu"],
        ["inventory", "certificate"],
        ["certificate|inventory|approve", "token"],
        ["certificate", "approve", "inventory", "token"],
        ["certificate|tofu"],
        ["ak-certificate|device-certificate|approve"],
        ["token|approve", "certificate"],
    ],
)
def test_every_combination_that_can_be_meant_reads_back_as_it_was_written(entries):
    assert str(parse_methods(entries)) == ", ".join(entries)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (["token"], "no way to trust an EK"),
        ([], "no way to trust an EK"),
        (["approve|certificate"], "never asked for"),
        (["tofu|approve"], "never asked for"),
        (["certificate", "tofu"], "adds nothing"),
        (["certificate|certificate"], "twice"),
        (["certificate", "certificate"], "twice"),
        (["certificates"], "is not one of"),
        (["Approve"], "is not one of"),
        (["certificate|"], "is not one of"),
        (["token|tofu", "certificate"], "met by every machine"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(entries, why):
    with pytest.raises(ValueError, match=why):
        parse_methods(entries)


@pytest.mark.parametrize(
    ("entries", "instead"),
    [
        (["inventory"], "inventory|approve"),
        (
            ["certificate|inventory", "inventory", "token"],
            "certificate|inventory|approve, inventory|approve, token",
        ),
        (["inventory|approve"], "inventory|approve"),
        (["inventory|tofu"], "inventory|tofu"),
        (["certificate", "token"], "certificate, token"),
    ],
)
def test_a_person_may_stand_in_for_the_inventory_and_for_nothing_else(entries, instead):
    assert str(parse_methods(entries).or_approval(Method.INVENTORY)) == instead
