"""How a set is made: which digests, which paths, how much at most, and who is told about it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from verifier.policy.runtime.entry import KIND_OF, MAX_PATH, Entry, Kind, Source, logged_path
from verifier.policy.runtime.patterns import Patterns
from verifier.runtime_sets.errors import MakingError
from verifier.tcg.algorithms import HashAlg

GIB: Final = 1024**3
CHUNK: Final = 256 * 1024
Digests = tuple[bytes, ...]
"""One for each algorithm of the making, in its order."""


class Layout(enum.StrEnum):
    """Under which names files of `/bin`, `/sbin` and `/lib*` are listed."""

    BOTH = "both"
    """As packed, and below `/usr`."""
    MERGED = "merged"
    """Below `/usr` only, where a system with merged /usr has them and the kernel logs them."""
    PACKED = "packed"
    """As packed only."""


_MERGED: Final = (b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one archive may come to, expanded.

    Attributes:
        size: bytes.
        files: members of any kind.
    """

    size: int = 64 * GIB
    files: int = 4_000_000


class Progress(Protocol):
    """Someone who is told how far the making is."""

    def expect(self, files: int) -> None:
        """So many files will be begun."""
        ...

    def start(self, name: str, size: int | None) -> None:
        """A file is begun; `size` is its length in bytes, where it is known."""
        ...

    def advance(self, count: int) -> None:
        """So many bytes of it have been read."""
        ...


class Silent:
    """Nobody."""

    def expect(self, files: int) -> None:
        """Nothing."""

    def start(self, name: str, size: int | None) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """One making of a set.

    Attributes:
        algorithms: digests that are computed of every file.
        layout: see `Layout`; for packages only, images have their links.
        exclude: paths that are left out.
        prefix: put before every path, for what is unpacked elsewhere; empty or `/x/y`.
        notes: what people should know about the result; appended to.
    """

    algorithms: tuple[HashAlg, ...] = (HashAlg.SHA256,)
    layout: Layout = Layout.BOTH
    exclude: Patterns = field(default_factory=lambda: Patterns(()))
    prefix: bytes = b""
    limits: Limits = Limits()
    progress: Progress = field(default_factory=Silent)
    notes: list[str] = field(default_factory=list)

    def hash_of(self, read: Callable[[int], bytes]) -> Digests:
        """Digests of everything that `read` gives."""
        states = [_constructor(alg)() for alg in self.algorithms]
        while chunk := read(CHUNK):
            for state in states:
                state.update(chunk)
        return tuple([state.digest() for state in states])

    def entries(
        self, path: bytes, digests: Digests, sources: tuple[Source, ...], *, packed: bool = False
    ) -> Iterator[Entry]:
        """One file under the names that the kernel may log it by. `path` is absolute."""
        for name in self._names(path, packed=packed):
            logged = logged_path(self.prefix + name)
            if len(logged) > MAX_PATH:
                self.notes.append(f"left out, longer than the kernel logs: {logged[:80]!r}…")
            elif not self.exclude.match(logged):
                for alg, digest in zip(self.algorithms, digests, strict=True):
                    yield Entry(logged, KIND_OF[Kind.FILE, alg], digest, sources)

    def _names(self, path: bytes, *, packed: bool) -> tuple[bytes, ...]:
        if not packed or self.layout is Layout.PACKED or not path.startswith(_MERGED):
            return (path,)
        merged = b"/usr" + path
        return (merged,) if self.layout is Layout.MERGED else (path, merged)


def _constructor(alg: HashAlg) -> Callable[[], _State]:
    if alg.new is None:
        raise MakingError(f"{alg.label} is not available in this build of OpenSSL")
    return alg.new


class _State(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...
