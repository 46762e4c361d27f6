"""Request bodies: read within a limit and a time, expanded within a limit."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final

import zstandard
from aiohttp import hdrs, web

from verifier.errors import EvidenceError
from verifier.reasons import Reason
from verifier.web.body_room import Room
from verifier.web.problems import SlowBodyError
from verifier.web.wire_codec import MAX_COMPRESSED_BODY

_GZIP: Final = 31
"""zlib's window bits for a gzip wrapper."""
SLOWEST: Final = 128 * 1024
"""Bytes a second at which a long body may come: a first IMA list over a slow line takes minutes."""
_GZIP_STEP: Final = 1024 * 1024
_ZSTD_WINDOW: Final = 8 * 1024 * 1024
"""What a decoder of the HTTP coding has to offer, and all this one does (RFC 9659, section 3)."""
_ZSTD_STEP: Final = 256
"""Four bytes can say 128 KiB of one value, so one step makes at most 8 MiB before the limit is looked at."""


async def read_body(
    request: web.Request, limit: int, timeout_seconds: float, room: Room | None = None
) -> bytes | bytearray:
    """The body, expanded where it was compressed; at most `limit` bytes, for which `room` is taken as they come.

    Raises:
        EvidenceError: too large (before it is read, where its length is announced), too slow, an unknown
            Content-Encoding, or compressed data that does not expand to exactly one body.
        OverloadedError: others have taken the room.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in {"identity", "gzip", "zstd"}:
        raise EvidenceError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding {encoding!r}; send gzip or zstd"
        )
    raw_limit = limit if encoding == "identity" else min(limit, MAX_COMPRESSED_BODY)
    grow = _ignore if room is None else room.grow
    raw = await _read(request, raw_limit, timeout_seconds, grow)
    if encoding == "identity":
        return raw
    # A small body can expand to many megabytes: not on the event loop.
    return await asyncio.to_thread(expand, raw, encoding, limit, grow)


def _ignore(_size: int) -> None:
    """No room is counted."""


async def _read(
    request: web.Request, limit: int, timeout_seconds: float, grow: Callable[[int], None]
) -> bytes | bytearray:
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if request.content.is_eof():
        # All of it came with its head, as nearly every body does: there is nothing to wait for, and one piece.
        whole = request.content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        grow(len(whole))
        return whole
    body = bytearray()  # grows in place: joining megabytes in the end would hold up the event loop

    def take(chunk: bytes) -> None:
        if len(body) + len(chunk) > limit:
            raise _too_large(limit)
        grow(len(chunk))
        body.extend(chunk)

    try:
        async with asyncio.timeout(timeout_seconds) as limited:
            latest = limited.when()
            async for chunk in request.content.iter_any():
                take(chunk)
                if latest is not None:
                    limited.reschedule(latest + len(body) / SLOWEST)
    except TimeoutError:
        detail = f"the body did not arrive within {timeout_seconds:g} s and 1 s for each {SLOWEST // 1024} KiB of it"
        raise SlowBodyError(Reason.MALFORMED_REQUEST, detail) from None
    return body


def expand(
    data: bytes | bytearray, encoding: str, limit: int, grow: Callable[[int], None] = _ignore
) -> bytearray:
    """Expand one gzip member or zstd frame; holds at most `limit` bytes and one step of the decoder.

    `grow` is told of every step, and may end it.
    """
    return _gunzip(data, limit, grow) if encoding == "gzip" else _unzstd(data, limit, grow)


def _gunzip(data: bytes | bytearray, limit: int, grow: Callable[[int], None]) -> bytearray:
    decompressor = zlib.decompressobj(_GZIP)
    body = bytearray()
    try:
        while data:
            chunk = decompressor.decompress(data, min(_GZIP_STEP, limit + 1 - len(body)))
            if len(body) + len(chunk) > limit:
                raise _too_large(limit)
            grow(len(chunk))
            body += chunk
            data = decompressor.unconsumed_tail
    except zlib.error as error:
        raise _broken("gzip", str(error)) from error
    if not decompressor.eof or decompressor.unused_data:
        raise _broken("gzip", "truncated, or followed by other data")
    return body


def _unzstd(data: bytes | bytearray, limit: int, grow: Callable[[int], None]) -> bytearray:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    body = bytearray()
    start = 0
    try:
        for start in range(0, len(data), _ZSTD_STEP):
            chunk = decompressor.decompress(data[start : start + _ZSTD_STEP])
            if len(body) + len(chunk) > limit:
                raise _too_large(limit)
            grow(len(chunk))
            body += chunk
            if decompressor.eof:
                break
    except zstandard.ZstdError as error:
        raise _broken("zstd", str(error)) from error
    if not decompressor.eof or decompressor.unused_data or start + _ZSTD_STEP < len(data):
        raise _broken("zstd", "truncated, or followed by other data")
    return body


def _too_large(limit: int) -> EvidenceError:
    return EvidenceError(Reason.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")


def _broken(encoding: str, detail: str) -> EvidenceError:
    return EvidenceError(Reason.MALFORMED_REQUEST, detail, structure=f"{encoding} body")
