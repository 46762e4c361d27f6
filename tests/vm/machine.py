"""One virtual machine: QEMU with OVMF, swtpm, two serial ports and QEMU's own network."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.tools import OVMF, LabError, run

KVM = Path("/dev/kvm")
PROBE_SECONDS = 20.0
_TERMINAL = re.compile(rb"\x1b\[[0-9;?=]*[a-zA-Z]|\r")
BOOT_SECONDS = 240
_READY = "lab-shell-ready"
_DONE = "lab-shell-done"


@dataclass
class Machine:
    """A VM's files; `start` and `stop` as often as wanted. What it is told at boot comes by fw_cfg, which nothing measures."""

    folder: Path
    sockets: Path
    root: Path
    partition: Path
    variables: Path
    tpm: Path
    accelerator: str
    uuid: str
    told: dict[str, str] = field(default_factory=dict)
    started: float = field(default=0.0, init=False)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)
    _shell: socket.socket | None = field(default=None, init=False)

    @property
    def overlay(self) -> Path:
        """What the guest has changed of its root file system."""
        return self.folder / "root.qcow2"

    @property
    def store(self) -> Path:
        """The firmware's variables."""
        return self.folder / "variables.fd"

    def start(self, *, link: bool = True) -> None:
        """Power on."""
        self.started = time.monotonic()
        for folder in (self.folder, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.overlay.exists():
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.root, self.overlay)
        if not self.store.exists():
            shutil.copy(self.variables, self.store)
        for name in ("tpm.sock", "shell.sock", "qmp.sock"):
            (self.sockets / name).unlink(missing_ok=True)
        control = f"type=unixio,path={self.sockets / 'tpm.sock'}"
        self._spawn(
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.tpm}", "--ctrl", control, "--terminate"
        )
        self._appears("tpm.sock")
        self._spawn(*self._qemu(), *(["-S"] if not link else []))
        self._appears("shell.sock")
        self._appears("qmp.sock")
        if not link:
            self.monitor("set_link", name="net0", up=False)
            self.monitor("cont")

    def _qemu(self) -> list[str]:
        words = [
            *(
                "qemu-system-x86_64",
                "-machine",
                "q35,smm=off",
                "-accel",
                self.accelerator,
                "-cpu",
                "max",
                "-m",
                "768",
            ),
            *("-smp", "1", "-nodefaults", "-display", "none", "-no-reboot", "-uuid", self.uuid),
            *("-drive", f"if=pflash,format=raw,unit=0,file={OVMF}/OVMF_CODE.fd,readonly=on"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={self.store}"),
            *(
                "-chardev",
                f"socket,id=tpm,path={self.sockets}/tpm.sock",
                "-tpmdev",
                "emulator,id=tpm0,chardev=tpm",
            ),
            *("-device", "tpm-crb,tpmdev=tpm0", "-serial", f"file:{self.folder}/console.log"),
            *("-serial", f"unix:{self.sockets}/shell.sock,server=on,wait=off"),
            *("-qmp", f"unix:{self.sockets}/qmp.sock,server=on,wait=off"),
            *("-drive", f"if=none,id=esp,format=raw,file={self.partition},readonly=on"),
            *("-device", "virtio-blk-pci,drive=esp,bootindex=1,addr=4"),
            *("-drive", f"if=none,id=root,format=qcow2,file={self.overlay},cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=root,addr=5"),
            *("-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile="),
            *(
                "-device",
                "virtio-rng-pci",
                "-fw_cfg",
                "name=opt/org.tianocore/X-Cpuhp-Bugcheck-Override,string=yes",
            ),
        ]
        for name, text in self.told.items():
            file = self.folder / f"told-{name.replace('/', '-')}"
            file.write_text(text)
            words += ["-fw_cfg", f"name=opt/{name},file={file}"]
        return words

    def _spawn(self, *words: str) -> None:
        with (self.folder / "programs.log").open("ab") as log:
            self._processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _appears(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.sockets / name).exists():
            self.alive()
            if time.monotonic() > deadline:
                raise LabError(
                    f"{name} does not appear: {(self.folder / 'programs.log').read_text()[-2000:]}"
                )
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        """Whether it is powered on."""
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def alive(self) -> None:
        """Raise, with what the guest printed last, if the machine has ended by itself."""
        if any(process.poll() is not None for process in self._processes):
            log = (self.folder / "programs.log").read_text()[-1500:]
            raise LabError(f"the machine ended by itself:\n{log}\n{self.console()[-3000:]}")

    def console(self) -> str:
        """What firmware, loaders and kernel have printed since the machine was last started."""
        path = self.folder / "console.log"
        return _TERMINAL.sub(b"", path.read_bytes()).decode(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """Pull the plug. Idempotent."""
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._processes.clear()

    def power_off(self, seconds: float = 120) -> None:
        """As a person does: the guest shuts down by itself."""
        self._connected().sendall(b"systemctl poweroff --no-block\n")
        try:
            self._processes[-1].wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the guest does not shut down:\n{self.console()[-3000:]}") from error
        self.stop()

    def shell(self, command: str, seconds: float = 120) -> str:
        """What a command prints that root runs in the guest; it has to succeed."""
        connection = self._connected()
        connection.settimeout(seconds)
        connection.sendall(f"( {command} ) 2>&1; echo {_DONE} $?\n".encode())
        said = b""
        while not (ended := re.search(rf"{_DONE} (\d+)\n".encode(), said)):
            try:
                part = connection.recv(65536)
            except TimeoutError as error:
                raise LabError(
                    f"no answer to {command!r}: {said[-1000:]!r}\n{self.console()[-2000:]}"
                ) from error
            if not part:
                self.alive()
                raise LabError(f"the shell ended at {command!r}")
            said += part
        text = said[: ended.start()].decode(errors="replace")
        if ended[1] != b"0":
            raise LabError(f"{command!r} ended with {ended[1].decode()}:\n{text[-3000:]}")
        return text

    def _connected(self) -> socket.socket:
        """The shell, as soon as the guest has one: what is sent before is lost."""
        if self._shell is not None:
            return self._shell
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.sockets / "shell.sock"))
        connection.settimeout(1)
        for attempt in range(BOOT_SECONDS):
            self.alive()
            connection.sendall(f"echo {_READY} $(({attempt} + 0))\n".encode())
            said = b""
            with suppress(TimeoutError):
                while f"{_READY} {attempt}\n".encode() not in said and (part := connection.recv(65536)):
                    said += part
                if f"{_READY} {attempt}\n".encode() in said:
                    self._shell = connection
                    return connection
                time.sleep(1)  # QEMU is gone: `alive` says so
        raise LabError(f"the guest has no shell after {BOOT_SECONDS} s:\n{self.console()[-3000:]}")

    def monitor(self, command: str, **arguments: object) -> None:
        """A command for QEMU itself (QMP)."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.sockets / "qmp.sock"))
            file = connection.makefile("rw")
            file.readline()
            for message in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                file.write(json.dumps(message))
                file.flush()
                while "return" not in (answer := json.loads(file.readline())):
                    if "error" in answer:
                        raise LabError(f"QEMU refuses {command}: {answer['error']['desc']}")


def accelerator(folder: Path) -> str:
    """KVM where a probe boot of the firmware under it works, else emulation: the device alone says little."""
    emulation = "tcg,tb-size=512"
    try:
        KVM.open("r+b").close()
    except OSError:
        return emulation
    log = folder / "kvm-probe.log"
    log.unlink(missing_ok=True)
    words = ["qemu-system-x86_64", "-machine", "q35,smm=off", "-accel", "kvm", "-cpu", "max", "-m", "256"]
    words += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{log}"]
    words += ["-drive", f"if=pflash,format=raw,unit=0,file={OVMF}/OVMF_CODE.fd,readonly=on"]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PROBE_SECONDS
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and b"BdsDxe" in log.read_bytes():
                return "kvm"
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait(10)
    return emulation
