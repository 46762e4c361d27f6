"""The kernel's list of what it measured while running (IMA), whole or from where the verifier knows it.

The list is a file of securityfs that the kernel makes up as it is read, in records of its own byte order. Seeking makes
the kernel walk over what is skipped (on 122,000 records of such a file: 0.10 s, and 0.16 s to read them), but copies
nothing, so that a tail costs this process no memory for what came before. Nothing is parsed here: the verifier does.

The kernel writes a record before it extends PCR 10 by it. So a list read after a quote holds all that the quote covers,
and may hold more.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct


class ImaList(Struct, frozen=True, kw_only=True):
    """The list from `offset` on, as it is in the file; `content` None where there is none, or none that can be sent."""

    content: bytes | None = None
    offset: int = 0
    note: str | None = None
    """Why there is less than was asked for."""


def read_ima_list(where: Path, offset: int, limit: int) -> ImaList:
    """The list from `offset` on; whole if it is shorter than that, which a list of this boot never becomes.

    Args:
        where: the binary list.
        offset: bytes the verifier knows; 0 reads the whole list.
        limit: bytes that may be sent.
    """
    try:
        descriptor = os.open(where, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return ImaList(note=f"no IMA list at {where}: boot with ima_policy=tcb, or load an IMA policy")
    except OSError as error:
        return ImaList(note=f"{where} cannot be read: {error.strerror}")
    try:
        tail = _read_from(descriptor, offset, limit)
        if tail is not None:
            return _within(tail, offset, limit, where)
        whole = _within(_read_from(descriptor, 0, limit) or b"", 0, limit, where)
    except OSError as error:
        return ImaList(note=f"{where} cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)
    return ImaList(
        content=whole.content,
        note=whole.note or f"{where} is shorter than the {offset} bytes the verifier knows; sent whole",
    )


def _within(content: bytes, offset: int, limit: int, where: Path) -> ImaList:
    if len(content) <= limit:
        return ImaList(content=content, offset=offset)
    return ImaList(note=f"{where} has more than {limit} bytes from byte {offset} on; not sent")


def _read_from(descriptor: int, offset: int, limit: int) -> bytes | None:
    """What follows `offset`, at most one byte more than `limit`; None where the list ends before it.

    The byte before is read too: at a file's end and beyond it, reading looks alike.
    """
    before = min(offset, 1)
    os.lseek(descriptor, offset - before, os.SEEK_SET)
    content = bytearray()
    left = limit + 1 + before
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        content += piece
        left -= len(piece)
    return bytes(memoryview(content)[before:]) if len(content) >= before else None
