"""How this machine was judged, for its other programs: two files below `/run`, gone when the agent ends.

`verdict.json` is the latest verdict in short. `attested` exists while that verdict is what `attested.target` asks for.
Neither is proof of anything to anybody else: that is what an EAR is for.
"""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, assert_never

import msgspec

from agent.wire.messages import AttestationReply

DEFAULT_DIRECTORY: Final = Path("/run/vtpm-attest")
AttestedOn = Literal["verdict", "affirming"]
_VERDICT: Final = "verdict.json"
_ATTESTED: Final = "attested"
_PUBLIC: Final = 0o644


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The latest verdict, as far as others are told."""

    status: str
    attester_id: str
    sequence: int
    judged_at: str
    valid_until: str

    def ended(self, now: float) -> bool:
        """Whether its time was over at `now` (seconds since 1970). A time that is none does not last."""
        try:
            return datetime.fromisoformat(self.valid_until).timestamp() <= now
        except ValueError:
            return True


class StandingFiles:
    """The two files. Without a folder nothing is written and nothing found."""

    def __init__(self, directory: Path | None, attested_on: AttestedOn) -> None:
        self._directory, self._attested_on = directory, attested_on

    def judged(self, reply: AttestationReply) -> None:
        """Write down a verdict, then whether it is enough.

        Raises:
            OSError: the folder cannot be written.
        """
        if self._directory is None:
            return
        verdict = reply.verdict
        standing = Standing(
            status=verdict.status,
            attester_id=verdict.attester_id,
            sequence=verdict.sequence,
            judged_at=verdict.judged_at,
            valid_until=verdict.valid_until,
        )
        if not self._enough(verdict.status):
            self._forget()
        _replace(self._directory / _VERDICT, msgspec.json.encode(standing) + b"\n")
        if self._enough(verdict.status):
            _replace(self._directory / _ATTESTED, b"")

    def tidy(self, now: float) -> None:
        """A verdict that has ended is enough for nothing."""
        standing = self.read()
        if standing is not None and standing.ended(now):
            self._forget()

    def read(self) -> Standing | None:
        """The latest verdict, if there is one."""
        if self._directory is None:
            return None
        try:
            return msgspec.json.decode((self._directory / _VERDICT).read_bytes(), type=Standing)
        except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
            return None

    def attested(self, now: float) -> Standing | None:
        """The latest verdict, if it is enough and has not ended."""
        standing = self.read()
        if standing is None or standing.ended(now) or not self._enough(standing.status):
            return None
        return standing

    def _enough(self, status: str) -> bool:
        match self._attested_on:
            case "verdict":
                return True
            case "affirming":
                return status == "affirming"
            case _:
                assert_never(self._attested_on)

    def _forget(self) -> None:
        if self._directory is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._directory / _ATTESTED).unlink()


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all; everybody may read it. Nothing is synced: the folder does not outlive the boot."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.chmod(_PUBLIC)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
