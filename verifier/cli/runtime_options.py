"""What the commands that make runtime sets have in common: options, progress, and what they say at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from verifier.cli import output
from verifier.errors import VtpmAttestError
from verifier.policy.runtime.entry import Entry
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.runtime_set import Head, RuntimeSet, assemble
from verifier.policy.runtime.writing import digest_of
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.files import save_set
from verifier.runtime_sets.making import GIB, Layout, Limits, Making
from verifier.runtime_sets.making import Progress as Told
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

Many = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Hash = Literal["sha1", "sha256", "sha384", "sha512"]
_SUFFIXES: Final = (".zst", ".rtset", ".txt")
_NOTES: Final = 20


@dataclass(frozen=True, kw_only=True)
class SetFile:
    """The set that is written.

    Attributes:
        out: where: `x.rtset`, or `x.rtset.zst` for a compressed one.
        name: of the set; that of the file by default.
        description: one line for people.
        json: print one JSON document.
    """

    out: Path
    name: str | None = None
    description: str = ""
    json: bool = False

    def head(self) -> Head:
        """Name and description; raises `RuntimeSetError` for what is none."""
        name = self.out.name
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        return Head(name=self.name or name.lower(), description=self.description)


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """What is hashed and how.

    Attributes:
        hash: digests to compute of each file: the hash the kernel is told to use (ima_hash=), sha256 by default.
        exclude: paths to leave out: /usr/share/doc/** or regex:...
        prefix: put before each path, for what is mounted elsewhere: /sysroot
        limit_gib: most that one archive may expand to, in GiB.
    """

    hash: Annotated[list[Hash] | None, Parameter(consume_multiple=True, negative=())] = None
    exclude: Many = None
    prefix: str = ""
    limit_gib: int = 64

    def making(self, progress: Told, layout: Layout = Layout.BOTH) -> Making:
        """The making that these options ask for."""
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise MakingError(f"{self.prefix!r} is no prefix such as /sysroot", where="--prefix")
        labels = dict.fromkeys(self.hash or ["sha256"])
        return Making(
            algorithms=tuple(HASH_BY_LABEL[label] for label in labels),
            layout=layout,
            exclude=Patterns(self.exclude or ()),
            prefix=self.prefix.encode(),
            limits=Limits(size=self.limit_gib * GIB),
            progress=progress,
        )


class Bar:
    """A bar for each file, on a terminal; of several files it says which of how many."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._files = 0
        self._begun = 0

    def expect(self, files: int) -> None:
        """Say how many there are from here on."""
        self._files, self._begun = files, 0

    def start(self, name: str, size: int | None) -> None:
        """Begin a file."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._begun += 1
        count = f"{self._begun}/{self._files} " if self._begun <= self._files else ""
        self._task = self._progress.add_task(f"{count}{escape(name[-40:])}", total=size)

    def advance(self, count: int) -> None:
        """Go on in it."""
        if self._task is not None:
            self._progress.advance(self._task, count)


@contextmanager
def told() -> Iterator[Told]:
    """Progress on stderr; nothing where nobody looks at a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.err, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield Bar(progress)


def make(
    target: SetFile,
    hashing: Hashing,
    entries: Callable[[Making], Iterable[Entry]],
    layout: Layout = Layout.BOTH,
) -> int:
    """Make a set, write it, and say what it is."""
    try:
        with told() as progress:
            head = target.head()
            making = hashing.making(progress, layout)
            runtime_set = assemble(head, entries(making))
    except VtpmAttestError as error:
        output.fail(error)
    return finish(target, runtime_set, making.notes)


def finish(target: SetFile, runtime_set: RuntimeSet, notes: Iterable[str] = ()) -> int:
    """Write a set and say what it is."""
    told_notes = list(dict.fromkeys([*notes, *_weak(runtime_set)]))
    try:
        if not len(runtime_set):
            raise MakingError("there is nothing in it, so nothing could ever be known", where=str(target.out))
        save_set(target.out, runtime_set)
    except VtpmAttestError as error:
        output.fail(error)
    document = summary(runtime_set) | {"out": str(target.out), "notes": told_notes}
    if target.json:
        output.print_json(document)
        return 0
    output.out.print(f"wrote {escape(str(target.out))}: {describe(runtime_set)}")
    output.out.print(f"sha256 {document['sha256']}")
    for note in told_notes[:_NOTES]:
        output.err.print(f"[yellow]note:[/] {escape(note)}")
    if len(told_notes) > _NOTES:
        output.err.print(f"[yellow]note:[/] {len(told_notes) - _NOTES} more; --json lists them")
    return 0


def _weak(runtime_set: RuntimeSet) -> Iterator[str]:
    count = sum(len(table) for kind, table in runtime_set.tables.items() if kind.alg is HashAlg.SHA1)
    if count:
        yield (
            f"{count} digests are SHA-1, for which two files with one digest can be made; where kernels log better"
            " ones (ima_hash=sha256), leave them out (prune --hash sha256)"
        )


def summary(runtime_set: RuntimeSet) -> dict[str, object]:
    """A set in JSON, without its entries."""
    return {
        "name": runtime_set.head.name,
        "description": runtime_set.head.description,
        "sha256": digest_of(runtime_set),
        "entries": len(runtime_set),
        "sources": len(runtime_set.sources),
        "digests": {kind.text.rstrip(":"): len(table) for kind, table in runtime_set.tables.items()},
    }


def describe(runtime_set: RuntimeSet) -> str:
    """A set in one line."""
    kinds = ", ".join(f"{len(table)} {kind.text.rstrip(':')}" for kind, table in runtime_set.tables.items())
    return f"{runtime_set.head.name}, {kinds or 'empty'}, {len(runtime_set.sources)} sources"
