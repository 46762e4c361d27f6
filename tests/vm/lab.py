"""What a scenario acts with: a verifier whose policy is made from the good image, and machines that boot that image or another."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.swtpm import STATE_FILE, Manufactured, manufacture
from tests.vm.builds import POLICY, Boot, built, predicted, runtime_set
from tests.vm.machine import Machine
from tests.vm.rootfs import RootFs
from tests.vm.tools import BUILD, LabError, attestctl
from tests.vm.verifier import Verifier, wait_for

_ENTRIES = re.compile(r"(\d+) entries lead to the quoted")
VERDICT_SECONDS = 240


@dataclass
class Lab:
    """One scenario's folder, verifier and machines."""

    folder: Path
    accelerator: str
    files: RootFs
    sockets: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="vm-")))
    validity: str = "2m"
    runtime: Mapping[str, Any] = field(default_factory=dict)
    machines: list[Machine] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tpm = manufacture(self.folder / "tpm", BUILD / "tpm-vendor-ca")
        self.verifier = Verifier(self.folder / "verifier", self.tpm)

    def serve(self, good: Boot | None = None) -> None:
        """Start the verifier with a policy made from the files of the good boot: how it boots, and what may run."""
        boot = good or Boot()
        self._publish(predicted(boot), boot)
        self.verifier.start()

    def learn(self, good: Boot) -> None:
        """Let the verifier go by what the attester's latest evidence had, instead of what was predicted."""
        bundle, learned = self.folder / "good.json", self.folder / "learned" / POLICY
        self.verifier.attestctl("evidence", self.attester()["id"], "--out", bundle)
        learned.mkdir(parents=True)
        attestctl("policy", "learn", bundle, "--id", POLICY, "--out", learned / "policy.yaml")
        self.verifier.stop()
        self._publish(learned, good)
        self.verifier.start()

    def _publish(self, source: Path, boot: Boot) -> None:
        """A policy of how to boot, and beside it what may run."""
        sets = [runtime_set("rootfs", self.files.tree), runtime_set("initramfs", built(boot).initrd)]
        folder = self.verifier.policies / POLICY
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        policy = yaml.safe_load((folder / "policy.yaml").read_text())
        policy["validity"] = self.validity
        policy["quote"]["pcrs"] = sorted({*policy["quote"]["pcrs"], 10})
        policy["runtime"] = {"sets": [one.named for one in sets], **self.runtime}
        for left in policy.get("unjudged", []):
            left["pcrs"] = [pcr for pcr in left["pcrs"] if pcr != 10]
        policy["unjudged"] = [left for left in policy.get("unjudged", []) if left["pcrs"]]
        for one in sets:
            shutil.copy(one.file, folder)
        (folder / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))

    def machine(self, boot: Boot | None = None) -> Machine:
        """A new VM, powered off, that knows where its verifier is."""
        files = built(boot or Boot())
        number = len(self.machines) + 1
        made = Machine(
            self.folder / f"machine{number}",
            self.sockets / str(number),
            *(self.files.image, files.partition, files.variables, self.tpm.state, self.accelerator),
            uuid=str(uuid.uuid4()),
            told=self.verifier.told(),
        )
        self.machines.append(made)
        return made

    def booted(self, boot: Boot | None = None) -> Machine:
        """A new VM, powered on."""
        made = self.machine(boot)
        made.start()
        return made

    def power_off(self, machine: Machine) -> None:
        """Shut down; what it still said until then is no news."""
        machine.power_off()
        self._heard()

    def older(self, machine: Machine) -> None:
        """Let it run on and be judged again: its TPM's clock is then ahead of what it will be after the next boot."""
        time.sleep(1.5 * (time.monotonic() - machine.started))
        self._heard()
        self.verdict(machine)

    def _heard(self) -> None:
        """Whatever was said until now is no news."""
        self.seen = {one["id"]: one.get("sequence", 0) for one in self.verifier.attesters()}

    def copied(self, machine: Machine) -> Machine:
        """All state of a VM that is powered off, for another: disk, variables and TPM."""
        number = len(self.machines) + 1
        folder, tpm = self.folder / f"machine{number}", self.folder / f"tpm{number}"
        shutil.copytree(machine.folder, folder)
        tpm.mkdir()
        shutil.copy2(machine.tpm / STATE_FILE, tpm / STATE_FILE)
        other = {"sockets": self.sockets / str(number), "tpm": tpm, "uuid": str(uuid.uuid4())}
        made = replace(machine, folder=folder, **other)
        self.machines.append(made)
        return made

    def saved(self, machine: Machine) -> Path:
        """All state of a VM that is powered off: a snapshot."""
        folder = self.folder / f"saved{len(list(self.folder.glob('saved*')))}"
        shutil.copytree(machine.folder, folder / "machine")
        shutil.copy2(machine.tpm / STATE_FILE, folder / STATE_FILE)
        return folder

    def restore(self, machine: Machine, saved: Path) -> None:
        """Back to the snapshot."""
        shutil.rmtree(machine.folder)
        shutil.copytree(saved / "machine", machine.folder)
        shutil.copy2(saved / STATE_FILE, machine.tpm / STATE_FILE)

    def other_tpm(self) -> Manufactured:
        """Another of the same maker."""
        return manufacture(self.folder / f"tpm-other{len(list(self.folder.glob('tpm-other*')))}", self.tpm.ca)

    def covering(self, machine: Machine) -> Callable[[dict[str, Any]], bool]:
        """Holds for verdicts over at least what the guest has measured until now."""
        listed = int(machine.shell("cat /sys/kernel/security/ima/runtime_measurements_count"))

        def covers(verdict: dict[str, Any]) -> bool:
            told = (_ENTRIES.match(finding["message"]) for finding in verdict["findings"])
            return any(match and int(match[1]) >= listed for match in told)

        return covers

    def waiting(self) -> dict[str, Any] | None:
        """The enrolment that an operator has to decide."""
        return next(iter(self.verifier.get("/v1/enrollments")["enrollments"]), None)

    def verdict(
        self,
        machine: Machine,
        until: Callable[[dict[str, Any]], bool] = lambda _: True,
        seconds: float = VERDICT_SECONDS,
    ) -> dict[str, Any]:
        """The next verdict that fits, whichever attester's; asked of the verifier, from outside."""

        def ask() -> dict[str, Any] | None:
            machine.alive()
            for attester in self.verifier.attesters():
                name, sequence = attester["id"], attester.get("sequence", 0)
                if sequence > self.seen.get(name, 0):
                    verdict = self.verifier.verdict(name)
                    if until(verdict):
                        self.seen[name] = verdict["sequence"]
                        return {**verdict, "lifecycle": attester["lifecycle"]}
            return None

        try:
            return wait_for("a verdict that fits", seconds, ask)
        except LabError as error:
            raise LabError(f"{error}\n{machine.console()[-2000:]}") from error

    def attester(self) -> dict[str, Any]:
        """The only one."""
        (one,) = self.verifier.attesters()
        return one

    def lifecycle(self, wanted: str, seconds: float) -> dict[str, Any]:
        """Its verdict, as soon as the attester is called this."""
        wait_for(wanted, seconds, lambda: self.attester()["lifecycle"] == wanted)
        return {**self.verifier.verdict(self.attester()["id"]), "lifecycle": wanted}

    def close(self) -> None:
        """Stop everything."""
        for machine in self.machines:
            machine.stop()
        self.verifier.stop()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def keep(self) -> None:
        """Write down what helps to understand a failure: the agents' journals, and the evidence of the latest verdicts."""
        for number, machine in enumerate(self.machines, 1):
            with suppress(LabError, OSError):
                journal = (
                    machine.shell("journalctl -u attest-agent --no-pager", 30) if machine.running else ""
                )
                (self.folder / f"journal{number}.log").write_text(journal)
        with suppress(LabError, OSError):
            for attester in self.verifier.attesters():
                target = self.folder / f"{attester['id']}.evidence.json"
                self.verifier.attestctl("evidence", attester["id"], "--out", target)


def elapsed(since: float) -> float:
    return round(time.monotonic() - since, 1)
