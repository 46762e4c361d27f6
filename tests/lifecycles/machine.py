"""A machine: its TPM, its disk, the agents that run on it, and the faults that may strike between any two steps."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.collect.sources import Collected
from agent.errors import AgentError, TpmError
from agent.held import Options
from agent.service import Agent, Surroundings
from agent.session import AskChallenge, Done, Goal, Judged, Session, Stop, Wait, Woke
from agent.state import State, StateFile
from agent.wire.messages import GuestIdentity, Verdict
from tests.fake_tpm import FakeTpm
from tests.simulator import SoftwareTpm

T = TypeVar("T")
STEPS_TO_A_VERDICT = 40


class Died(BaseException):
    """The process ended here: what it had in memory is gone, what it had done is done."""


class StuckError(AssertionError):
    """An agent does not get to a verdict any more."""


class Faults:
    """Where the agent's process ends: at the n-th boundary between two steps from now on."""

    def __init__(self) -> None:
        self.countdown: int | None = None
        self.passed: list[str] = []

    def step(self, name: str, action: Callable[[], T]) -> T:
        self._boundary(f"before {name}")
        result = action()
        self._boundary(f"after {name}")
        return result

    def _boundary(self, name: str) -> None:
        self.passed.append(name)
        if self.countdown is not None:
            self.countdown -= 1
            if self.countdown < 0:
                self.countdown = None
                raise Died(name)


class Tpm(FakeTpm):
    """A connection to a machine's TPM. Every command is a step."""

    def __init__(self, owner: Machine) -> None:
        super().__init__(owner.tpm, nv={0x01C0000A: owner.tpm.ek_certificate})
        self.owner, self.faults = owner, owner.faults

    def quote(self, *arguments):
        return self.faults.step("quote", lambda: super(Tpm, self).quote(*arguments))

    def nv_define_extend(self, *arguments):
        self.faults.step("define", lambda: super(Tpm, self).nv_define_extend(*arguments))

    def nv_extend(self, *arguments):
        if self.owner.extension_fails:
            raise TpmError("extending: TPM_RC_NV_RATE", "wait")
        self.faults.step("extend", lambda: super(Tpm, self).nv_extend(*arguments))

    def nv_certify(self, *arguments):
        return self.faults.step("certify", lambda: super(Tpm, self).nv_certify(*arguments))


class Disk(StateFile):
    """The agent's state file without the disk: whole or not at all, as the real one is."""

    def __init__(self, folder: Path, faults: Faults, state: State | None = None) -> None:
        super().__init__(folder)
        folder.mkdir(exist_ok=True)
        self.state = state or State()
        self.faults = faults

    def load(self) -> State:
        return self.state

    def save(self, state: State) -> None:
        self.faults.step("save", lambda: setattr(self, "state", state))


@dataclass
class Process:
    """A running agent."""

    session: Session
    agent: Agent
    verdicts: list[Verdict] = field(default_factory=list)

    def attest(self) -> Verdict:
        """Go on until a verdict came."""
        for _ in range(STEPS_TO_A_VERDICT):
            action = self.session.next_action()
            if isinstance(action, Stop | Done):
                raise StuckError(str(action))
            if isinstance(action, Wait):
                self.agent.release()
                self.session.handle(Woke())
                continue
            event = self.agent.perform(action)
            self.session.handle(event)
            if isinstance(event, Judged):
                self.verdicts.append(event.reply.verdict)
                return event.reply.verdict
        raise StuckError(f"no verdict after {STEPS_TO_A_VERDICT} steps; last: {action}")


class Sources:
    """What the agent reads of the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def collect(self, *, agent_version: str) -> Collected:
        machine = self._machine
        return Collected(
            boot_log=machine.log,
            identity=GuestIdentity(
                smbios_uuid=machine.uuid, hostname=machine.hostname, agent_version=agent_version
            ),
            kernel_command_line=machine.line,
            boot_id=machine.boot_id,
        )


class Machine:
    """One VM."""

    def __init__(
        self, world: Any, seed: str, rng: random.Random, log: bytes, line: str, folder: Path
    ) -> None:
        self.world, self.rng, self.log, self.line = world, rng, log, line
        self.seed, self.folder = seed, folder
        self.faults = Faults()
        self.tpm = SoftwareTpm(seed)
        self.tpm.replay_log(log)
        self.extension_fails = False
        self.disk = Disk(folder, self.faults)
        self.uuid, self.hostname = f"{random_uuid(rng)}", f"host-{seed}"
        self.boot_id = random_uuid(rng)
        self.process: Process | None = None

    # --- agents

    def started(self, session: Session | None = None) -> Process:
        surroundings = Surroundings(
            open_tpm=lambda: Tpm(self),
            connect=lambda: self.world.transport(self),
            sources=Sources(self),
            store=self.disk,
            say=lambda _text: None,
        )
        if session is None:
            session = Session(
                goal=Goal.FOREVER,
                attester_id=self.disk.state.attester_id,
                may_reenroll=True,
                patience=None,
                random=lambda: 0.0,
            )
        return Process(session, Agent(surroundings, Options(join_token=self.world.join_token)))

    def attest(self) -> Verdict:
        """By the agent that runs, or one that is started now."""
        if self.process is None:
            self.process = self.started()
        try:
            return self.process.attest()
        except Died:
            self.end_agent()
            raise

    def end_agent(self) -> None:
        """Its memory is gone, and with it what it held in the TPM."""
        self.process = None

    # --- life

    def reboot(self, *, orderly: bool = True) -> None:
        self.end_agent()
        if orderly:
            self.tpm.reboot()
        else:
            self.tpm.power_loss()
        self._booted()

    def hibernate(self) -> None:
        """TPM Restart: the kernel goes on with the agent's memory, and the boot is measured anew."""
        self.tpm.restart()
        self.tpm.replay_log(self.log)

    def kexec(self) -> None:
        self.end_agent()
        self.boot_id = random_uuid(self.rng)

    def _booted(self) -> None:
        self.tpm.replay_log(self.log)
        self.boot_id = random_uuid(self.rng)

    # --- copies and snapshots

    def copied(self, folder: Path, *, running: bool, renamed: bool) -> Machine:
        """TPM state and disk again; with `running`, memory too."""
        other = copy.copy(self)
        other.rng = random.Random(self.rng.random())
        other.faults, other.folder = Faults(), folder
        other.tpm = self.tpm.clone()
        other.disk = Disk(folder, other.faults, self.disk.state)
        other.process = None
        if renamed:
            other.uuid, other.hostname = random_uuid(other.rng), f"{self.hostname}-copy"
        if running:
            other.process = other.started(_session_of(self))
        else:
            other.reboot()
        return other

    def snapshot(self, *, running: bool) -> tuple[Any, State, str, Session | None]:
        """What a hypervisor keeps."""
        return self.tpm.snapshot(), self.disk.state, self.boot_id, _session_of(self) if running else None

    def restored(self, snapshot: tuple[Any, State, str, Session | None]) -> None:
        tpm, state, boot_id, session = snapshot
        self.end_agent()
        self.tpm.restore(tpm)
        self.disk.state = state
        if session is None:
            self.reboot()
            return
        self.boot_id = boot_id
        self.process = self.started(copy.copy(session))


def _session_of(machine: Machine) -> Session | None:
    return None if machine.process is None else copy.copy(machine.process.session)


def random_uuid(rng: random.Random) -> str:
    raw = f"{rng.getrandbits(128):032x}"
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


__all__ = ["AgentError", "AskChallenge", "Died", "Machine", "StuckError"]
