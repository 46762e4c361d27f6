"""The cpio archives (format `newc`, kernel documentation "initramfs buffer format") that systemd-stub makes."""

from __future__ import annotations

from typing import Final

_DIRECTORY: Final = ".extra"
_DIRECTORY_MODE: Final = 0o040555
_FILE_MODE: Final = 0o100444
_TRAILER: Final = b"TRAILER!!!"
_ALIGNMENT: Final = 4


def archive_of_one(name: str, content: bytes) -> bytes:
    """One file `/.extra/NAME`, as the stub packs a section for the initrd: no times, no owners, inodes from 1."""
    return (
        _entry(1, _DIRECTORY_MODE, _DIRECTORY.encode())
        + _entry(2, _FILE_MODE, f"{_DIRECTORY}/{name}".encode(), content)
        + _entry(0, 0, _TRAILER)
    )


def _entry(inode: int, mode: int, name: bytes, content: bytes = b"") -> bytes:
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    digits = "%08X" if name == _TRAILER else "%08x"
    header = b"070701" + "".join(digits % field for field in fields).encode() + name + b"\0"
    return _aligned(header) + _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
