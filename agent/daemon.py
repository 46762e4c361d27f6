"""`attest-agent run`: a session without end, told to systemd, ended by SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Final

from agent.commands import Clockwork, Output, describe, make_agent, options_of, pauser
from agent.config import Settings
from agent.errors import Exit
from agent.manager import Manager
from agent.service import run
from agent.session import Goal, Session, Stop, Wait
from agent.standing import StandingFiles
from agent.state import StateFile
from agent.wire.messages import AttestationReply

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """Told to stop. Raised where the program is, so that a pause or a slow peer does not delay the end.

    Not an `Exception`: no handler on the way may take it for a failure. TPM commands are not interrupted (Python
    runs handlers between them), and what was loaded is flushed on the way out.
    """


def _heard() -> tuple[signal.Signals, ...]:
    """Python lets the main thread alone hear signals; a Windows service runs in another, and is told otherwise."""
    return _SIGNALS if threading.current_thread() is threading.main_thread() else ()


def run_forever(settings: Settings, output: Output, clockwork: Clockwork) -> int:
    """Attest until told to stop. Returns only by SIGTERM or SIGINT (0), or raises what cannot be waited out."""
    store = StateFile(settings.state_dir)
    state = store.load()
    session = Session(
        goal=Goal.FOREVER,
        attester_id=state.attester_id,
        may_reenroll=settings.token is not None,
        patience=None,
        random=clockwork.random,
        pending=state.pending is not None,
    )
    agent = make_agent(settings, store, options_of(settings, state), output)
    manager = Manager(os.environ)
    told = _Told(manager, StandingFiles(settings.runtime_dir, settings.attested_on), output, clockwork)

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = {number: signal.signal(number, terminate) for number in _heard()}
    try:
        manager.tell("STATUS=attesting")
        manager.ready_within(settings.ready_wait)
        outcome = run(session, agent, told.pause, told.judged)
    except Terminated:
        manager.tell("STOPPING=1")
        output.say("told to stop")
        return Exit.AFFIRMING
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        agent.close()
    if isinstance(outcome, Stop):
        raise outcome.error
    raise LookupError("a session without end has ended")


class _Told:
    """Whoever is told of verdicts and pauses: the service manager, other programs of this machine, people."""

    def __init__(self, manager: Manager, files: StandingFiles, output: Output, clockwork: Clockwork) -> None:
        self._manager, self._files, self._output = manager, files, output
        self._wait_out = pauser(output, clockwork)
        self._status: str | None = None

    def judged(self, reply: AttestationReply) -> None:
        """Say a verdict when it differs from the last; a steady one would only fill the journal."""
        verdict = reply.verdict
        self._write_down(reply)
        self._manager.ready(f"{verdict.status}, number {verdict.sequence}, valid until {verdict.valid_until}")
        if verdict.status != self._status:
            self._status = verdict.status
            self._output.say(f"verdict {verdict.status}")
            self._output.result({"verdict": verdict, "next_in": reply.next_in}, describe(reply))

    def pause(self, wait: Wait) -> None:
        """Wait; who watches knows how long, and why unless it is the ordinary interval."""
        if wait.because is not None:
            self._manager.tell(f"STATUS={wait.because.message}")
            self._files.tidy(time.time())
        self._manager.resting(wait.seconds)
        self._wait_out(wait)
        self._manager.working()

    def _write_down(self, reply: AttestationReply) -> None:
        """Attesting goes on where other programs cannot be told."""
        try:
            self._files.judged(reply)
        except OSError as error:
            self._output.say(f"the verdict cannot be written down at {error.filename}: {error.strerror}")
