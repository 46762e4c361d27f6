"""What a scenario acts with: a verifier whose policy is made from the good image, and machines that boot that image or another."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.swtpm import STATE_FILE, Manufactured, manufacture
from tests.vm import bootfiles
from tests.vm.bootfiles import BOOT_IMAGE, COMMAND_LINE
from tests.vm.machine import Machine
from tests.vm.rootfs import RootFs
from tests.vm.tools import BUILD, LabError
from tests.vm.verifier import Runtime, Verifier, attestctl, wait_for, write_policy

_ENTRIES = re.compile(r"(\d+) entries lead to the quoted")
VERDICT_SECONDS = 240
EXCLUDES = (
    {
        "paths": ["/run/credentials/**", "/dev/shm/.#cred*"],
        "why": "systemd copies credentials there; the kernel's tcb policy measures what root reads on ramfs.",
    },
    {"paths": ["/var/lib/vtpm-attest/*"], "why": "What the agent remembers."},
)


@dataclass(frozen=True)
class Boot:
    """How an image is made, and the firmware's variables: the good one as it stands here."""

    command_line: str = COMMAND_LINE
    initrd: Mapping[str, str] = field(default_factory=dict)
    older_kernel: bool = False
    signer: str = "db"
    db: tuple[str, ...] = ("db",)
    secure_boot: bool = True
    grub: bool = False
    """By Debian's shim and GRUB, under Microsoft's keys, instead of a unified kernel image; `mok` are then the owner's keys."""
    mok: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A boot's files."""

    images: tuple[object, ...]
    """As `attestctl policy predict` is told of them."""
    initrd: Path
    partition: Path
    variables: Path


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
        """Make the policy from the files of the good boot and start the verifier."""
        built = self.build(good or Boot())
        sets = [_runtime_set("rootfs", self.files.tree), _runtime_set("initramfs", built.initrd)]
        options = {"excludes": list(EXCLUDES), **self.runtime}
        boot = (*built.images, "--efivars", built.variables)
        write_policy(self.verifier.policies, boot, Runtime(sets, options), self.validity)
        self.verifier.start()

    def build(self, boot: Boot) -> Built:
        """Made in this scenario's folder; slow parts are shared."""
        folder = self.folder / f"boot{len(list(self.folder.glob('boot*')))}"
        folder.mkdir(parents=True)
        kernel = bootfiles.kernel(older=boot.older_kernel)
        ramdisk = bootfiles.initrd(kernel, boot.initrd)
        store, partition = folder / "variables.fd", folder / "esp.img"
        if boot.grub:
            shim, grub, files = bootfiles.shim_and_grub(folder, kernel, ramdisk, boot.command_line)
            bootfiles.owners_keys(store, *boot.mok)
            images: tuple[object, ...] = ("--chain", shim, grub, kernel.image)
        else:
            image = bootfiles.uki(folder / "linux.efi", kernel, ramdisk, boot.command_line, boot.signer)
            bootfiles.own_keys(store, *boot.db, secure_boot=boot.secure_boot)
            images, files = ("--uki", image), {BOOT_IMAGE: image}
        return Built(images, ramdisk, bootfiles.system_partition(partition, files), store)

    def machine(self, boot: Boot | None = None, *, tpm: Manufactured | None = None) -> Machine:
        """A new VM, powered off, that knows where its verifier is."""
        built = self.build(boot or Boot())
        number = len(self.machines) + 1
        made = Machine(
            self.folder / f"machine{number}",
            self.sockets / str(number),
            *(self.files.image, built.partition, built.variables, (tpm or self.tpm).state, self.accelerator),
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

    def copied(self, machine: Machine, *, same_uuid: bool = False) -> Machine:
        """All state of a VM that is powered off, for another: disk, variables and TPM."""
        number = len(self.machines) + 1
        folder, tpm = self.folder / f"machine{number}", self.folder / f"tpm{number}"
        shutil.copytree(machine.folder, folder)
        tpm.mkdir()
        shutil.copy2(machine.tpm / STATE_FILE, tpm / STATE_FILE)
        identity = machine.uuid if same_uuid else str(uuid.uuid4())
        made = replace(machine, folder=folder, sockets=self.sockets / str(number), tpm=tpm, uuid=identity)
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
        """The next verdict of the only attester that fits; asked of the verifier, from outside."""

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

    def keep(self) -> str:
        """What helps to understand a failure, as text; the folder stays."""
        told = []
        for machine in self.machines:
            if machine.running:
                try:
                    told.append(machine.shell("journalctl -u attest-agent --no-pager | tail -40", 30))
                except (LabError, OSError) as error:
                    told.append(f"no journal: {error}")
        return "\n".join(told)


def _runtime_set(kind: str, source: Path) -> Path:
    """Kept beside what it was made of."""
    path = source.with_name(f"{source.name}.rtset")
    if not path.exists():
        attestctl("runtime", "make", kind, source, "--out", path)
    return path


def elapsed(since: float) -> float:
    return round(time.monotonic() - since, 1)
