"""What happens to machines, honestly and not, and what the verifier has to say of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from agent.wire.messages import Verdict
from tests.lifecycles.machine import Died, Machine, Process
from tests.lifecycles.world import World
from verifier.appraisal.lineage import Lineage
from verifier.ports_enrollment import AuditEntry

REMARKS = {"clock-unsafe", "firmware-changed", "boot-id-changed", "boot-id-kept"}
"""What a verdict may say of an honest machine beside what passed; none of it moves the verdict."""
BOUNDARIES = 30
"""An attestation from the start of the process has fewer boundaries between steps than that."""


class FalseAlarmError(AssertionError):
    """An honest machine was not affirmed."""


class MissedError(AssertionError):
    """A clone or rollback was not found, or not by its name."""


def failed(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings if finding.status != "passed"}


class Life:
    """One machine and everything that happens to it."""

    def __init__(self, world: World, number: int, label: str) -> None:
        self.world, self.name = world, f"{label}-{number}"
        self.rng = random.Random(self.name)
        self.machine = world.machine(self.name, self.rng)
        self.story: list[str] = []
        self.known: list[Lineage] = []

    def note(self, event: str) -> None:
        self.story.append(event)
        self.world.seen[event] += 1

    def pass_time(self, machine: Machine) -> None:
        machine.tpm.advance(self.rng.randrange(1, 400_000))

    def attest(self, machine: Machine) -> Verdict:
        """Until a verdict comes, however often the agent dies on the way."""
        while True:
            try:
                verdict = machine.attest()
            except Died as death:
                self.note(f"died {death}")
                continue
            machine.faults.countdown = None
            machine.__dict__.pop("plan", None)
            self.story.append(f"{machine.hostname}: {verdict.status} {sorted(failed(verdict))}")
            self.world.seen["verdicts"] += 1
            return verdict

    # --- what may happen to any machine

    def reboot(self, machine: Machine) -> None:
        machine.reboot()

    def power_loss(self, machine: Machine) -> None:
        machine.reboot(orderly=False)

    def many_reboots(self, machine: Machine) -> None:
        for _ in range(self.rng.randrange(2, 6)):
            machine.reboot(orderly=self.rng.random() < 0.5)

    def suspend(self, machine: Machine) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            machine.tpm.suspend_resume()

    def hibernate(self, machine: Machine) -> None:
        machine.hibernate()

    def kexec(self, machine: Machine) -> None:
        machine.kexec()

    def agent_restart(self, machine: Machine) -> None:
        machine.end_agent()

    def death(self, machine: Machine) -> None:
        """Of the agent, at any boundary of its next attestation, sometimes of each of the next few."""
        for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
            machine.faults.countdown = self.rng.randrange(BOUNDARIES)
            try:
                machine.attest()
            except Died as death:
                self.note(f"died {death}")
            machine.faults.countdown = None

    def death_and_power_loss(self, machine: Machine) -> None:
        self.death(machine)
        machine.reboot(orderly=False)

    def lost_request(self, machine: Machine) -> None:
        machine.__dict__["plan"] = "lost request"

    def lost_reply(self, machine: Machine) -> None:
        machine.__dict__["plan"] = "lost reply"

    def doubled_request(self, machine: Machine) -> None:
        machine.__dict__["plan"] = "doubled request"

    ANYWHERE = (
        reboot,
        power_loss,
        suspend,
        hibernate,
        kexec,
        agent_restart,
        death,
        death_and_power_loss,
        lost_request,
        lost_reply,
        doubled_request,
    )

    # --- what may happen to an honest machine besides

    def lost_reply_and_reboot(self, machine: Machine) -> None:
        machine.__dict__["plan"] = "lost reply"
        machine.faults.countdown = None
        self.attest(machine)
        machine.reboot(orderly=False)

    def two_agents(self, machine: Machine) -> None:
        """`attest --once` beside the one that runs."""
        processes = [machine.started(), machine.started()]
        found: list[Verdict | BaseException] = []

        def run(process: Process) -> None:
            try:
                found.extend(process.attest() for _ in range(3))
            except BaseException as error:  # noqa: BLE001 - told in the life's own thread
                found.append(error)

        threads = [threading.Thread(target=run, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        machine.end_agent()
        for one in found:
            if isinstance(one, BaseException):
                raise one
            self.check(one)

    def extension_fails(self, machine: Machine) -> None:
        """The TPM refuses to write once or twice."""
        machine.extension_fails = True
        for _ in range(self.rng.randrange(1, 3)):
            self.check(self.attest(machine))
        machine.extension_fails = False

    def firmware_update(self, machine: Machine) -> None:
        machine.reboot()
        machine.tpm.firmware_version += 1

    def reinstalled(self, machine: Machine) -> None:
        """The agent's folder is gone; somebody with a join token lets it in again."""
        self.death(machine)
        machine.end_agent()
        machine.disk.state = type(machine.disk.state)()
        self.known.clear()

    def database_restored(self, machine: Machine) -> None:
        """What the verifier knows of this machine is what it knew some attestations ago."""
        if not self.known:
            return
        attester = machine.disk.state.attester_id
        older = self.rng.choice(self.known)
        world = self.world
        state = world.call(world.state(attester))
        entry = AuditEntry(
            tenant="default",
            at=datetime.now(UTC),
            actor="test",
            action="restored",
            subject=attester,
            reason="",
        )
        assert world.call(
            world.service.store.resolve_lineage("default", attester, state.position, older, entry)
        )

    def silence(self, machine: Machine) -> None:
        """Longer than any nonce lives; for everybody, as there is one clock."""
        if self.rng.random() < 0.1:
            self.world.clock.advance(hours=2)
        machine.tpm.advance(7_200_000)

    def renamed(self, machine: Machine) -> None:
        machine.hostname += "x"

    HONEST = (
        *ANYWHERE,
        many_reboots,
        lost_reply_and_reboot,
        two_agents,
        extension_fails,
        firmware_update,
        reinstalled,
        database_restored,
        silence,
        renamed,
    )

    def happens(self, events: Iterable[Callable[..., None]], machine: Machine) -> None:
        event = self.rng.choice(list(events))
        self.note(event.__name__)
        self.pass_time(machine)
        event(self, machine)

    def check(self, verdict: Verdict) -> None:
        alarms = failed(verdict) - REMARKS
        if alarms or verdict.status != "affirming":
            raise FalseAlarmError(self.tell(f"false alarm {sorted(alarms)}, {verdict.status}"))

    def tell(self, what: str) -> str:
        return "\n  ".join([f"{self.name}: {what}", *self.story])

    def remember(self, machine: Machine) -> None:
        state = self.world.call(self.world.state(machine.disk.state.attester_id))
        if state.lineage is not None and state.lineage.ratchet is not None:
            self.known.append(state.lineage)

    # --- lives

    def honest(self) -> None:
        machine = self.machine
        self.check(self.attest(machine))
        for _ in range(self.rng.randrange(4, 12)):
            self.happens(self.HONEST, machine)
            for _ in range(self.rng.choice([1, 1, 2])):
                self.pass_time(machine)
                self.check(self.attest(machine))
            self.remember(machine)

    def _youth(self) -> None:
        machine = self.machine
        self.check(self.attest(machine))
        for _ in range(self.rng.randrange(4)):
            self.happens(self.ANYWHERE, machine)
            self.check(self.attest(machine))

    def cloned(self) -> None:
        """A copy is made at any moment, also in the middle of an attestation; both live on."""
        original = self.machine
        self._youth()
        died = self.rng.random() < 0.5
        if died:
            self.death(original)
        running = original.process is not None and self.rng.random() < 0.5
        renamed = self.rng.random() < 0.3
        copy = original.copied(self.world.fresh_folder(), running=running, renamed=renamed)
        self.note(f"copied {'from memory' if running else 'cold'}, {'new UUID' if renamed else 'same UUID'}")
        order = [original, copy]
        self.rng.shuffle(order)
        said: list[Verdict] = []
        for round_ in range(3):
            for machine in order:
                if self.rng.random() < 0.4:
                    self.happens(self.ANYWHERE, machine)
                self.pass_time(machine)
                said.append(self.attest(machine))
            # What both have in them and no verifier has seen yet, a challenge or a step, both may use once.
            if round_ == 0 and not running and not died and said[-1].status != "contraindicated":
                raise MissedError(
                    self.tell("the second of two copies was not contraindicated at its first word")
                )
        # Both have spoken once with the second verdict: from the third on, the clone has its name.
        for verdict in said[3:]:
            if "clone-proven" not in failed(verdict) or verdict.status != "contraindicated":
                raise MissedError(self.tell("a clone was not proven within one interval"))

    def rolled_back(self) -> None:
        """A snapshot is brought back, at least one seen attestation old (two where it has memory)."""
        machine = self.machine
        self._youth()
        running = machine.process is not None and self.rng.random() < 0.5
        snapshot = machine.snapshot(running=running)
        for _ in range(self.rng.randrange(2 if running else 1, 6)):
            if self.rng.random() < 0.4:
                self.happens(self.ANYWHERE, machine)
            self.pass_time(machine)
            self.check(self.attest(machine))
        machine.restored(snapshot)
        self.note(f"restored {'with memory' if running else 'without memory'}")
        for _ in range(4):
            verdict = self.attest(machine)
            found = failed(verdict)
            if "rollback" not in found or verdict.status != "contraindicated":
                raise MissedError(self.tell("a rollback was not found"))
            if found & {"clone-proven", "clone-suspected", "ratchet-foreign"}:
                raise MissedError(self.tell("a rollback was called something else"))
            if self.rng.random() < 0.5:
                self.happens(self.ANYWHERE, machine)
            self.pass_time(machine)


def guilty(life: Life) -> None:
    (life.cloned if life.rng.random() < 0.5 else life.rolled_back)()


def honest(life: Life) -> None:
    life.honest()


KINDS: dict[str, Callable[[Life], Any]] = {"honest": honest, "guilty": guilty}
