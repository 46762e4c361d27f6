r"""Evidence on Windows: paths and structure. NOT RUN ON WINDOWS: this project's tests have no Windows machine.

What is here reads files below a root exactly as the Linux collector does, so it is tested on real Windows logs; the
calls only Windows can answer (`GetSystemFirmwareTable` for the SMBIOS UUID, TBS for the TPM) come with the service.

The boot loader writes one log per boot and per resume, `%windir%\Logs\MeasuredBoot\<boot>-<resume>.log`, both numbers
ten decimal digits: the highest boot number is the running boot, its lowest resume number the boot itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agent.collect.ima import ImaList
from agent.collect.sources import Collected, Notes
from agent.errors import SourceError
from agent.wire.limits import MAX_BOOT_LOG
from agent.wire.messages import GuestIdentity

MEASURED_BOOT: Final = "Windows/Logs/MeasuredBoot"
_LOG_NAME: Final = re.compile(r"^(\d{10})-(\d{10})\.log$")


class WindowsSources:
    r"""Reads below `root`, which is `C:\` on a guest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def collect(self, *, agent_version: str) -> Collected:
        """Everything of this boot that lies in files."""
        notes = Notes()
        return Collected(
            boot_log=self._boot_log(notes),
            identity=GuestIdentity(os="Windows", agent_version=agent_version),
            kernel_command_line=None,
            boot_id=None,
            notes=notes.texts,
        )

    def ima_list(self, offset: int = 0) -> ImaList:  # noqa: ARG002 - as the protocol has it
        """Windows keeps none."""
        return ImaList()

    def _boot_log(self, notes: Notes) -> bytes | None:
        folder = self.root / MEASURED_BOOT
        try:
            logs = [
                (match.group(1), match.group(2), path) for path in folder.iterdir() if (match := _match(path))
            ]
        except OSError as error:
            notes.add(f"{folder} cannot be read: {error.strerror}")
            return None
        if not logs:
            notes.add(f"no boot log in {folder}")
            return None
        newest = max(boot for boot, _, _ in logs)
        path = min((resume, path) for boot, resume, path in logs if boot == newest)[1]
        if path.stat().st_size > MAX_BOOT_LOG:
            raise SourceError(f"{path} is longer than {MAX_BOOT_LOG} bytes", "look at the file")
        return path.read_bytes()


def _match(path: Path) -> re.Match[str] | None:
    return _LOG_NAME.match(path.name)
