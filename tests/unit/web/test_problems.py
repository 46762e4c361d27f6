"""Errors become problem documents with a status that fits and nothing of our insides."""

from __future__ import annotations

import pytest

from verifier.errors import (
    EvidenceError,
    MalformedInputError,
    NotFoundError,
    RefusedError,
    StoredDataDamaged,
    StoreUnavailable,
)
from verifier.reasons import Reason
from verifier.web.problems import is_ours, problem_of, status_of


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_is_the_clients_and_every_fault_is_ours(reason):
    ours = reason in {Reason.VERIFIER_UNAVAILABLE, Reason.INTERNAL_FAULT}
    assert (status_of(reason) >= 500) is ours
    if not ours:
        assert not is_ours(EvidenceError(reason, "x"))
        reply = problem_of(EvidenceError(reason, "x"), "id")
        assert 400 <= reply.status < 500
        assert (reply.document.code, reply.document.detail) == (reason.value, "x")
        assert reply.document.title == reason.entry.title
        assert reply.document.remedy == reason.entry.remedy


def test_place_and_offset_are_told():
    document = problem_of(MalformedInputError("TPMS_ATTEST", 17, "truncated"), "id").document
    assert (document.structure, document.offset, document.request_id) == ("TPMS_ATTEST", 17, "id")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailable("postgresql://user:pw@host"), 503),
        (StoredDataDamaged("blob abcdef"), 500),
        (ZeroDivisionError("password=hunter2"), 500),
    ],
)
def test_a_fault_of_ours_says_that_it_happened_and_no_more(error, status):
    reply = problem_of(error, "id")
    assert reply.status == status
    assert str(error) not in reply.document.detail
    assert is_ours(error)
    assert ("Retry-After" in reply.headers) is (status == 503)


def test_not_found_names_what():
    assert problem_of(NotFoundError("attester", "att-x"), "id").document.detail == "no attester 'att-x'"
    assert not is_ours(NotFoundError("a", "b"))
    assert "WWW-Authenticate" in problem_of(RefusedError(Reason.UNAUTHENTICATED, "x"), "id").headers
