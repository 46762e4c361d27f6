"""Content-addressed bytes: compressed when stored, proven against their digest when read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Final

import zstandard
from msgspec import Struct

from verifier.errors import StoredDataDamaged

RAW: Final = 0
ZSTD: Final = 1
MAX_SIZE: Final = 64 * 1024 * 1024
"""Nothing larger is stored, so nothing larger is expanded, whatever a damaged row says of itself."""
_LEVEL: Final = 3
_WORTHWHILE: Final = 256
"""Bytes; a smaller blob is not worth a frame."""
_SMALL: Final = 4 * 1024
_SMALL_LEVEL: Final = -1
"""Of a quote's bundle, the higher level takes 1 % more off, in three times the time."""


class _Compressors(threading.local):
    """Contexts are not safe to share between threads, and to make one costs twice what packing a bundle does."""

    def __init__(self) -> None:
        self.small = zstandard.ZstdCompressor(level=_SMALL_LEVEL)
        self.large = zstandard.ZstdCompressor(level=_LEVEL)


_compressors: Final = _Compressors()


class PackedBlob(Struct, frozen=True):
    """A row of `blob` or `judgement`, but for when it was last used."""

    digest: bytes
    codec: int
    size: int
    content: bytes


def pack(digest: bytes, data: bytes) -> PackedBlob:
    """Compress where that helps.

    Raises:
        ValueError: `digest` is not the SHA-256 of `data`, or there is too much of it: the caller's mistake.
    """
    if len(data) > MAX_SIZE:
        raise ValueError(f"a blob of {len(data)} bytes exceeds {MAX_SIZE}")
    if hashlib.sha256(data).digest() != digest:
        raise ValueError(f"{digest.hex()} is not the digest of the {len(data)} bytes given")
    if len(data) >= _WORTHWHILE:
        compressor = _compressors.small if len(data) < _SMALL else _compressors.large
        packed = compressor.compress(data)
        if len(packed) < len(data):
            return PackedBlob(digest, ZSTD, len(data), packed)
    return PackedBlob(digest, RAW, len(data), data)


def pack_all(contents: Mapping[bytes, bytes]) -> tuple[PackedBlob, ...]:
    """Pack blobs by their SHA-256."""
    return tuple([pack(digest, content) for digest, content in contents.items()])


def unpack(stored: PackedBlob) -> bytes:
    """The bytes, which are those of the digest.

    Raises:
        StoredDataDamaged: they are not; the digest is named and nothing is returned.
    """
    data = _expand(stored)
    if len(data) != stored.size or hashlib.sha256(data).digest() != stored.digest:
        raise _damaged(stored.digest, "its content no longer matches")
    return data


def _expand(stored: PackedBlob) -> bytes:
    if stored.codec == RAW:
        return stored.content
    if stored.codec != ZSTD:
        raise _damaged(stored.digest, f"unknown codec {stored.codec}")
    if not 0 <= stored.size <= MAX_SIZE:
        raise _damaged(stored.digest, f"impossible size {stored.size}")
    try:
        # The frame's own size would be trusted before `max_output_size` is looked at: check it first.
        if zstandard.frame_content_size(stored.content) != stored.size:
            raise _damaged(stored.digest, "its frame names another size")
        return zstandard.ZstdDecompressor().decompress(stored.content, max_output_size=stored.size)
    except zstandard.ZstdError as error:
        raise _damaged(stored.digest, str(error)) from error


def _damaged(digest: bytes, detail: str) -> StoredDataDamaged:
    return StoredDataDamaged(f"blob {digest.hex()} is damaged: {detail}")
