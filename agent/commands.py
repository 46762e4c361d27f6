"""`enroll` and `attest`: one session each, from settings to exit code; and how results are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from agent.collect import sources_for
from agent.config import Settings
from agent.connection import connect
from agent.errors import AgentError, Exit, RefusedError
from agent.held import Options
from agent.join_token import JoinToken
from agent.service import Agent, Surroundings, run
from agent.session import Done, Goal, Session, Stop, Wait
from agent.state import State, StateFile
from agent.templates import AkKind
from agent.tpm import Tpm, find_tcti
from agent.wire.codec import JSON, MSGPACK
from agent.wire.messages import AttestationReply, Verdict

VERDICT_EXITS: Final = {
    "affirming": Exit.AFFIRMING,
    "warning": Exit.WARNING,
    "contraindicated": Exit.CONTRAINDICATED,
    "none": Exit.NONE,
}


class Clockwork(Struct, frozen=True):
    """Waiting and jitter, so that tests need neither."""

    sleep: Callable[[float], None]
    random: Callable[[], float]


class Output(Struct, frozen=True):
    """Where results and remarks go: with `as_json`, one document on stdout and nothing else there."""

    as_json: bool

    def say(self, text: str) -> None:
        """A remark for a person."""
        print(f"attest-agent: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a command line tool

    def result(self, document: object, text: str) -> None:
        """The command's answer."""
        shown = msgspec.json.encode(document).decode() if self.as_json else text
        print(shown, flush=True)  # noqa: T201


def explain(error: AgentError, *, as_json: bool) -> None:
    """Tell what went wrong and what to do: on stderr, and as the JSON document if one was asked for."""
    if as_json:
        problem = error.problem if isinstance(error, RefusedError) else None
        document = {
            "error": {
                "code": error.code,
                "message": error.message,
                "remedy": error.remedy,
                "problem": problem,
            }
        }
        print(msgspec.json.encode(document).decode(), flush=True)  # noqa: T201
    print(f"attest-agent: {error.message}\n  what to do: {error.remedy}", file=sys.stderr, flush=True)  # noqa: T201


def open_tpm(settings: Settings) -> Tpm:
    """The TPM of this machine, or a typed error that says why there is none."""
    from agent.esapi import open_tpm as open_esapi  # noqa: PLC0415 - slow: not before a TPM is wanted

    return open_esapi(find_tcti(settings.tcti, os.environ))


def ak_of(settings: Settings, state: State) -> str:
    """As told, else as enrolled, else the default."""
    return settings.ak or state.ak_kind or AkKind.ECC_P256.value


def surroundings(settings: Settings, store: StateFile, output: Output) -> Surroundings:
    """This machine's TPM, network and files."""
    token = JoinToken.parse(settings.token) if settings.token else None
    return Surroundings(
        open_tpm=lambda: open_tpm(settings),
        connect=lambda: connect(settings.server, token, settings.ca_file, store),
        sources=sources_for(settings.root),
        store=store,
        say=output.say,
    )


def make_agent(settings: Settings, store: StateFile, options: Options, output: Output) -> Agent:
    """An agent on this machine."""
    return Agent(surroundings(settings, store, output), options)


def options_of(settings: Settings, state: State, *, want_ear: bool = False) -> Options:
    """Options for a session, given what is remembered: first of all of an enrolment that waits."""
    pending = state.pending
    return Options(
        join_token=settings.token,
        ek=settings.ek,
        ak=ak_of(settings, state) if pending is None else pending.ak_kind,
        ak_generation=state.ak_generation if pending is None else pending.ak_generation,
        ak_certificate=settings.ak_certificate,
        ear_file=settings.ear_file,
        ear_audience=settings.ear_audience,
        media_type=JSON if settings.encoding == "json" else MSGPACK,
        want_ear=want_ear,
    )


def pauser(output: Output, clockwork: Clockwork) -> Callable[[Wait], None]:
    """Waits, saying why unless it is the ordinary interval."""

    def pause(wait: Wait) -> None:
        if wait.because is not None:
            output.say(f"{wait.because.message}; next try in {wait.seconds:.0f} s")
        clockwork.sleep(wait.seconds)

    return pause


def enroll(
    settings: Settings, *, again: bool, new_ak: bool, patience: float, output: Output, clockwork: Clockwork
) -> int:
    """Enrol, unless this machine is enrolled already; go on where an enrolment waits for a person."""
    store = StateFile(settings.state_dir)
    state = store.load()
    if again:
        state = msgspec.structs.replace(state, pending=None)
    if new_ak:
        state = msgspec.structs.replace(state, ak_generation=state.ak_generation + 1)
    options = options_of(settings, state)
    session = Session(
        goal=Goal.ENROLLED,
        attester_id=None if again else state.attester_id,
        may_reenroll=True,
        patience=patience,
        random=clockwork.random,
        pending=state.pending is not None,
    )
    outcome = run(
        session, make_agent(settings, store, options, output), pauser(output, clockwork), lambda _: None
    )
    if isinstance(outcome, Stop):
        raise outcome.error
    state = store.load()
    document = {
        "attester_id": outcome.attester_id,
        "server": state.server,
        "ak": state.ak_kind,
        "ak_name": state.ak_name,
    }
    output.result(document, f"enrolled at {state.server} as {outcome.attester_id}")
    return Exit.AFFIRMING


def attest(
    settings: Settings, *, patience: float, want_ear: bool, output: Output, clockwork: Clockwork
) -> int:
    """Attest once and show the verdict; the exit code is the verdict's."""
    store = StateFile(settings.state_dir)
    state = store.load()
    session = Session(
        goal=Goal.VERDICT,
        attester_id=state.attester_id,
        may_reenroll=settings.token is not None,
        patience=patience,
        random=clockwork.random,
        pending=state.pending is not None,
    )
    agent = make_agent(settings, store, options_of(settings, state, want_ear=want_ear), output)
    outcome = run(session, agent, pauser(output, clockwork), lambda _: None)
    if isinstance(outcome, Stop):
        raise outcome.error
    reply = _judged(outcome)
    output.result({"verdict": reply.verdict, "next_in": reply.next_in, "ear": reply.ear}, describe(reply))
    return VERDICT_EXITS[reply.verdict.status]


def _judged(outcome: Done) -> AttestationReply:
    if outcome.reply is None:
        raise LookupError("a session that wanted a verdict is done without one")
    return outcome.reply


def describe(reply: AttestationReply) -> str:
    """A verdict for people: tier first, then what speaks against it."""
    verdict = reply.verdict
    policy = f"{verdict.policy.id} ({verdict.policy.revision[:12]})" if verdict.policy else "none"
    lines = [
        f"verdict      {verdict.status}, valid until {verdict.valid_until}",
        f"attester     {verdict.attester_id} (number {verdict.sequence}, {verdict.lifecycle})",
        f"policy       {policy}",
        *_findings(verdict),
    ]
    if reply.ear is not None:
        lines.append(f"ear          {reply.ear}")
    return "\n".join(lines)


def _findings(verdict: Verdict) -> list[str]:
    lines: list[str] = []
    passed = 0
    for finding in verdict.findings:
        if finding.status == "passed":
            passed += 1
            continue
        lines.append(f"  {finding.status:<13} {finding.code}: {finding.message}")
        lines += [
            f"  {'':<13} {label}: {value}"
            for label, value in (
                ("expected", finding.expected),
                ("found", finding.actual),
                ("remedy", finding.remedy),
            )
            if value
        ]
    return [f"findings     {passed} passed, {len(verdict.findings) - passed} not", *lines]
