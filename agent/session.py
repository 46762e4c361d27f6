"""The agent's protocol as a sans-I/O state machine: events in, the next action out. No clock, no socket, no TPM.

`Session.next_action` says what to do, the caller does it and reports one event to `Session.handle`. A state says what
the agent holds; what it does next follows from that. All transitions stand in `TRANSITIONS`, all reactions to a failure
in `agent.reactions`; there is no other place where the protocol is decided.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, assert_never

from msgspec import Struct

from agent.errors import AgentError, PendingError
from agent.reactions import ENROLLMENT_GONE, REACTIONS, Reaction
from agent.wire.messages import ActivationReply, AttestationReply, Challenge, EnrollmentReply

T = TypeVar("T")

BACKOFF_FIRST: Final = 1.0
BACKOFF_LIMIT: Final = 300.0
SLOW_SECONDS: Final = 1800.0
"""Pace after a refusal that only a person can lift, for an agent that must keep running."""
PENDING_SECONDS: Final = 30.0
SHORTEST_PAUSE: Final = 1.0


class State(enum.Enum):
    """What the agent holds."""

    NEW = "new"
    """No attester id: ask to be enrolled."""
    OFFERED = "offered"
    """A credential challenge: activate it."""
    PENDING = "pending"
    """An enrolment that is proven and that a person must still approve: ask how it stands."""
    ENROLLED = "enrolled"
    """An attester id: ask for a nonce."""
    CHALLENGED = "challenged"
    """A nonce: attest."""
    ATTESTED = "attested"
    """A verdict, and the nonce for the next time."""
    STOPPED = "stopped"


class Goal(enum.Enum):
    """When the session is done."""

    ENROLLED = "enrolled"
    VERDICT = "verdict"
    FOREVER = "forever"


# --- events: what happened


class Offered(Struct, frozen=True):
    """Enrolment answered with a credential challenge."""

    offer: EnrollmentReply


class Enrolled(Struct, frozen=True):
    """Activation proved; attest now."""

    reply: ActivationReply


class Pending(Struct, frozen=True):
    """Activation proved; a person must decide."""

    reply: ActivationReply


class Challenged(Struct, frozen=True):
    """A nonce arrived."""

    challenge: Challenge


class Judged(Struct, frozen=True):
    """A verdict arrived."""

    reply: AttestationReply


class Woke(Struct, frozen=True):
    """The pause asked for is over."""


class Failed(Struct, frozen=True):
    """The action failed."""

    error: AgentError


Event = Offered | Enrolled | Pending | Challenged | Judged | Woke | Failed


# --- actions: what to do


class Enroll(Struct, frozen=True):
    """Send EK, AK and identity."""


class Activate(Struct, frozen=True):
    """Open the credential in the TPM and send the proof."""

    offer: EnrollmentReply


class AskDecision(Struct, frozen=True):
    """Send the proof of the pending enrolment again, to learn how it stands."""


class AskChallenge(Struct, frozen=True):
    """Ask for a nonce."""

    attester_id: str


class Attest(Struct, frozen=True):
    """Quote over the challenge and send the evidence; `whole_log` when the verifier lost what it held."""

    attester_id: str
    challenge: Challenge
    whole_log: bool


class Wait(Struct, frozen=True):
    """Do nothing for this long. `because` is the failure behind it, None for the ordinary interval."""

    seconds: float
    because: AgentError | None = None


class Done(Struct, frozen=True):
    """The goal is reached."""

    attester_id: str
    reply: AttestationReply | None


class Stop(Struct, frozen=True):
    """The goal cannot be reached."""

    error: AgentError


Action = Enroll | Activate | AskDecision | AskChallenge | Attest | Wait | Done | Stop

TRANSITIONS: Final[Mapping[State, Mapping[type[Event], State]]] = {
    State.NEW: {Offered: State.OFFERED},
    State.OFFERED: {Enrolled: State.ENROLLED, Pending: State.PENDING},
    State.PENDING: {Enrolled: State.ENROLLED, Pending: State.PENDING},
    State.ENROLLED: {Challenged: State.CHALLENGED},
    State.CHALLENGED: {Judged: State.ATTESTED},
    State.ATTESTED: {Woke: State.CHALLENGED},
    State.STOPPED: {},
}


class LocalProtocolError(Exception):
    """The caller reported an event that cannot happen in this state: a bug in the agent, not in its peer."""


class Session:
    """One agent's conversation with its verifier.

    Args:
        goal: when to stop.
        attester_id: as remembered; None asks to be enrolled first.
        may_reenroll: a join token is at hand, should the verifier have forgotten this attester.
        pending: an enrolment is remembered that waits for a person; it is asked for first.
        patience: seconds of back-off allowed in all before giving up; None for ever.
        random: uniform in [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        goal: Goal,
        attester_id: str | None,
        may_reenroll: bool,
        patience: float | None,
        random: Callable[[], float],
        pending: bool = False,
    ) -> None:
        self.goal = goal
        self.attester_id = attester_id
        self.state = State.NEW if attester_id is None else State.ENROLLED
        if pending:
            self.state = State.PENDING
        self._may_reenroll = may_reenroll
        self._patience = patience
        self._random = random
        self._offer: EnrollmentReply | None = None
        self._challenge: Challenge | None = None
        self._reply: AttestationReply | None = None
        self._whole_log = False
        self._failures = 0
        self._asked = 0
        self._voided = False
        self._pause: Wait | None = None
        self._error: AgentError | None = None

    # --- out

    def next_action(self) -> Action:  # noqa: PLR0911 - one return per state
        """What to do now. Asking twice gives the same answer."""
        if self.state is State.STOPPED:
            return Stop(_present(self._error))
        if self._pause is not None:
            return self._pause
        match self.state:
            case State.NEW:
                return Enroll()
            case State.OFFERED:
                return Activate(_present(self._offer))
            case State.ENROLLED if self.goal is Goal.ENROLLED:
                return Done(_present(self.attester_id), None)
            case State.PENDING:
                return AskDecision()
            case State.ENROLLED:
                return AskChallenge(_present(self.attester_id))
            case State.CHALLENGED:
                return Attest(_present(self.attester_id), _present(self._challenge), self._whole_log)
            case State.ATTESTED:
                return Done(_present(self.attester_id), self._reply)
            case _:
                assert_never(self.state)

    # --- in

    def handle(self, event: Event) -> None:
        """Take in what came of the last action.

        Raises:
            LocalProtocolError: it cannot follow this state.
        """
        if isinstance(event, Woke) and self._pause is not None:
            self._pause = None
            if self.state is State.ATTESTED:
                self.state = TRANSITIONS[self.state][Woke]
            return
        if isinstance(event, Failed):
            self._react(event.error)
            return
        following = TRANSITIONS[self.state].get(type(event))
        if following is None or self._pause is not None:
            raise LocalProtocolError(f"{type(event).__name__} in state {self.state.value}")
        self.state = following
        self._take(event)

    def _take(self, event: Offered | Enrolled | Pending | Challenged | Judged | Woke) -> None:
        match event:
            case Offered():
                self._offer = event.offer
            case Enrolled():
                self.attester_id, self._offer = event.reply.attester_id, None
                self._failures = self._asked = 0
            case Pending():
                self._offer = None
                self._await_decision(event.reply)
            case Challenged():
                self._challenge = event.challenge
            case Judged():
                self._judged(event.reply)
            case Woke():
                pass
            case _:
                assert_never(event)

    def _judged(self, reply: AttestationReply) -> None:
        self._reply, self._challenge = reply, reply.challenge
        self._failures, self._voided, self._whole_log = 0, False, False
        if self.goal is Goal.FOREVER:
            # Early rather than late, so that the verdict does not go stale, and spread, so that a fleet that booted
            # together does not come back together.
            self._pause = Wait(max(SHORTEST_PAUSE, reply.next_in * (0.85 + 0.15 * self._random())))

    # --- failures

    def _react(self, error: AgentError) -> None:
        reaction = REACTIONS.get(error.code, Reaction.RETRY if error.transient else Reaction.SLOW)
        if self.state in {State.OFFERED, State.PENDING} and error.code in ENROLLMENT_GONE:
            reaction = Reaction.ENROLL_AGAIN
        first = not self._voided
        self._failures += 1
        match reaction:
            case Reaction.RETRY:
                self._back_off(error)
            case Reaction.ASK_AGAIN | Reaction.RESEND_WHOLE:
                self._whole_log = self._whole_log or reaction is Reaction.RESEND_WHOLE
                self._void(State.ENROLLED, error, at_once=first)
            case Reaction.ENROLL_AGAIN:
                self._void(State.NEW, error, at_once=first)
            case Reaction.REENROLL_IF_ALLOWED if self._may_reenroll and self.state is not State.NEW:
                self._void(State.NEW, error, at_once=first)
            case Reaction.REFUSED if self.state is State.PENDING and self._may_go_on_as_before():
                self.state = State.ENROLLED
            case Reaction.DEVICE if self.goal is Goal.FOREVER:
                self._back_off(error)
            case Reaction.REENROLL_IF_ALLOWED | Reaction.REFUSED | Reaction.DEVICE | Reaction.SLOW:
                self._slow(error)
            case _:
                assert_never(reaction)

    def _may_go_on_as_before(self) -> bool:
        return self.attester_id is not None and self.goal is not Goal.ENROLLED

    def _void(self, state: State, error: AgentError, *, at_once: bool) -> None:
        """Drop what has become worthless and go back to `state`."""
        self._challenge, self._offer, self._voided = None, None, True
        if state is State.NEW:
            self.attester_id = None
        self.state = state
        if not at_once:
            self._back_off(error)

    def _back_off(self, error: AgentError) -> None:
        ceiling = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** min(self._failures - 1, 16))
        pause = ceiling * (0.5 + 0.5 * self._random())
        if error.retry_after is not None:
            pause = max(pause, error.retry_after * (1.0 + 0.1 * self._random()))
        self._pause_or_stop(pause, error)

    def _slow(self, error: AgentError) -> None:
        # The evidence was refused, so its nonce is spent or void whatever the reason was.
        if self.state in {State.CHALLENGED, State.ATTESTED}:
            self.state, self._challenge = State.ENROLLED, None
        if self.goal is not Goal.FOREVER:
            self._stop(error)
            return
        self._pause = Wait(SLOW_SECONDS * (0.9 + 0.2 * self._random()), error)

    def _await_decision(self, reply: ActivationReply) -> None:
        """Wait as told, then longer and longer: a person may take days."""
        told = reply.retry_after or PENDING_SECONDS
        pause = max(told, min(BACKOFF_LIMIT, told * 1.5 ** min(self._asked, 16)))
        self._asked += 1
        known = "this machine is known with another TPM: " if reply.code == "identity-replaced" else ""
        error = PendingError(
            f"{known}enrolment {reply.enrollment_id} waits for an operator's approval",
            f"approve it at the verifier (attestctl enrollments approve {reply.enrollment_id}); the agent then goes on by"
            " itself, or when it is started again",
        )
        self._pause_or_stop(pause * (1.0 + 0.1 * self._random()), error)

    def _pause_or_stop(self, seconds: float, error: AgentError) -> None:
        if self._patience is not None:
            if seconds > self._patience:
                self._stop(error)
                return
            self._patience -= seconds
        self._pause = Wait(seconds, error)

    def _stop(self, error: AgentError) -> None:
        self._error, self._pause, self.state = error, None, State.STOPPED


def _present(value: T | None) -> T:
    if value is None:
        raise LocalProtocolError("a state without what it is named for")
    return value
