"""Guests with real software TPMs: agent, verifier and TPM are processes, as at a user's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demo import BIN, EVIDENCE, Verifier, guest_root
from tests.conftest import ROOT
from tests.swtpm import Manufactured, Swtpm, replay_boot_log

BOOT = EVIDENCE / "uki-sb-on"
LOG = (BOOT / "binary_bios_measurements").read_bytes()


@dataclass
class Operator:
    """Somebody with a token who runs `attestctl`."""

    verifier: Verifier
    secret: str

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "ATTESTCTL_SERVER": self.verifier.url,
            "ATTESTCTL_CA": str(self.verifier.ca),
            "ATTESTCTL_TOKEN": self.secret,
        }
        command = [BIN / "attestctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def json(self, *arguments: str) -> Any:
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def waiting(self) -> Any:
        (item,) = self.json("enrollments")["enrollments"]
        return item


@dataclass
class Machine:
    """A guest: what its agent reads, what it remembers, and a TPM that can be taken out."""

    verifier: Verifier
    root: Path
    state: Path
    tpm: Swtpm

    def command(self, command: str, *options: str, token: bool = True) -> list[str]:
        where = ["--tcti", self.tpm.tcti, "--root", str(self.root), "--state-dir", str(self.state)]
        if command != "status":
            where += ["--server", self.verifier.url, "--ca-file", str(self.verifier.ca)]
            where += ["--token", self.verifier.join_token] if token else []
        return [command, *options, *where]

    def agent(self, command: str, *options: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        arguments = [BIN / "attest-agent", *self.command(command, *options, token=token)]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    def attest(self, *options: str, token: bool = True) -> Any:
        """A verdict at the first try; with `--wait N` for options, as soon as there is one."""
        done = self.agent("attest", *(options or ("--once",)), "--json", token=token)
        assert done.returncode <= 3, done.stderr
        return json.loads(done.stdout)["verdict"]

    def dying(self, boundary: int) -> str | None:
        """Attest in an agent that is killed at a boundary between two steps; its name, None where it ended before."""
        trace = self.state.with_name("steps")
        trace.unlink(missing_ok=True)
        launcher = [sys.executable, "-m", "tests.dying", "agent", str(boundary), str(trace)]
        done = subprocess.run(
            [*launcher, *self.command("attest", "--once")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            self.tpm.flush()
            return trace.read_text().splitlines()[-1]
        assert done.returncode <= 3, done.stderr
        return None

    def reboot(self, *, orderly: bool = True) -> None:
        """Power-cycle the TPM, boot as before with another kernel id."""
        self.tpm.reboot(orderly=orderly)
        self.booted()

    def booted(self) -> None:
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        replay_boot_log(self.tpm.tcti, LOG)

    def copied(self, number: int) -> Machine:
        """State of TPM and agent again, for another VM that has not booted yet. The original may be running."""
        folder = self.verifier.work / f"guest{number}"
        shutil.copytree(self.tpm.state, folder / "tpm")
        (folder / "tpm" / ".lock").unlink(missing_ok=True)
        shutil.copytree(self.state, folder / "agent")
        root = guest_root(self.verifier.work, number, BOOT)
        return Machine(self.verifier, root, folder / "agent", Swtpm(folder / "tpm"))


@contextmanager
def booted(made: Manufactured) -> Iterator[Swtpm]:
    """A powered-on TPM into which a good boot was measured."""
    with Swtpm(made.state) as tpm:
        replay_boot_log(tpm.tcti, LOG)
        yield tpm


def guest(verifier: Verifier, number: int, tpm: Swtpm) -> Machine:
    root = guest_root(verifier.work, number, BOOT)
    return Machine(verifier, root, verifier.work / f"guest{number}" / "agent", tpm)
