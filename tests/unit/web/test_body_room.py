"""Large bodies share a bounded room; small ones never wait for it, and what is answered gives its room back."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from verifier.reasons import Reason
from verifier.service.admission import OverloadedError
from verifier.web.bodies import expand
from verifier.web.body_room import FREE, BodyBudget, Room

MIB = 1024 * 1024


def test_a_body_that_does_not_fit_beside_others_is_asked_to_come_again():
    budget = BodyBudget(10 * MIB)
    with Room(budget) as first:
        first.grow(8 * MIB)
        with Room(budget) as second, pytest.raises(OverloadedError) as caught:
            second.grow(4 * MIB)
        assert caught.value.reason is Reason.VERIFIER_UNAVAILABLE
        assert caught.value.retry_after > 0
    with Room(budget) as third:
        third.grow(9 * MIB)
    assert budget.taken == 0


def test_small_bodies_are_heard_however_full_it_is():
    budget = BodyBudget(MIB)
    with Room(budget) as large:
        large.grow(FREE + MIB)
        assert budget.taken == budget.limit
        with Room(budget) as small:
            for _ in range(4):
                small.grow(FREE // 4)


def test_what_a_failed_request_took_is_given_back():
    budget = BodyBudget(MIB)

    def fail() -> None:
        with Room(budget) as room:
            room.grow(FREE + 1000)
            assert budget.taken == 1000
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert budget.taken == 0


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_small_body_that_expands_takes_the_room_of_what_it_expands_to(encoding):
    body = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding](bytes(32 * MIB))
    budget = BodyBudget(8 * MIB)
    with Room(budget) as room:
        with pytest.raises(OverloadedError):
            expand(body, encoding, 64 * MIB, room.grow)
        assert budget.taken <= budget.limit
    assert budget.taken == 0
