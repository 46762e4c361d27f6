"""Evidence and identity on Linux: files under `/sys`, `/proc` and `/etc`, or under another root.

Whatever is absent is None with a note; none of it is trusted by the verifier without proof.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Final

from agent.collect.ima import ImaList, read_ima_list
from agent.collect.sources import Collected, Notes
from agent.errors import SourceError
from agent.files import lock_shared_now
from agent.wire.limits import MAX_BOOT_LOG, MAX_COMMAND_LINE, MAX_IMA_LOG, MAX_TEXT, MAX_USERSPACE_LOG
from agent.wire.messages import GuestIdentity

_LOCK_TRIES: Final = 100
_LOCK_PAUSE: Final = 0.01
"""Seconds; a TPM takes some hundredths for an extend."""
BOOT_LOGS: Final = tuple(f"sys/kernel/security/tpm{number}/binary_bios_measurements" for number in range(2))
IMA_LOG: Final = "sys/kernel/security/ima/binary_runtime_measurements"
USERSPACE_LOG: Final = "run/log/systemd/tpm2-measure.log"
SMBIOS_UUID: Final = "sys/class/dmi/id/product_uuid"
OS_RELEASE: Final = ("etc/os-release", "usr/lib/os-release")


class LinuxSources:
    """Reads below `root`, which is `/` on a guest and a made folder in tests and the demo."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def collect(self, *, agent_version: str) -> Collected:
        """Everything of this boot, in one pass."""
        notes = Notes()
        found = [log for path in BOOT_LOGS if (log := self._file(path, MAX_BOOT_LOG, notes)) is not None]
        boot_log = max(
            found, key=bool, default=None
        )  # the first that is not empty; an empty one says so itself
        if boot_log == b"":
            notes.add(f"the boot log at /{BOOT_LOGS[0]} is empty: firmware handed none to the kernel")
        if boot_log is None:
            notes.add(
                f"no boot log at /{BOOT_LOGS[0]}: mount securityfs, run as root, and boot through EFI "
                "(GRUB's `linux` with Secure Boot off hands the kernel no log; `linuxefi` does)"
            )
        return Collected(
            boot_log=boot_log,
            identity=self._identity(agent_version, notes),
            kernel_command_line=self._command_line(notes),
            boot_id=self._text("proc/sys/kernel/random/boot_id", notes),
            userspace_log=self._userspace_log(notes),
            notes=notes.texts,
        )

    def ima_list(self, offset: int = 0) -> ImaList:
        """What the kernel measured while running, from `offset` on."""
        return read_ima_list(self.root / IMA_LOG, offset, MAX_IMA_LOG)

    def _userspace_log(self, notes: Notes) -> bytes | None:
        """Under the lock that systemd holds from before it extends until it has written what.

        So the log is never behind a quote that was taken before. It may be ahead of it; the verifier sees to that.
        """
        where = self.root / USERSPACE_LOG
        try:
            with where.open("rb", buffering=0) as file:
                if not _lock_shared(file.fileno()):
                    notes.add(f"{where} was read while something held its lock; a record may be missing")
                if os.fstat(file.fileno()).st_mode & stat.S_ISVTX:
                    notes.add(f"{where} lacks a record: systemd was interrupted while it measured")
                content = _read_all(file.fileno(), MAX_USERSPACE_LOG + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            notes.add(f"{where} cannot be read: {error.strerror}")
            return None
        if len(content) > MAX_USERSPACE_LOG:
            notes.add(f"{where} is longer than {MAX_USERSPACE_LOG} bytes; not sent")
            return None
        return content or None

    def _identity(self, agent_version: str, notes: Notes) -> GuestIdentity:
        uuid = self._text(SMBIOS_UUID, notes)
        return GuestIdentity(
            smbios_uuid=uuid.lower() if uuid else None,
            hostname=self._hostname(notes),
            os=self._os_name(notes),
            os_release=self._text("proc/sys/kernel/osrelease", notes),
            machine_id=self._text("etc/machine-id", notes),
            agent_version=agent_version,
        )

    def _hostname(self, notes: Notes) -> str | None:
        for path in ("proc/sys/kernel/hostname", "etc/hostname"):
            name = self._text(path, notes)
            if name:
                return name
        return None

    def _os_name(self, notes: Notes) -> str | None:
        for path in OS_RELEASE:
            content = self._bytes(path, 64 * 1024, notes)
            if content is None:
                continue
            for line in content.decode("utf-8", "replace").splitlines():
                key, _, value = line.partition("=")
                if key == "PRETTY_NAME":
                    return value.strip().strip("\"'")[:MAX_TEXT]
        return None

    def _command_line(self, notes: Notes) -> str | None:
        """Exactly what the kernel was given: only the newline that /proc adds is taken off."""
        content = self._bytes("proc/cmdline", MAX_COMMAND_LINE, notes)
        if content is None:
            return None
        try:
            return content.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            notes.add("/proc/cmdline is not UTF-8; not sent")
            return None

    def _text(self, path: str, notes: Notes) -> str | None:
        content = self._bytes(path, MAX_TEXT, notes)
        return content.decode("utf-8", "replace").strip() or None if content else None

    def _bytes(self, path: str, limit: int, notes: Notes) -> bytes | None:
        """The file's content, or None where there is none."""
        return self._file(path, limit, notes) or None

    def _file(self, path: str, limit: int, notes: Notes) -> bytes | None:
        """The file's content, or None without a file; kernel files report size 0, so it is read to its end.

        Raises:
            SourceError: it is longer than the wire allows.
        """
        where = self.root / path
        try:
            with where.open("rb", buffering=0) as file:
                content = _read_all(file.fileno(), limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            notes.add(f"{where} cannot be read: {error.strerror}")
            return None
        if len(content) > limit:
            raise SourceError(
                f"{where} is longer than {limit} bytes", "the verifier would refuse it; look at the file"
            )
        return content


def _lock_shared(descriptor: int) -> bool:
    """Wait for the writer, but not for ever: whoever may write the file may hold its lock."""
    for attempt in range(_LOCK_TRIES):
        if lock_shared_now(descriptor):
            return True
        if attempt + 1 < _LOCK_TRIES:
            time.sleep(_LOCK_PAUSE)
    return False


def _read_all(descriptor: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    left = limit
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
