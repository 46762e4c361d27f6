"""Patterns of paths: globs and regular expressions that match whole paths, in time linear in their length.

A guest chooses the paths it measures, so nothing here may backtrack: RE2 matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import re2

from verifier.policy.runtime.errors import RuntimeSetError

REGEX: Final = "regex:"
MAX_PATTERNS: Final = 4096
MAX_PATTERN: Final = 4096
_PARTS: Final = re.compile(r"/\*\*/|/\*\*$|\*\*|\*|\?|[^*?/]+|/")
_GLOB: Final = {"/**/": "/(?:.*/)?", "/**": "/.*", "*": "[^/]*", "?": "[^/]"}


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # paths are bytes
    options.dot_nl = True  # a line feed in a name must not get past a pattern
    options.log_errors = False
    options.never_capture = True
    return options


_OPTIONS: Final = _options()


class Patterns:
    """Patterns of which one must match a whole path. Equal where their texts are.

    A pattern is a glob (`*` and `?` within a component, `/**` for everything below), or, after `regex:`, an RE2
    expression. Both are anchored at either end.
    """

    __slots__ = ("_all", "_each", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises `RuntimeSetError` naming the pattern that is none."""
        self.texts = tuple(texts)
        if len(self.texts) > MAX_PATTERNS:
            raise RuntimeSetError(f"{len(self.texts)} patterns are more than {MAX_PATTERNS}")
        expressions = [expression(text) for text in self.texts]
        self._each = [_compiled(each, text) for each, text in zip(expressions, self.texts, strict=True)]
        joined = "|".join(f"(?:{each})" for each in expressions)
        self._all = _compiled(joined, f"{len(self.texts)} patterns together") if expressions else None

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __str__(self) -> str:
        return " ".join(self.texts)

    def __reduce__(self) -> tuple[type[Patterns], tuple[tuple[str, ...]]]:
        """Compiled expressions are not pickled; they are made again."""
        return Patterns, (self.texts,)

    def __repr__(self) -> str:
        return f"Patterns({self.texts!r})"

    def match(self, path: bytes) -> bool:
        """Whether any pattern matches the whole path."""
        return self._all is not None and self._all.fullmatch(path) is not None

    def which(self, path: bytes) -> str | None:
        """The first pattern that matches the whole path."""
        if not self.match(path):
            return None
        return next(
            text
            for text, each in zip(self.texts, self._each, strict=True)
            if each.fullmatch(path) is not None
        )


def expression(text: str) -> str:
    """A pattern as an RE2 expression; raises `RuntimeSetError` for an empty one, one with blanks, `**` beside letters."""
    if not 0 < len(text) <= MAX_PATTERN:
        raise RuntimeSetError(f"a pattern has 1 to {MAX_PATTERN} characters", where="pattern")
    if " " in text:
        raise RuntimeSetError(
            f"{text!r} has a blank; IMA logs blanks in paths as underscores: write '_'", where="pattern"
        )
    if text.startswith(REGEX):
        # RE2 sees bytes: a letter beyond ASCII is the bytes of its UTF-8.
        return text.removeprefix(REGEX).encode("utf-8", "surrogateescape").decode("latin-1")
    if "**" in _PARTS.findall(text):
        raise RuntimeSetError(
            f"{text!r}: '**' stands for whole components, as in '/tmp/**' or '/opt/**/*.pyc'", where="pattern"
        )
    return "".join(_GLOB.get(part) or _literal(part) for part in _PARTS.findall(text))


def _literal(part: str) -> str:
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\x{byte:02x}"  # noqa: PLR2004 - ASCII
        for byte in part.encode("utf-8", "surrogateescape")
    )


def _compiled(text: str, shown: str) -> Any:  # noqa: ANN401 - re2 publishes no type for it
    try:
        return re2.compile(text.encode("latin-1"), _OPTIONS)
    except re2.error as error:
        said = error.args[0]
        detail = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise RuntimeSetError(f"{shown[:200]}: {detail}", where="pattern") from error
