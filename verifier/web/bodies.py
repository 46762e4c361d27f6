"""Request bodies: read within a limit and a time, expanded within a limit."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

import zstandard
from aiohttp import web

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.web.problems import SlowBodyError
from verifier.web.wire_codec import MAX_COMPRESSED_BODY

_GZIP: Final = 31
"""zlib's window bits for a gzip wrapper."""
_ZSTD_WINDOW: Final = 8 * 1024 * 1024
"""What a decoder of the HTTP coding has to offer, and all this one does (RFC 9659, section 3)."""
_ZSTD_STEP: Final = 256
"""Four bytes can say 128 KiB of one value, so one step makes at most 8 MiB before the limit is looked at."""


async def read_body(request: web.Request, limit: int, timeout_seconds: float) -> bytes:
    """The body, expanded where it was compressed; at most `limit` bytes.

    Raises:
        EvidenceError: too large (before it is read, where its length is announced), too slow, an unknown
            Content-Encoding, or compressed data that does not expand to exactly one body.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "zstd"}:
        raise EvidenceError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding {encoding!r}; send gzip or zstd"
        )
    raw_limit = limit if encoding == "identity" else min(limit, MAX_COMPRESSED_BODY)
    raw = await _read(request, raw_limit, timeout_seconds)
    if encoding == "identity":
        return raw
    # A small body can expand to many megabytes: not on the event loop.
    return await asyncio.to_thread(expand, raw, encoding, limit)


async def _read(request: web.Request, limit: int, timeout_seconds: float) -> bytes:
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        detail = f"the body did not arrive within {timeout_seconds:g} s"
        raise SlowBodyError(Reason.MALFORMED_REQUEST, detail) from None
    return b"".join(chunks)


def expand(data: bytes, encoding: str, limit: int) -> bytes:
    """Expand one gzip member or zstd frame; holds at most `limit` bytes and one step of the decoder."""
    return _gunzip(data, limit) if encoding == "gzip" else _unzstd(data, limit)


def _gunzip(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP)
    try:
        result = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise _broken("gzip", str(error)) from error
    if len(result) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        raise _broken("gzip", "truncated, or followed by other data")
    return result


def _unzstd(data: bytes, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    chunks: list[bytes] = []
    size = start = 0
    try:
        for start in range(0, len(data), _ZSTD_STEP):
            chunks.append(decompressor.decompress(data[start : start + _ZSTD_STEP]))
            size += len(chunks[-1])
            if size > limit:
                raise _too_large(limit)
            if decompressor.eof:
                break
    except zstandard.ZstdError as error:
        raise _broken("zstd", str(error)) from error
    if not decompressor.eof or decompressor.unused_data or start + _ZSTD_STEP < len(data):
        raise _broken("zstd", "truncated, or followed by other data")
    return b"".join(chunks)


def _too_large(limit: int) -> EvidenceError:
    return EvidenceError(Reason.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")


def _broken(encoding: str, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=f"{encoding} body")
