"""Read a runtime set, strictly: one way to write each set, every departure named by its line."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from verifier.policy.runtime.entry import KIND_BY_TEXT, DigestKind, Source
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.runtime_set import (
    MAX_ENTRIES,
    MAX_SOURCES,
    Assembly,
    Head,
    RuntimeSet,
    check_path,
)
from verifier.policy.runtime.text import read
from verifier.policy.runtime.writing import SCHEMA

MAX_LINE: Final = 32 * 1024
MAX_TEXT: Final = 2 * 1024 * 1024 * 1024
_COUNT: Final = re.compile(rb"0|[1-9][0-9]{0,7}")
_SOURCE_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HEX: Final = re.compile(rb"[0-9a-f]+")
_MAX_WORD: Final = 512
_NONE: Final = b"-"
_SOURCE_WORDS: Final = 4


def read_runtime_set(chunks: Iterable[bytes], *, digest: str | None = None) -> RuntimeSet:
    """The set that the chunks hold, in bounded memory beside it.

    Args:
        chunks: the text, cut anywhere.
        digest: the SHA-256 (hex) that the text must have; proven on return where it is given.

    Raises:
        RuntimeSetError: what is not canonical, with its line; or the text has another digest.
    """
    state = hashlib.sha256()
    found = _Reader(_lines(chunks, state)).read()
    if digest is not None and state.hexdigest() != digest:
        raise RuntimeSetError(f"its SHA-256 is {state.hexdigest()}, not {digest}")
    return found


def _lines(chunks: Iterable[bytes], state: hashlib._Hash) -> Iterator[bytes]:
    rest, total = b"", 0
    for chunk in chunks:
        state.update(chunk)
        total += len(chunk)
        if total > MAX_TEXT:
            raise RuntimeSetError(f"the text is longer than {MAX_TEXT} bytes")
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE:
            raise RuntimeSetError(f"a line is longer than {MAX_LINE} bytes")
        yield from lines
    if rest:
        raise RuntimeSetError("the last line does not end; the file is cut off")


class _Reader:
    """One pass over the lines."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._line = 0

    def read(self) -> RuntimeSet:
        head, line = self._head()
        sources = self._count(line, b"sources", MAX_SOURCES)
        entries = self._count(self._next(), b"entries", MAX_ENTRIES)
        known = self._sources(sources)
        assembly = Assembly(head, known)
        used = self._entries(entries, len(known), assembly)
        unused = set(range(len(known))) - used
        if unused:
            raise RuntimeSetError(f"source {min(unused)} ({known[min(unused)].text}) is named by no entry")
        if next(self._lines, None) is not None:
            raise self._error(f"more lines than the {entries} entries that were announced", ahead=1)
        return assembly.finish()

    def _error(self, detail: str, ahead: int = 0) -> RuntimeSetError:
        return RuntimeSetError(detail, line=self._line + ahead)

    def _next(self) -> bytes:
        line = next(self._lines, None)
        self._line += 1
        if line is None:
            raise self._error("the file ends here; it is cut off")
        return line

    def _text(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8: {error}") from error

    def _head(self) -> tuple[Head, bytes]:
        """The head and the line after it."""
        first = self._next()
        if first != SCHEMA.encode():
            raise self._error(f"begins with {first[:60]!r}, not {SCHEMA!r}: no runtime set, or a newer one")
        name = self._text(self._field(self._next(), b"name"))
        line, description = self._next(), ""
        if line.startswith(b"description "):
            description = self._text(self._field(line, b"description"))
            if not description:
                raise self._error("an empty description is left out")
            line = self._next()
        try:
            return Head(name=name, description=description), line
        except RuntimeSetError as error:
            raise self._error(error.detail, ahead=-1) from error

    def _field(self, line: bytes, name: bytes) -> bytes:
        if not line.startswith(name + b" "):
            raise self._error(f"expected {name.decode()!r}, found {line[:60]!r}")
        return line[len(name) + 1 :]

    def _count(self, line: bytes, name: bytes, most: int) -> int:
        text = self._field(line, name)
        if not _COUNT.fullmatch(text) or int(text) > most:
            raise self._error(f"{name.decode()}: {text[:20]!r} is not a number up to {most}")
        return int(text)

    def _sources(self, count: int) -> tuple[Source, ...]:
        found: list[Source] = []
        for _ in range(count):
            source = self._source(self._field(self._next(), b"source"))
            if found and source <= found[-1]:
                raise self._error("sources stand in ascending order, each once")
            found.append(source)
        return tuple(found)

    def _source(self, text: bytes) -> Source:
        words = text.split(b" ")
        if len(words) != _SOURCE_WORDS or not all(words):
            raise self._error("a source is: kind, name, version, architecture; '-' where there is none")
        try:
            kind, *rest = ("" if word == _NONE else read(word).decode() for word in words)
        except (ValueError, UnicodeDecodeError) as error:
            raise self._error(str(error)) from error
        if not _SOURCE_KIND.fullmatch(kind) or not rest[0] or max(map(len, rest)) > _MAX_WORD:
            raise self._error("a source has a kind (a-z, 0-9, '-') and a name, no word beyond 512 characters")
        return Source(kind, *rest)

    def _entries(self, count: int, sources: int, assembly: Assembly) -> set[int]:
        """Add every entry; the numbers of the sources that were named."""
        used: set[int] = set()
        origins: dict[bytes, tuple[int, ...]] = {_NONE: ()}
        last: tuple[bytes, str, bytes] = (b"", "", b"")
        for _ in range(count):
            words = self._next().split(b" ")
            if len(words) != 3:  # noqa: PLR2004 - as the message says
                raise self._error("an entry is: digest, sources, path, one blank between them")
            kind, digest = self._digest(words[0])
            path = self._path(words[2])
            key = (path, kind.text, digest)
            if key <= last:
                raise self._error("entries stand in ascending order of path and digest, each once")
            last = key
            numbers = origins.get(words[1])
            if numbers is None:
                numbers = origins[words[1]] = self._numbers(words[1], sources)
                used.update(numbers)
            assembly.add(path, kind, digest, numbers)
        return used

    def _digest(self, text: bytes) -> tuple[DigestKind, bytes]:
        start = text.rfind(b":") + 1
        kind = KIND_BY_TEXT.get(text[:start])
        if kind is None:
            raise self._error(f"{text[:60]!r} does not begin with a known kind of digest, such as sha256:")
        digits = text[start:]
        if len(digits) != 2 * kind.alg.size or not _HEX.fullmatch(digits):
            raise self._error(f"a {kind.alg.label} digest is {2 * kind.alg.size} lower-case hex digits")
        return kind, bytes.fromhex(digits.decode())

    def _path(self, text: bytes) -> bytes:
        try:
            path = read(text)
        except ValueError as error:
            raise self._error(str(error)) from error
        check_path(path, self._line)
        return path

    def _numbers(self, text: bytes, sources: int) -> tuple[int, ...]:
        words = text.split(b",")
        if not all(_COUNT.fullmatch(word) and int(word) < sources for word in words):
            raise self._error(f"{text[:60]!r} does not name sources by their numbers")
        numbers = tuple([int(word) for word in words])
        if any(left >= right for left, right in itertools.pairwise(numbers)):
            raise self._error("the sources of an entry stand in ascending order, each once")
        return numbers
