"""A bounds-checked cursor: the only way bytes of a structure are read outside a measured fast path."""

from __future__ import annotations

import struct
from typing import Final

from verifier.errors import MalformedInputError

_U16: Final = struct.Struct(">H").unpack_from
_U32: Final = struct.Struct(">I").unpack_from
_U64: Final = struct.Struct(">Q").unpack_from
_U16LE: Final = struct.Struct("<H").unpack_from
_U32LE: Final = struct.Struct("<I").unpack_from
_U64LE: Final = struct.Struct("<Q").unpack_from


class Reader:
    """Reads one structure from front to back.

    Proves that every field read lies inside `data`, nothing about its meaning. Sizes are compared with the
    bytes left before anything is taken, so a hostile length costs nothing.

    Args:
        data: the whole structure.
        structure: its name in the specification, for error messages.

    Every method raises `MalformedInputError` naming the structure and the byte offset of the field.
    """

    __slots__ = ("_data", "_end", "offset", "structure")

    def __init__(self, data: bytes, structure: str) -> None:
        self._data = data
        self._end = len(data)
        self.structure = structure
        self.offset = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self.offset

    def _advance(self, count: int, what: str) -> int:
        start = self.offset
        end = start + count
        if count < 0 or end > self._end:
            raise self.error(f"{what} needs {count} bytes, {self._end - start} are left")
        self.offset = end
        return start

    def u8(self, what: str = "u8") -> int:
        """One byte."""
        return self._data[self._advance(1, what)]

    def u16(self, what: str = "u16") -> int:
        """Two bytes, big-endian."""
        value: int = _U16(self._data, self._advance(2, what))[0]
        return value

    def u32(self, what: str = "u32") -> int:
        """Four bytes, big-endian."""
        value: int = _U32(self._data, self._advance(4, what))[0]
        return value

    def u64(self, what: str = "u64") -> int:
        """Eight bytes, big-endian."""
        value: int = _U64(self._data, self._advance(8, what))[0]
        return value

    def u16le(self, what: str = "u16") -> int:
        """Two bytes, little-endian."""
        value: int = _U16LE(self._data, self._advance(2, what))[0]
        return value

    def u32le(self, what: str = "u32") -> int:
        """Four bytes, little-endian."""
        value: int = _U32LE(self._data, self._advance(4, what))[0]
        return value

    def u64le(self, what: str = "u64") -> int:
        """Eight bytes, little-endian."""
        value: int = _U64LE(self._data, self._advance(8, what))[0]
        return value

    def take(self, count: int, what: str = "field") -> bytes:
        """The next `count` bytes."""
        start = self._advance(count, what)
        return self._data[start : self.offset]

    def sized_u16(self, what: str = "field", *, limit: int | None = None) -> bytes:
        """Content of a TPM2B: a big-endian u16 size, then that many bytes.

        A size above `limit` (the specification's maximum for the type) or beyond the end is reported at the
        offset of the size field, which is where the lie stands.
        """
        start = self.offset
        size = self.u16(f"size of {what}")
        if limit is not None and size > limit:
            raise self.error(f"{what} is {size} bytes, at most {limit} are allowed", offset=start)
        if size > self._end - self.offset:
            raise self.error(f"{what} claims {size} bytes, {self._end - self.offset} are left", offset=start)
        return self.take(size, what)

    def finish(self) -> None:
        """The structure must end here: bytes after it would be neither signed for nor judged."""
        if self.offset != self._end:
            raise self.error(f"{self._end - self.offset} bytes follow the end of the structure")

    def error(self, detail: str, *, offset: int | None = None) -> MalformedInputError:
        """A `MalformedInputError` at `offset`, or where the cursor stands."""
        return MalformedInputError(self.structure, self.offset if offset is None else offset, detail)
