"""The agent's side of the ratchet: when it moves on, what it remembers, and what it leaves alone."""

from __future__ import annotations

import hashlib
import os

import pytest

from agent.errors import StateError, TpmAuthError, TpmBusyError, TpmError
from agent.ratchet import ATTRIBUTES, Ratchet
from agent.state import State, StateFile
from agent.tpm import Key
from agent.wire.messages import Challenge, RatchetStep
from tests.fake_tpm import FakeTpm

INDEX = 0x01810042
AK = Key(1, b"", b"")


def challenge(base: bytes | None = None, *, step: int = 1, index: int | None = INDEX) -> Challenge:
    handed = None if base is None else RatchetStep(step=step, base=base, value=os.urandom(32))
    return Challenge(nonce=os.urandom(32), expires_at="", selection=[], ratchet_index=index, ratchet=handed)


class Bench:
    def __init__(self, folder) -> None:
        self.tpm = FakeTpm()
        self.store = StateFile(folder)
        self.said: list[str] = []
        self.ratchet = Ratchet(self.store, self.said.append)

    def show(self, question: Challenge):
        return self.ratchet.show(self.tpm, AK, question, question.nonce)

    @property
    def content(self) -> bytes:
        return self.tpm.machine.nv_index(INDEX).value


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_an_index_is_made_once_with_an_unknown_content(bench, tmp_path):
    proof = bench.show(challenge())
    assert bench.tpm.machine.nv_index(INDEX).attributes == ATTRIBUTES
    assert proof.attest.endswith(bench.content)
    assert (proof.step, proof.base, proof.nonce) == (None, None, None)
    other = Bench(tmp_path / "other")
    other.show(challenge())
    assert other.content != bench.content
    assert bench.show(challenge()).attest.endswith(bench.content), "nothing moves it but a value"


def test_a_value_is_extended_before_the_index_is_certified_and_the_step_is_shown(bench):
    bench.show(challenge())
    base = bench.content
    question = challenge(base, step=9)
    proof = bench.show(question)
    assert bench.content == hashlib.sha256(base + question.ratchet.value).digest()
    assert proof.attest.endswith(bench.content)
    assert (proof.step, proof.base, proof.nonce) == (9, base, question.nonce)


def test_the_same_challenge_again_moves_nothing_and_shows_the_same_step(bench):
    bench.show(challenge())
    question = challenge(bench.content)
    first, second = bench.show(question), bench.show(question)
    assert first.attest[-32:] == second.attest[-32:]
    assert (second.step, second.base, second.nonce) == (first.step, first.base, first.nonce)


def test_a_value_for_another_content_is_left_alone(bench):
    bench.show(challenge())
    lost = challenge(bench.content)
    bench.show(lost)
    content = bench.content
    proof = bench.show(challenge(lost.ratchet.base))
    assert bench.content == content
    assert proof.nonce == lost.nonce, "what led here is told, so that the verifier can follow"


def test_a_death_before_the_extension_leaves_a_memory_that_harms_nothing(bench):
    bench.show(challenge())
    known = challenge(bench.content)
    bench.show(known)
    bench.tpm.nv_extend = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.show(challenge(bench.content))
    del bench.tpm.nv_extend
    assert bench.show(challenge()).nonce == known.nonce
    question = challenge(bench.content)
    assert bench.show(question).nonce == question.nonce


def test_a_deleted_index_is_not_made_again_until_an_enrolment(bench):
    bench.show(challenge())
    bench.tpm.machine.nv_undefine(INDEX)
    assert bench.show(challenge()) is None
    assert bench.tpm.machine.nv_index(INDEX) is None
    assert "the ratchet is gone" in bench.said[-1]
    bench.ratchet.forget()
    assert bench.show(challenge()) is not None


def test_an_index_that_was_found_is_missed_as_well(bench):
    bench.show(challenge())
    bench.store.save(State())
    assert bench.show(challenge()) is not None
    bench.tpm.machine.nv_undefine(INDEX)
    assert bench.show(challenge()) is None


@pytest.mark.parametrize("index", [0x01C00002, 0x01400001, 0x81010001, 0])
def test_no_index_but_the_owner_s_is_touched(bench, index):
    assert bench.show(challenge(index=index)) is None
    assert bench.tpm.machine.nv_index(index) is None
    assert "not one of the owner's" in bench.said[-1]


def test_an_index_that_is_something_else_is_left_alone(bench):
    bench.tpm.machine.nv_define_extend(INDEX, 0x00060046)
    bench.tpm.machine.nv_extend(INDEX, b"somebody's")
    content = bench.content
    assert bench.show(challenge(content)) is None
    assert bench.content == content
    assert "something else" in bench.said[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TpmAuthError("refused", ""), "owner hierarchy has a password"),
        (TpmError("NV is full", ""), "NV is full"),
    ],
)
def test_a_tpm_that_cannot_have_one_attests_without(bench, error, words):
    bench.tpm.nv_failure = error
    assert bench.show(challenge()) is None
    assert words in bench.said[-1]


def test_a_passing_trouble_is_no_reason_to_attest_without(bench):
    bench.tpm.nv_failure = TpmBusyError("busy", "wait")
    with pytest.raises(TpmBusyError):
        bench.show(challenge())


@pytest.mark.parametrize("error", [TpmError("NV wore out", ""), TpmBusyError("NV rate", "wait")])
def test_a_value_that_cannot_be_written_is_a_remark_and_the_content_is_shown_as_it_is(bench, error):
    bench.show(challenge())
    content = bench.content

    def refuse(*_):
        raise error

    bench.tpm.nv_extend = refuse
    assert bench.show(challenge(content)).attest.endswith(content)
    assert "was not moved on" in bench.said[-1]


def test_nothing_is_extended_that_cannot_be_remembered(bench):
    bench.show(challenge())
    content = bench.content

    def full(_state):
        raise StateError("the disk is full", "")

    bench.store.save = full
    assert bench.show(challenge(content)).attest.endswith(content)
    assert bench.content == content
    assert "the disk is full" in bench.said[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: only root can make files for others")
def test_the_lock_that_root_makes_is_the_service_s(tmp_path):
    """Else `attest-agent attest` by hand, once, would keep the service from attesting ever after."""
    os.chown(tmp_path, 61234, 61234)
    Bench(tmp_path).show(challenge())
    assert (tmp_path / "ratchet.lock").stat().st_uid == 61234
