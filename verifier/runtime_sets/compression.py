"""Expand gzip, xz, lzma, bzip2 and zstd, in bounded memory and without reading beyond what was compressed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import zstandard

from verifier.runtime_sets.making import CHUNK
from verifier.runtime_sets.stream import ByteStream

_MEMORY: Final = 512 * 1024 * 1024
"""For xz's dictionary: `xz -9` takes 65 MB, Debian's and Fedora's packages no more."""
_ZSTD_WINDOW: Final = 1 << 27
"""What `zstd --long` makes at most by default, 128 MiB."""
_PEEKED: Final = 6
_GZIP: Final = 31
_UNSUPPORTED: Final = {
    b"\x02\x21\x4c\x18": "lz4 (legacy frames)",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO": "lzo",
}
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


class _Zlib:
    """zlib's object keeps what it did not get to in `unconsumed_tail`."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    def feed(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)


class _Lzma:
    """The objects of `lzma` and `bz2` keep their input themselves."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    def feed(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(data, most)


_FORMATS: Final[tuple[tuple[bytes, str, Callable[[], _Zlib | _Lzma]], ...]] = (
    (b"\x1f\x8b", "gzip", _Zlib),
    (b"\xfd7zXZ\0", "xz", lambda: _Lzma(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY))),
    (b"\x5d\x00\x00", "lzma", lambda: _Lzma(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY))),
    (b"BZh", "bzip2", lambda: _Lzma(bz2.BZ2Decompressor())),
)


def expanded(stream: ByteStream, *, limit: int) -> ByteStream | None:
    """What the one compressed member that begins here expands to; None where nothing is compressed here.

    Read to its end, `stream` stands behind the member. Raises `ArchiveError` for what is compressed in a way that is
    not read here; damaged data raise it when they are read.
    """
    start = stream.peek(_PEEKED)
    if start.startswith(_ZSTD_MAGIC):
        return ByteStream(_zstd(stream), f"{stream.structure} (zstd)", limit=limit)
    for magic, name, make in _FORMATS:
        if start.startswith(magic):
            return ByteStream(_member(stream, name, make()), f"{stream.structure} ({name})", limit=limit)
    for magic, name in _UNSUPPORTED.items():
        if start.startswith(magic):
            raise stream.error(f"compressed with {name}, which is not read here; expand it first")
    return None


def expanded_whole(stream: ByteStream, *, limit: int) -> ByteStream:
    """What a file expands to that may be compressed as a whole, in several members; else the file itself."""
    first = expanded(stream, limit=limit)
    if first is None:
        return stream
    member: ByteStream | None = first

    def read(count: int) -> bytes:
        nonlocal member
        while member is not None:
            data = member.read(count)
            if data:
                return data
            member = expanded(stream, limit=limit)
        return b""

    return ByteStream(read, first.structure, limit=limit)


def _member(stream: ByteStream, name: str, state: _Zlib | _Lzma) -> Callable[[int], bytes]:
    start = stream.offset

    def read(count: int) -> bytes:
        try:
            while not state.eof:
                data = stream.read(CHUNK) if state.hungry else b""
                if not data and state.hungry:
                    raise stream.error(f"{name} data are cut off", offset=start)
                expanded = state.feed(data, count)
                if state.eof:
                    stream.give_back(state.unused_data)
                if expanded:
                    return expanded
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise stream.error(f"{name} data are damaged: {error}", offset=start) from error
        return b""

    return read


def _zstd(stream: ByteStream) -> Callable[[int], bytes]:
    """One frame, block by block: a block expands to 128 KiB at most, and nothing is read behind the last."""
    start = stream.offset
    pieces = _frame(stream)
    state = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    held = b""

    def read(count: int) -> bytes:
        nonlocal held
        try:
            while not held:
                piece = next(pieces, None)
                if piece is None:
                    return b""
                held = state.decompress(piece)
        except zstandard.ZstdError as error:
            raise stream.error(f"zstd data are damaged: {error}", offset=start) from error
        data, held = held[:count], held[count:]
        return data

    return read


_BLOCK_HEADER: Final = 3
_RLE: Final = 1
_CHECKSUM: Final = 4
_DICTIONARY: Final = (0, 1, 2, 4)
_CONTENT_SIZE: Final = (0, 2, 4, 8)


def _frame(stream: ByteStream) -> Iterator[bytes]:
    """The bytes of one Zstandard frame (RFC 8878, section 3.1.1), block by block."""
    head = stream.exactly(5, "a zstd frame")
    descriptor = head[4]
    single, checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    size = _CONTENT_SIZE[descriptor >> 6] or int(single)
    yield head + stream.exactly(
        (0 if single else 1) + _DICTIONARY[descriptor & 3] + size, "the header of a zstd frame"
    )
    last = False
    while not last:
        raw = stream.exactly(_BLOCK_HEADER, "the header of a zstd block")
        header = int.from_bytes(raw, "little")
        last, kind, length = bool(header & 1), (header >> 1) & 3, header >> 3
        yield raw + stream.exactly(1 if kind == _RLE else length, "a zstd block")
    if checksum:
        yield stream.exactly(_CHECKSUM, "the checksum of a zstd frame")
