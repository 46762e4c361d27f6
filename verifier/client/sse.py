"""Server-sent events, read (HTML Living Standard, section 9.2.6): bytes in, whole events out, with a bound on each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from verifier.client.errors import ReplyError

MAX_EVENT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One event."""

    kind: str
    data: str
    id: str


@dataclass(slots=True)
class SseReader:
    """Feed it what arrives. An event counts once its empty line is here: half of one is dropped with the connection."""

    _rest: bytes = b""
    _size: int = 0
    _fields: dict[str, str] = field(default_factory=dict)
    _data: list[str] = field(default_factory=list)

    def feed(self, part: bytes) -> list[Received]:
        """Events that became whole.

        Raises:
            ReplyError: an event of more than `MAX_EVENT` bytes, or one that is not UTF-8.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        found: list[Received] = []
        for line in lines:
            try:
                event = self._line(line.removesuffix(b"\r").decode())
            except UnicodeDecodeError as error:
                raise ReplyError("an event that is not UTF-8") from error
            if event is not None:
                found.append(event)
        if self._size + len(self._rest) > MAX_EVENT:
            raise ReplyError(f"an event of more than {MAX_EVENT} bytes")
        return found

    def _line(self, line: str) -> Received | None:
        if not line:
            return self._whole()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name:  # a line that begins with a colon is a sign of life
            self._size += len(line)
        if name == "data":
            self._data.append(value)
        elif name:
            self._fields[name] = value
        return None

    def _whole(self) -> Received | None:
        fields, data = self._fields, self._data
        self._fields, self._data, self._size = {}, [], 0
        if not data:
            return None
        return Received(fields.get("event", "message"), "\n".join(data), fields.get("id", ""))
