"""The protocol as a table: what the agent does after each event, without TPM, network or clock."""

from __future__ import annotations

import pytest

from agent.errors import (
    NoTpmError,
    PcrsUnstableError,
    RefusedError,
    TpmLibraryMissingError,
    TpmPermissionError,
    TpmReplacedError,
    UnreachableError,
    UntrustedError,
)
from agent.session import (
    BACKOFF_LIMIT,
    REACTIONS,
    SLOW_SECONDS,
    TRANSITIONS,
    Activate,
    AskChallenge,
    AskDecision,
    Attest,
    Challenged,
    Done,
    Enroll,
    Enrolled,
    Failed,
    Goal,
    Judged,
    LocalProtocolError,
    Offered,
    Pending,
    Session,
    State,
    Stop,
    Wait,
    Woke,
)
from agent.wire.messages import (
    ActivationReply,
    AttestationReply,
    Challenge,
    EnrollmentReply,
    Problem,
    Verdict,
)
from verifier.reasons import Reason

OFFER = Offered(
    EnrollmentReply(enrollment_id="e1", credential_blob=b"b", encrypted_secret=b"s", expires_at="")
)
ENROLLED = Enrolled(ActivationReply(status="enrolled", attester_id="a1"))
PENDING = Pending(
    ActivationReply(status="pending", enrollment_id="e1", code="enrollment-pending", retry_after=7.0)
)
UNREACHABLE = UnreachableError("no route", "look")


def challenge(fill: int = 1) -> Challenge:
    return Challenge(nonce=bytes([fill]) * 32, expires_at="", selection=[])


def judged(next_in: float = 100.0) -> Judged:
    verdict = Verdict(
        attester_id="a1", sequence=1, status="affirming", vector={}, findings=[], judged_at="", valid_until=""
    )
    return Judged(AttestationReply(verdict=verdict, challenge=challenge(9), next_in=next_in))


def refused(code: str, status: int = 400, retry_after: float | None = None) -> Failed:
    problem = Problem(type="", title=code, status=status, code=code, retry_after=retry_after)
    return Failed(RefusedError(problem))


def session(
    goal: Goal = Goal.FOREVER,
    *,
    attester_id: str | None = None,
    may_reenroll: bool = False,
    patience: float | None = None,
    random: float = 0.0,
    pending: bool = False,
) -> Session:
    return Session(
        goal=goal,
        attester_id=attester_id,
        may_reenroll=may_reenroll,
        patience=patience,
        random=lambda: random,
        pending=pending,
    )


def at_attest(**options) -> Session:
    made = session(attester_id="a1", **options)
    made.handle(Challenged(challenge()))
    return made


def test_a_new_machine_enrols_activates_asks_attests_and_comes_back():
    made = session()
    assert made.next_action() == Enroll()
    made.handle(OFFER)
    assert made.next_action() == Activate(OFFER.offer)
    made.handle(ENROLLED)
    assert made.next_action() == AskChallenge("a1")
    made.handle(Challenged(challenge()))
    assert made.next_action() == Attest("a1", challenge(), whole_log=False)
    made.handle(judged(next_in=100.0))
    assert made.next_action() == Wait(85.0)
    made.handle(Woke())
    assert made.next_action() == Attest("a1", challenge(9), whole_log=False), "with the nonce of the reply"


def test_each_goal_ends_where_it_should():
    enrolling = session(Goal.ENROLLED)
    enrolling.handle(OFFER)
    enrolling.handle(ENROLLED)
    assert enrolling.next_action() == Done("a1", None)

    once = session(Goal.VERDICT, attester_id="a1")
    once.handle(Challenged(challenge()))
    once.handle(judged())
    assert once.next_action() == Done("a1", judged().reply)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_the_next_attestation_is_a_little_early_never_late(random):
    made = at_attest(random=random)
    made.handle(judged(next_in=100.0))
    assert 85.0 <= made.next_action().seconds <= 100.0


def test_an_interval_of_zero_does_not_spin():
    made = at_attest()
    made.handle(judged(next_in=0.0))
    assert made.next_action().seconds >= 1.0


def test_back_off_doubles_is_jittered_and_bounded_and_ends_with_success():
    made, pauses = session(attester_id="a1"), []
    for _ in range(14):
        made.handle(Failed(UNREACHABLE))
        pauses.append(made.next_action().seconds)
        made.handle(Woke())
        assert made.next_action() == AskChallenge("a1"), "the same step again"
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == BACKOFF_LIMIT / 2
    made.handle(Challenged(challenge()))
    made.handle(judged())
    made.handle(Woke())
    made.handle(Failed(UNREACHABLE))
    assert made.next_action().seconds == 0.5


