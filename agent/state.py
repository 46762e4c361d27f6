"""What the agent remembers between runs: one small JSON file, written atomically, readable by its owner only.

It holds no key: the AK is made again from its template (see `agent.templates.ak_template`). Losing the file costs
one new enrolment, which gives the same attester because the EK is the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final, Literal

import msgspec

from agent.errors import StateError
from agent.files import open_private, program_data, sync_directory

DEFAULT_DIRECTORY: Final = (
    str(program_data(os.environ) / "state") if sys.platform == "win32" else "/var/lib/vtpm-attest"
)
_FILE: Final = "agent.json"


class LastVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict last received, for `status` and for people."""

    status: str
    sequence: int
    judged_at: str
    valid_until: str


class RatchetMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the ratchet: its number, the nonce it came with, the content before it, and after it."""

    step: int
    nonce: bytes
    base: bytes
    content: bytes


class RatchetState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The NV index this agent made or found, and the steps that may have led to what it holds."""

    index: int
    steps: list[RatchetMemory] = []


class PendingEnrollment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An enrolment that waits for a person: how to ask for it, and which key it is for."""

    enrollment_id: str
    proof: bytes
    code: str | None = None
    """`enrollment-pending` or `identity-replaced`."""
    ak_kind: str
    ak_generation: int
    ak_name: str


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything remembered. Unknown fields are ignored so that an older agent reads a newer file."""

    version: Literal[1] = 1
    server: str | None = None
    attester_id: str | None = None
    ca_pem: str | None = None
    ak_kind: str | None = None
    ak_generation: int = 0
    ak_name: str | None = None
    ek_slot: str | None = None
    last_verdict: LastVerdict | None = None
    ratchet: RatchetState | None = None
    pending: PendingEnrollment | None = None


class StateFile:
    """The file and its folder."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / _FILE

    def load(self) -> State:
        """What is remembered; a fresh `State` when there is no file.

        Raises:
            StateError: the file cannot be read or is damaged.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror}", _PERMISSION) from error
        try:
            return msgspec.json.decode(content, type=State)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise StateError(
                f"{self.path} is damaged: {error}",
                "move it away and enrol again; the attester keeps its id because the EK is the same",
            ) from error

    def save(self, state: State) -> None:
        """Replace the file whole, durably: after a crash it is the old one or the new one.

        Raises:
            StateError: the folder cannot be written.
        """
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                as_folder(descriptor, self.path.parent)
                _write_all(descriptor, msgspec.json.format(msgspec.json.encode(state)) + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {error.strerror}", _PERMISSION) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def as_folder(descriptor: int, folder: Path) -> None:
    """A file that root makes in a folder of the service's user is that user's: commands run by hand break nothing."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    owner = folder.stat()
    if owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


_PERMISSION: Final = "run as the user that owns the folder, or name another with --state-dir"


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
