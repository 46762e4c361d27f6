"""PCR 9: what the Linux kernel's own EFI stub measures (Documentation/admin-guide/efi-stub.rst, since 6.1)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from verifier.predict.model import PredictedEvent
from verifier.predict.pe import Chunk, hash_chunks
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType

KERNEL_PCR: Final = 9
FIRST_MEASURING: Final = (6, 1)
"""The first kernel that measures both its load options and its initrd."""

_SETUP_MAGIC: Final = b"HdrS"
_SETUP_OFFSET: Final = 0x202
_VERSION_POINTER: Final = struct.Struct("<H")
_VERSION_FIELD: Final = 0x20E
_VERSION_BASE: Final = 0x200
_VERSION: Final = re.compile(rb"(\d{1,3})\.(\d{1,3})")
_VERSION_SIZE: Final = 128


def kernel_version(kernel: Iterable[Chunk]) -> tuple[int, int] | None:
    """Major and minor version of an x86 kernel image, from its setup header; None for other kernels.

    The Linux/x86 Boot Protocol, section "The Real-Mode Kernel Header", field `kernel_version`.
    """
    head = bytes(next(iter(kernel), b"")[: 64 * 1024])
    if head[_SETUP_OFFSET : _SETUP_OFFSET + 4] != _SETUP_MAGIC:
        return None
    start = (
        _VERSION_POINTER.unpack_from(head, _VERSION_FIELD)[0] + _VERSION_BASE
        if len(head) > _VERSION_FIELD + 1
        else 0
    )
    match = _VERSION.match(head[start : start + _VERSION_SIZE])
    return (int(match[1]), int(match[2])) if match is not None else None


def kernel_events(
    command_line: str, initrd: Iterable[Chunk] | None, bank: HashAlg
) -> tuple[PredictedEvent, ...]:
    """The command line in UTF-16 with NUL, then the initrd where there is one."""
    options = PredictedEvent(
        pcr=KERNEL_PCR,
        event_type=EventType.EV_EVENT_TAG,
        label="LOADED_IMAGE::LoadOptions",
        digest=bank.digest(command_line.encode("utf-16-le") + b"\0\0"),
    )
    if initrd is None:
        return (options,)
    loaded = PredictedEvent(
        pcr=KERNEL_PCR,
        event_type=EventType.EV_EVENT_TAG,
        label="Linux initrd",
        digest=hash_chunks(initrd, bank),
    )
    return options, loaded