def test_full_jitter_reaches_the_ceiling():
    made = session(attester_id="a1", random=1.0)
    made.handle(Failed(UNREACHABLE))
    assert made.next_action().seconds == 1.0


def test_a_server_s_retry_after_is_the_least_one_waits():
    made = session(attester_id="a1")
    made.handle(refused("rate-limited", 429, retry_after=42.0))
    assert made.next_action().seconds == 42.0


@pytest.mark.parametrize(
    "code", ["nonce-unknown", "nonce-expired", "nonce-foreign", "nonce-reused", "quote-nonce"]
)
def test_a_void_nonce_is_replaced_at_once_then_with_back_off(code):
    made = at_attest()
    made.handle(refused(code))
    assert made.next_action() == AskChallenge("a1")
    made.handle(Challenged(challenge(2)))
    assert made.next_action() == Attest("a1", challenge(2), whole_log=False)
    made.handle(refused(code))
    assert made.next_action().seconds == 1.0
    made.handle(Woke())
    assert made.next_action() == AskChallenge("a1")


def test_a_log_the_verifier_lost_is_sent_whole_with_a_new_nonce_and_only_until_judged():
    made = at_attest()
    made.handle(refused("boot-log-missing", 409))
    made.handle(Challenged(challenge(2)))
    assert made.next_action() == Attest("a1", challenge(2), whole_log=True)
    made.handle(judged())
    made.handle(Woke())
    assert made.next_action().whole_log is False


def test_an_unknown_attester_enrols_again_only_with_a_token():
    with_token = at_attest(may_reenroll=True)
    with_token.handle(refused("not-found", 404))
    assert with_token.next_action() == Enroll()

    without = at_attest(may_reenroll=False)
    without.handle(refused("not-found", 404))
    assert without.next_action().seconds == pytest.approx(SLOW_SECONDS * 0.9)
    without.handle(Woke())
    assert without.next_action() == AskChallenge("a1"), "an operator may have restored it"


def test_a_404_while_enrolling_is_not_answered_by_enrolling():
    made = session(Goal.ENROLLED, may_reenroll=True)
    made.handle(refused("not-found", 404))
    assert isinstance(made.next_action(), Stop)


def test_an_expired_enrolment_starts_anew():
    made = session()
    made.handle(OFFER)
    made.handle(refused("enrollment-expired", 410))
    assert made.next_action() == Enroll()


def test_pending_waits_as_told_and_longer_each_time_then_goes_on_when_approved():
    made = session()
    made.handle(OFFER)
    made.handle(PENDING)
    pauses = []
    for _ in range(12):
        pauses.append(made.next_action().seconds)
        made.handle(Woke())
        assert made.next_action() == AskDecision()
        made.handle(PENDING)
    assert pauses[:3] == [7.0, 10.5, 15.75]
    assert pauses[-1] == BACKOFF_LIMIT
    made.handle(Woke())
    made.handle(ENROLLED)
    assert made.next_action() == AskChallenge("a1")


def test_what_the_verifier_asks_to_wait_is_waited_however_long_it_is():
    made = session(pending=True)
    made.handle(Pending(ActivationReply(status="pending", enrollment_id="e1", retry_after=3600.0)))
    assert made.next_action().seconds == 3600.0


def test_a_remembered_enrolment_is_asked_for_before_anything_else():
    assert session(pending=True).next_action() == AskDecision()
    assert session(attester_id="a0", pending=True).next_action() == AskDecision()


def test_a_network_fault_does_not_end_the_wait_for_a_person():
    made = session(pending=True)
    made.handle(Failed(UNREACHABLE))
    made.handle(Woke())
    assert made.next_action() == AskDecision()


@pytest.mark.parametrize("code", ["enrollment-expired", "not-found", "activation-failed"])
def test_an_enrolment_that_is_gone_while_it_waited_starts_anew(code):
    made = session(pending=True)
    made.handle(refused(code, 404))
    assert made.next_action() == Enroll()


def test_a_refused_machine_asks_rarely_and_a_command_stops():
    service = session(pending=True)
    service.handle(refused("enrollment-refused", 403))
    assert service.next_action().seconds == pytest.approx(SLOW_SECONDS * 0.9)
    service.handle(Woke())
    assert service.next_action() == AskDecision(), "an operator may have changed his mind"
    command = session(Goal.ENROLLED, attester_id="a0", pending=True)
    command.handle(refused("enrollment-refused", 403))
    assert command.next_action().error.code == "enrollment-refused"


def test_a_machine_whose_new_key_is_refused_goes_on_with_its_enrolment_of_before():
    made = session(attester_id="a0", pending=True)
    made.handle(refused("enrollment-refused", 403))
    assert made.next_action() == AskChallenge("a0")


