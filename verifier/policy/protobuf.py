"""Protocol buffers as bytes: just enough of the wire format to read what a library of ours serialized.

Not for bytes from outside: lengths are not checked.
"""

from __future__ import annotations

from typing import Final

_VARINT: Final = 0
_SIZES: Final = {1: 8, 5: 4}
"""Wire types of a fixed size; whatever else there is states its own."""


class Message:
    """Fields of one message, by number; absent ones read as empty, as protocol buffers have it."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        position = 0
        while position < len(data):
            tag, position = _varint(data, position)
            value: int | bytes
            kind = tag & 7
            if kind == _VARINT:
                value, position = _varint(data, position)
            else:
                fixed = _SIZES.get(kind)
                size, position = _varint(data, position) if fixed is None else (fixed, position)
                value = data[position : position + size]
                position += size
            self._fields.setdefault(tag >> 3, []).append(value)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The fields that are there."""
        return tuple(self._fields)

    def flag(self, number: int) -> bool:
        """A bool."""
        return bool(self._fields.get(number, [0])[0])

    def number(self, number: int) -> int:
        """A varint as written: two's complement in 64 bits where it is signed."""
        return int(self._fields[number][0])

    def raw(self, number: int) -> bytes:
        """Bytes, or a fixed-size number as it stands."""
        values = self._fields.get(number)
        return bytes(values[0]) if values else b""

    def text(self, number: int) -> str:
        """UTF-8."""
        return self.raw(number).decode()

    def message(self, number: int) -> Message:
        """A message."""
        return Message(self.raw(number))

    def messages(self, number: int) -> tuple[Message, ...]:
        """A repeated message."""
        return tuple([Message(bytes(value)) for value in self._fields.get(number, ())])


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, position
