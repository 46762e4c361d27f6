"""Names in archives: where a member really lands, or an error."""

from __future__ import annotations

from typing import Final

from verifier.runtime_sets.stream import ByteStream

MAX_NAME: Final = 4096


def components(name: bytes, stream: ByteStream, *, offset: int | None = None) -> tuple[bytes, ...]:
    """The parts of a member's name, below the root of what it is unpacked to; none for that root itself.

    Raises `ArchiveError` for names that lead out of it, and for names no file system has.
    """
    if b"\0" in name or len(name) > MAX_NAME:
        raise stream.error(f"the name {name[:80]!r} is none that a file can have", offset=offset)
    parts = tuple([part for part in name.split(b"/") if part not in {b"", b"."}])
    if b".." in parts:
        raise stream.error(f"the name {name[:200]!r} leads out of the archive", offset=offset)
    return parts


def joined(parts: tuple[bytes, ...]) -> bytes:
    """An absolute path."""
    return b"/" + b"/".join(parts)