def test_another_tpm_is_enrolled_at_once_but_not_over_and_over():
    made = at_attest()
    made.handle(Failed(TpmReplacedError("another", "enrol")))
    assert made.next_action() == Enroll()
    made.handle(OFFER)
    made.handle(ENROLLED)
    made.handle(Challenged(challenge()))
    made.handle(Failed(TpmReplacedError("another", "enrol")))
    assert isinstance(made.next_action(), Wait)


def test_pending_stops_one_who_does_not_want_to_wait():
    made = session(Goal.ENROLLED, patience=0.0)
    made.handle(OFFER)
    made.handle(PENDING)
    stop = made.next_action()
    assert isinstance(stop, Stop)
    assert stop.error.code == "enrollment-pending"


def test_patience_is_spent_by_pauses_and_then_the_last_error_is_told():
    made = session(Goal.VERDICT, attester_id="a1", patience=3.0)
    waited = 0.0
    while isinstance(action := made.next_action(), Wait | AskChallenge):
        if isinstance(action, Wait):
            waited += action.seconds
            made.handle(Woke())
        else:
            made.handle(Failed(UNREACHABLE))
    assert action == Stop(UNREACHABLE)
    assert 0 < waited <= 3.0


def test_one_try_still_replaces_a_void_nonce():
    made = at_attest(goal=Goal.VERDICT, patience=0.0)
    made.handle(refused("nonce-expired"))
    assert made.next_action() == AskChallenge("a1")


@pytest.mark.parametrize(
    "code", ["join-token-invalid", "ek-certificate-untrusted", "attester-revoked", "ak-attributes"]
)
def test_a_refusal_only_a_person_can_lift_stops_a_command_and_slows_a_service(code):
    command = session(Goal.ENROLLED, patience=1000.0)
    command.handle(refused(code, 403))
    assert command.next_action().error.code == code

    service = session(Goal.FOREVER)
    service.handle(refused(code, 403))
    assert service.next_action().seconds == pytest.approx(SLOW_SECONDS * 0.9)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (UNREACHABLE, True),
        (UntrustedError("clock", "set it"), True),
        (PcrsUnstableError("busy", "wait"), True),
        (TpmLibraryMissingError("none", "install it"), False),
    ],
)
def test_local_troubles_are_waited_out_only_if_they_can_pass(error, transient):
    made = session(attester_id="a1")
    made.handle(Failed(error))
    assert (made.next_action().seconds < BACKOFF_LIMIT) is transient


@pytest.mark.parametrize(
    "error",
    [NoTpmError("none", "add one"), TpmPermissionError("not yours", "join tss")],
    ids=["no-tpm", "no-access"],
)
def test_a_tpm_that_comes_late_in_a_boot_is_waited_for_by_a_service_and_a_command_stops(error):
    service, command = session(), session(Goal.VERDICT, patience=300.0)
    pauses = []
    for _ in range(3):
        service.handle(Failed(error))
        pauses.append(service.next_action().seconds)
        service.handle(Woke())
    assert max(pauses) < 10.0
    command.handle(Failed(error))
    assert command.next_action() == Stop(error)


def test_refused_evidence_is_never_sent_twice_over_one_nonce():
    made = at_attest()
    made.handle(refused("quote-signature", 400))
    made.handle(Woke())
    assert made.next_action() == AskChallenge("a1")


def test_the_action_stays_until_something_happens():
    made = session()
    assert made.next_action() == made.next_action() == Enroll()


@pytest.mark.parametrize(
    ("prepare", "event"),
    [
        ([], ENROLLED),
        ([], Woke()),
        ([OFFER], OFFER),
        ([OFFER, ENROLLED], judged()),
        ([OFFER, PENDING], OFFER),
    ],
)
def test_an_event_out_of_turn_is_the_agent_s_own_fault(prepare, event):
    made = session()
    for step in prepare:
        made.handle(step)
    with pytest.raises(LocalProtocolError):
        made.handle(event)


def test_a_stopped_session_stays_stopped():
    made = session(Goal.ENROLLED)
    made.handle(refused("join-token-invalid", 403))
    with pytest.raises(LocalProtocolError):
        made.handle(OFFER)
    assert isinstance(made.next_action(), Stop)


def test_every_state_has_its_row_and_every_code_is_the_verifier_s():
    assert set(TRANSITIONS) == set(State)
    ours = {"verifier-untrusted", "tpm-replaced", "no-tpm", "tpm-permission"}
    assert set(REACTIONS) - ours <= {reason.value for reason in Reason}
