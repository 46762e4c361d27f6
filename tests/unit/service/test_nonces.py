"""Nonces: bound to an attester, short-lived, told apart when they are refused."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import RefusedError
from verifier.reasons import Reason
from verifier.service.nonces import NONCE_SIZE, Nonces, spent_as

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIFE = timedelta(minutes=2)


class SeededRandom:
    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


def nonces(key: bytes = b"k" * 32, seed: int = 0) -> Nonces:
    return Nonces(key, SeededRandom(seed))


def reason(check) -> Reason:
    with pytest.raises(RefusedError) as caught:
        check()
    return caught.value.reason


def test_a_nonce_is_good_for_its_attester_on_every_replica_until_it_expires():
    nonce, expires = nonces().issue("att-a", NOW, LIFE)
    assert len(nonce) == NONCE_SIZE
    assert expires == NOW + LIFE
    replica = nonces(seed=1)
    assert replica.check(nonce, "att-a", NOW) == expires
    assert replica.check(nonce, "att-a", expires - timedelta(microseconds=1)) == expires
    assert reason(lambda: replica.check(nonce, "att-a", expires)) is Reason.NONCE_EXPIRED


def test_a_nonce_of_another_attester_is_foreign():
    nonce, _ = nonces().issue("att-a", NOW, LIFE)
    assert reason(lambda: nonces().check(nonce, "att-b", NOW)) is Reason.NONCE_FOREIGN


def test_a_nonce_of_another_service_is_unknown():
    nonce, _ = nonces(b"x" * 32).issue("att-a", NOW, LIFE)
    assert reason(lambda: nonces().check(nonce, "att-a", NOW)) is Reason.NONCE_UNKNOWN


def test_the_expiry_cannot_be_moved():
    nonce, _ = nonces().issue("att-a", NOW, LIFE)
    later = (int.from_bytes(nonce[:4], "big") + 3600).to_bytes(4, "big") + nonce[4:]
    assert reason(lambda: nonces().check(later, "att-a", NOW + LIFE)) is Reason.NONCE_UNKNOWN


def test_two_nonces_of_one_second_differ():
    issuer = nonces()
    assert len({issuer.issue("att-a", NOW, LIFE)[0] for _ in range(100)}) == 100


@given(position=st.integers(0, NONCE_SIZE - 1), bit=st.integers(0, 7))
def test_no_changed_bit_is_accepted(position, bit):
    nonce, _ = nonces().issue("att-a", NOW, LIFE)
    changed = bytearray(nonce)
    changed[position] ^= 1 << bit
    assert reason(lambda: nonces().check(bytes(changed), "att-a", NOW)) in {
        Reason.NONCE_UNKNOWN,
        Reason.NONCE_FOREIGN,
    }


@given(st.binary(max_size=64))
def test_random_bytes_are_refused_whatever_their_length(data):
    assert reason(lambda: nonces().check(data, "att-a", NOW)) in {Reason.NONCE_UNKNOWN, Reason.NONCE_FOREIGN}


def test_spent_nonces_are_told_apart_and_lie_in_the_order_of_their_expiry():
    made = [nonces(seed=number).issue("att-a", NOW + number * LIFE, LIFE)[0] for number in range(50)]
    spent = [spent_as(nonce) for nonce in made]
    assert sorted(set(spent)) == spent
    assert {len(key) for key in spent} == {32}
    # Everything of a nonce counts.
    nonce = made[0]
    changed = [nonce[:at] + bytes([nonce[at] ^ 1]) + nonce[at + 1 :] for at in range(NONCE_SIZE)]
    assert len({spent_as(one) for one in (nonce, *changed)}) == NONCE_SIZE + 1
