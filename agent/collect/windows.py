r"""Evidence on Windows. NOT RUN ON WINDOWS: this project's tests have no Windows machine (`docs/windows.md`).

The log comes from TBS. Where that has none, or evidence is gathered below another root, it is read from
`%windir%\Logs\MeasuredBoot\<boot>-<resume>.log`, both numbers ten decimal digits. The boot loader writes one for each
boot and one for each resume from hibernation. A resume starts the TPM anew, so the PCRs are those of the newest of both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agent.collect.ima import ImaList
from agent.collect.smbios import uuid_of_windows_table
from agent.collect.sources import Collected, Notes
from agent.errors import AgentError, SourceError
from agent.windows.system import Machine, machine_guid, os_name, os_release
from agent.wire.limits import MAX_BOOT_LOG, MAX_TEXT
from agent.wire.messages import GuestIdentity

MEASURED_BOOT: Final = "Windows/Logs/MeasuredBoot"
_LOG_NAME: Final = re.compile(r"(\d{10})-(\d{10})\.log")


class WindowsSources:
    r"""Reads below `root`, which is `C:\` on a guest, and asks `machine`, where the root is that of the running system."""

    def __init__(self, root: Path, machine: Machine | None = None) -> None:
        self.root = root
        self._machine = machine

    def collect(self, *, agent_version: str) -> Collected:
        """Everything of this session."""
        notes = Notes()
        return Collected(
            boot_log=self._boot_log(notes),
            identity=self._identity(agent_version, notes),
            kernel_command_line=None,
            boot_id=None,
            notes=notes.texts,
        )

    def ima_list(self, offset: int = 0) -> ImaList:  # noqa: ARG002 - as the protocol has it
        """Windows keeps none."""
        return ImaList()

    def _identity(self, agent_version: str, notes: Notes) -> GuestIdentity:
        if self._machine is None:
            return GuestIdentity(os="Windows", agent_version=agent_version)
        try:
            smbios_uuid = uuid_of_windows_table(self._machine.smbios())
        except AgentError as error:
            smbios_uuid = None
            notes.add(error.message)
        if smbios_uuid is None:
            notes.add("firmware tells no SMBIOS UUID")
        return GuestIdentity(
            smbios_uuid=smbios_uuid,
            hostname=self._machine.hostname()[:MAX_TEXT] or None,
            os=os_name(self._machine)[:MAX_TEXT],
            os_release=os_release(self._machine),
            machine_id=machine_guid(self._machine),
            agent_version=agent_version,
        )

    def _boot_log(self, notes: Notes) -> bytes | None:
        """What TBS hands out, else the newest file.

        Raises:
            SourceError: it is longer than the wire allows.
        """
        from_tbs = self._ask_tbs(notes)
        if from_tbs is None:
            return self._newest_file(notes)
        if len(from_tbs) > MAX_BOOT_LOG:
            raise SourceError(
                f"the log of TBS is longer than {MAX_BOOT_LOG} bytes", "the verifier would refuse it"
            )
        return from_tbs

    def _ask_tbs(self, notes: Notes) -> bytes | None:
        if self._machine is None:
            return None
        try:
            log = self._machine.boot_log()
        except AgentError as error:
            notes.add(f"no log from TPM Base Services: {error.message}")
            return None
        if log is None:
            notes.add("TPM Base Services have no log: firmware handed none to Windows")
        return log

    def _newest_file(self, notes: Notes) -> bytes | None:
        folder = self.root / MEASURED_BOOT
        try:
            logs = [
                (match.groups(), path)
                for path in folder.iterdir()
                if (match := _LOG_NAME.fullmatch(path.name))
            ]
            if not logs:
                notes.add(f"no boot log in {folder}")
                return None
            _, newest = max(logs)
            with newest.open("rb") as file:
                content = file.read(MAX_BOOT_LOG + 1)
        except OSError as error:
            notes.add(f"{folder} cannot be read: {error.strerror}")
            return None
        if len(content) > MAX_BOOT_LOG:
            raise SourceError(f"{newest} is longer than {MAX_BOOT_LOG} bytes", "look at the file")
        return content
