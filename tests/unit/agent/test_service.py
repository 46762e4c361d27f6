"""Session, TPM and network together: what goes over the wire, and what survives trouble in between."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.collect import sources_for
from agent.collect.linux import IMA_LOG
from agent.connection import connect
from agent.errors import NoTpmError, TpmBusyError
from agent.held import Options
from agent.join_token import JoinToken
from agent.service import Agent, Surroundings, run
from agent.session import Done, Goal, Session, Stop, Wait
from agent.state import StateFile
from agent.templates import AkKind
from agent.wire.codec import JSON
from agent.wire.messages import ActivationRequest, AttestationRequest, EnrollmentRequest
from tests.fake_tpm import FakeTpm
from tests.fake_verifier import ATTESTER, FakeVerifier, Refusal, make_ca
from tests.simulator import SoftwareTpm
from verifier.crypto.keys import public_key
from verifier.crypto.signatures import verify
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import parse_quote
from verifier.tcg.pcr import quoted_digest
from verifier.tcg.public import parse_public
from verifier.tcg.signature import parse_signature

CA = make_ca()
LOG = b"a boot log"
ENOUGH = 12


class Bench:
    """One guest with a fake TPM beside one fake verifier."""

    def __init__(self, folder: Path, verifier: FakeVerifier) -> None:
        self.folder, self.verifier = folder, verifier
        self.machine = SoftwareTpm("bench")
        self.tpm = FakeTpm(self.machine, nv={0x01C0000A: self.machine.ek_certificate + b"\xff" * 50})
        self.tpm_errors: list[Exception] = []
        self.store = StateFile(folder / "state")
        self.said: list[str] = []
        self.pauses: list[Wait] = []
        self.verdicts: list[str] = []
        self.on_pause = lambda _number: None
        log = folder / "sys/kernel/security/tpm0/binary_bios_measurements"
        log.parent.mkdir(parents=True)
        log.write_bytes(LOG)
        self.log = log

    def open_tpm(self) -> FakeTpm:
        if self.tpm_errors:
            raise self.tpm_errors.pop(0)
        return self.tpm

    def pause(self, wait: Wait) -> None:
        assert self.tpm.loaded == 0, "nothing stays in the TPM while the agent sleeps"
        self.pauses.append(wait)
        self.on_pause(len(self.pauses))
        if len(self.pauses) >= ENOUGH:
            raise StopIteration

    def go(self, goal: Goal = Goal.VERDICT, *, token: bool = True, **options) -> Done | Stop | None:
        state = self.store.load()
        text = self.verifier.token if token else None
        session = Session(
            goal=goal,
            attester_id=state.attester_id,
            may_reenroll=token,
            patience=None,
            random=lambda: 0.0,
            pending=state.pending is not None,
        )
        surroundings = Surroundings(
            open_tpm=self.open_tpm,
            connect=lambda: connect(
                self.verifier.url, JoinToken.parse(text) if text else None, None, self.store
            ),
            sources=sources_for(self.folder),
            store=self.store,
            say=self.said.append,
        )
        agent = Agent(surroundings, Options(join_token=text, **options))
        try:
            return run(session, agent, self.pause, lambda reply: self.verdicts.append(reply.verdict.status))
        except StopIteration:
            return None
        finally:
            agent.close()
            assert self.tpm.loaded == 0

    def paths(self) -> list[str]:
        return [path.removeprefix("/v1/") for path, _ in self.verifier.seen]


@pytest.fixture
def bench(tmp_path):
    with FakeVerifier(tmp_path, CA) as verifier:
        yield Bench(tmp_path, verifier)


def test_enrolment_sends_keys_certificates_and_token_and_proves_the_secret(bench):
    outcome = bench.go(Goal.ENROLLED)
    assert outcome == Done(ATTESTER, None)
    (request,) = bench.verifier.sent(EnrollmentRequest)
    assert (request.ak_public, request.ek_public) == (bench.machine.ak_public, bench.machine.ek_public)
    assert request.ek_certificates == [bench.machine.ek_certificate]
    assert request.join_token == bench.verifier.token
    assert len(bench.verifier.sent(ActivationRequest)) == 1
    state = bench.store.load()
    assert (state.attester_id, state.ak_kind, state.ak_name) == (
        ATTESTER,
        "ecc-p256",
        bench.machine.ak_name.hex(),
    )
    assert not any(bench.verifier.token in text for text in bench.said)


@pytest.mark.parametrize("media_type", [None, JSON])
def test_evidence_is_a_quote_over_the_nonce_with_its_pcrs_and_log(bench, media_type):
    bench.machine.measure(7, b"secure boot")
    bench.go(**({"media_type": media_type} if media_type else {}))
    (request,) = bench.verifier.sent(AttestationRequest)
    key = public_key(parse_public(bench.machine.ak_public))
    assert verify(key, parse_signature(request.signature), request.attest)
    assert request.boot_log.content == LOG
    (bank,) = request.pcrs
    assert bank.bank == "sha256"
    assert bank.values == {str(pcr): bench.machine.pcrs("sha256")[pcr] for pcr in (0, 4, 7)}
    assert bench.store.load().last_verdict.status == "affirming"


def test_the_log_is_named_by_digest_only_when_the_verifier_holds_these_very_bytes(bench):
    bench.go()
    bench.go()
    bench.log.write_bytes(LOG + b"!")
    bench.go()
    first, second, third = (request.boot_log for request in bench.verifier.sent(AttestationRequest))
    assert first.content == LOG
    assert (second.content, second.sha256) == (None, hashlib.sha256(LOG).digest())
    assert third.content == LOG + b"!"


def test_a_log_the_verifier_no_longer_has_is_sent_whole_over_a_new_nonce(bench):
    bench.go()
    bench.verifier.refuse("/v1/attestations", Refusal(409, "boot-log-missing"))
    bench.go()
    _, by_digest, whole = bench.verifier.sent(AttestationRequest)
    assert by_digest.boot_log.content is None
    assert whole.boot_log.content == LOG
    assert whole.nonce != by_digest.nonce
    assert bench.pauses == []


@pytest.fixture
def measuring(bench):
    """A guest with an IMA list of boot `b-1`, and a verifier that quotes PCR 10 and reads it."""
    for name, content in ((IMA_LOG, b"first second"), ("proc/sys/kernel/random/boot_id", b"b-1\n")):
        path = bench.folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    bench.verifier.wants_ima_log = True
    bench.verifier.selection = (0, 4, 7, 10)
    return bench


def ima_parts(bench) -> list[tuple[bytes | None, int] | None]:
    parts = [request.ima_log for request in bench.verifier.sent(AttestationRequest)]
    return [None if part is None else (part.content, part.offset) for part in parts]


def test_the_ima_list_is_sent_whole_and_then_from_where_the_verifier_knows_this_boot_s(measuring):
    measuring.go()
    measuring.verifier.ima_known = (6, "b-1")
    measuring.go()
    measuring.verifier.ima_known = (6, "b-0")
    measuring.go()
    assert ima_parts(measuring) == [(b"first second", 0), (b"second", 6), (b"first second", 0)]


def test_the_ima_list_is_not_sent_to_a_verifier_that_does_not_ask_or_does_not_have_pcr_10_quoted(measuring):
    measuring.verifier.wants_ima_log = False
    measuring.go()
    measuring.verifier.wants_ima_log, measuring.verifier.selection = True, (0, 4, 7)
    measuring.go()
    assert ima_parts(measuring) == [None, None]


def test_a_list_that_cannot_be_sent_has_the_quote_taken_until_its_pcrs_agree(measuring):
    """Else nobody could tell what was quoted: the verifier would take an honest machine for a forger."""
    (measuring.folder / IMA_LOG).unlink()
    quote = measuring.tpm.quote

    def moving_quote(*arguments):
        measuring.machine.measure(10, b"another")
        result = quote(*arguments)
        if not taken:
            measuring.machine.measure(10, b"and another")
        taken.append(result)
        return result

    taken = []
    measuring.tpm.quote = moving_quote
    measuring.go()
    (request,) = measuring.verifier.sent(AttestationRequest)
    assert request.ima_log is None
    assert len(taken) == 2
    (bank,) = request.pcrs
    values = {HashAlg.SHA256: {int(pcr): value for pcr, value in bank.values.items()}}
    attest = parse_quote(request.attest)
    assert quoted_digest(HashAlg.SHA256, attest.selections, values) == attest.pcr_digest
    assert any("ima_policy=tcb" in text for text in measuring.said)


def test_an_offset_the_verifier_does_not_hold_any_more_costs_one_more_question(measuring):
    measuring.verifier.ima_known = (6, "b-1")
    measuring.verifier.refuse("/v1/attestations", Refusal(409, "ima-offset-unknown"))
    measuring.go()
    assert ima_parts(measuring) == [(b"second", 6), (b"first second", 0)]
    assert measuring.pauses == []


def test_an_expired_nonce_costs_one_more_question_and_no_pause(bench):
    bench.verifier.refuse("/v1/attestations", Refusal(400, "nonce-expired"))
    bench.go()
    assert bench.paths()[-4:] == ["challenges", "attestations", "challenges", "attestations"]
    assert bench.pauses == []


def test_steady_state_is_one_request_over_one_connection(bench):
    bench.go(Goal.FOREVER)
    assert (
        bench.paths() == ["enrollments", "enrollments/*/activation", "challenges"] + ["attestations"] * ENOUGH
    )
    assert bench.verifier.connections == 2, "one for the CA, one for all else"
    assert bench.tpm.closed >= ENOUGH, "the TPM is let go of before every pause"


def test_a_verifier_restart_costs_a_pause_at_most(bench):
    def restart(number: int) -> None:
        if number == 3:
            bench.verifier.stop()
        if number == 5:
            bench.verifier.nonces.clear()  # it also forgot its nonces
            bench.verifier.start()

    bench.on_pause = restart
    bench.go(Goal.FOREVER)
    causes = [pause.because.code if pause.because else None for pause in bench.pauses]
    assert causes == [None] * 3 + ["verifier-unreachable"] * 2 + [None] * (ENOUGH - 5)
    assert bench.paths().count("enrollments") == 1
    assert set(bench.verdicts) == {"affirming"}


def test_a_verifier_that_forgot_the_attester_gets_a_new_enrolment_if_a_token_is_there(bench):
    bench.go()
    bench.verifier.refuse("/v1/challenges", Refusal(404, "not-found"))
    assert isinstance(bench.go(), Done)
    assert bench.paths().count("enrollments") == 2

    bench.verifier.refuse("/v1/challenges", Refusal(404, "not-found"))
    stopped = bench.go(token=False)
    assert isinstance(stopped, Stop)
    assert stopped.error.code == "not-found"


def test_activation_goes_on_after_the_network_was_lost_in_between(bench):
    """The EK was let go of for the pause: it must be the same one again."""
    bench.verifier.refuse("/v1/enrollments/*/activation", Refusal(503, "verifier-unavailable"))
    assert isinstance(bench.go(), Done)
    assert bench.paths()[:3] == ["enrollments", "enrollments/*/activation", "enrollments/*/activation"]
    assert len(bench.pauses) == 1


def test_enrolling_again_and_again_uses_no_more_slots_than_there_are(bench):
    bench.verifier.refuse("/v1/enrollments/*/activation", *[Refusal(410, "enrollment-expired")] * 5)
    assert isinstance(bench.go(), Done)
    assert bench.paths().count("enrollments") == 6


def test_waiting_for_approval(bench):
    bench.verifier.pending = True

    def approve(number: int) -> None:
        bench.verifier.pending = number < 3

    bench.on_pause = approve
    assert isinstance(bench.go(), Done)
    assert [pause.seconds for pause in bench.pauses] == [5.0, 7.5, 11.25]
    proofs = bench.verifier.sent(ActivationRequest)
    assert len(proofs) == 4
    assert len({request.proof for request in proofs}) == 1, "the TPM is not asked again"
    assert bench.store.load().pending is None


def test_a_restarted_agent_goes_on_waiting_with_the_same_keys(bench):
    bench.verifier.pending = True

    def power_off(_number: int) -> None:
        raise StopIteration

    bench.on_pause = power_off
    bench.go(ak=AkKind.RSA_2048.value, ak_generation=3)
    waiting = bench.store.load()
    assert (waiting.attester_id, waiting.pending.ak_kind, waiting.pending.ak_generation) == (
        None,
        "rsa-2048",
        3,
    )
    bench.verifier.pending = False
    (enrolment,) = bench.verifier.sent(EnrollmentRequest)
    done = bench.go(token=False, ak=AkKind.RSA_2048.value, ak_generation=3)
    assert isinstance(done, Done)
    assert len(bench.verifier.sent(EnrollmentRequest)) == 1, "it does not enrol again"
    state = bench.store.load()
    assert (state.attester_id, state.ak_kind, state.ak_generation) == (ATTESTER, "rsa-2048", 3)
    assert state.ak_name == parse_public(enrolment.ak_public).name.hex()


def test_a_replaced_tpm_is_noticed_and_enrolled_without_sending_its_quote(bench):
    bench.go()
    first = bench.store.load()
    bench.machine = SoftwareTpm("another")
    bench.tpm = FakeTpm(bench.machine, nv={0x01C0000A: bench.machine.ek_certificate})
    before = len(bench.verifier.sent(AttestationRequest))
    assert isinstance(bench.go(), Done)
    assert len(bench.verifier.sent(EnrollmentRequest)) == 2
    assert len(bench.verifier.sent(AttestationRequest)) == before + 1
    assert bench.store.load().ak_name != first.ak_name
    assert any("not the one this machine was enrolled with" in text for text in bench.said)


def test_a_busy_tpm_is_waited_for_and_opened_afresh(bench):
    bench.tpm_errors = [TpmBusyError("no free slot", "wait")]
    assert isinstance(bench.go(), Done)
    assert [pause.because.code for pause in bench.pauses] == ["tpm-busy"]


def test_a_missing_tpm_stops_and_nothing_is_sent(bench):
    bench.tpm_errors = [NoTpmError("none", "add one")]
    stopped = bench.go()
    assert isinstance(stopped, Stop)
    assert stopped.error.code == "no-tpm"
    assert bench.verifier.seen == []


def test_remarks_are_made_once_not_at_every_attestation(bench):
    bench.log.unlink()
    bench.go(Goal.FOREVER)
    assert sum("no boot log" in text for text in bench.said) == 1
    assert all(request.boot_log is None for request in bench.verifier.sent(AttestationRequest))


def test_the_ear_is_asked_for_only_when_wanted(bench):
    bench.go()
    bench.go(want_ear=True)
    assert [request.want_ear for request in bench.verifier.sent(AttestationRequest)] == [False, True]


def test_the_ear_of_every_verdict_is_kept_for_its_audience_and_for_its_owner_alone(bench, tmp_path):
    kept = tmp_path / "ear"
    bench.go(ear_file=kept, ear_audience="https://shop.example")
    (request,) = bench.verifier.sent(AttestationRequest)
    assert (request.want_ear, request.ear_audience) == (True, "https://shop.example")
    first = kept.read_text()
    assert first.startswith("ear.")
    assert first.endswith("\n")
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.chmod(0o640)
    bench.go(ear_file=kept)
    assert kept.read_text() != first
    assert kept.stat().st_mode & 0o777 == 0o640, "who else may read it is not the agent's business"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_ear_that_cannot_be_kept_is_a_remark(bench, tmp_path):
    assert isinstance(bench.go(ear_file=tmp_path / "nowhere" / "ear"), Done)
    assert any("nowhere" in line for line in bench.said)


def test_another_ak_is_another_template(bench):
    bench.go(Goal.ENROLLED, ak_generation=4)
    from agent.templates import ak_template

    assert ak_template(AkKind.ECC_P256, 4) in bench.tpm.created
