"""Encode and decode wire messages: JSON or MessagePack, chosen by media type.

Decoding checks types, lengths, ranges and refuses unknown fields; it raises `WireError` and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
MEDIA_TYPES: Final = frozenset({JSON, MSGPACK, "application/vnd.msgpack", "application/x-msgpack"})

T = TypeVar("T")


class WireError(Exception):
    """A body that is not the message it should be; the text names the field where that is known."""


@lru_cache(maxsize=256)
def _decoder(kind: type[Any], media_type: str) -> Any:  # noqa: ANN401 - msgspec has two unrelated decoder types
    return msgspec.json.Decoder(kind) if media_type == JSON else msgspec.msgpack.Decoder(kind)


_json_encoder: Final = msgspec.json.Encoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()


def decode(body: bytes | bytearray, kind: type[T], media_type: str = JSON) -> T:
    """Decode `body` as `kind`. Raises `WireError` for anything that is not exactly such a message."""
    if media_type not in MEDIA_TYPES:
        raise WireError(f"media type {media_type!r} is not one of {JSON}, {MSGPACK}")
    try:
        result: T = _decoder(cast("Any", kind), media_type).decode(body)  # mypy: type[T] is not Hashable
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from error
    return result


def encode(message: object, media_type: str = JSON) -> bytes:
    """Encode `message`; bytes become base64 in JSON and binary in MessagePack."""
    return _json_encoder.encode(message) if media_type == JSON else _msgpack_encoder.encode(message)
