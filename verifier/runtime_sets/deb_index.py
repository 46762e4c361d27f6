"""Which packages: those below a folder, those of a mirror's `Packages` index, those of a system's status file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.files import opened, streamed
from verifier.runtime_sets.making import CHUNK, GIB, Silent
from verifier.runtime_sets.stream import ByteStream

_MAX_INDEX: Final = 4 * GIB
_MAX_LINE: Final = 1024 * 1024
_INSTALLED: Final = "install ok installed"
Stanza = dict[str, str]
"""Fields by lower-case name; of those with several lines the first."""


def packages_below(paths: Sequence[Path], suffix: str) -> list[Path]:
    """The files named, and below folders every file with the suffix, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(each for each in path.rglob(f"*{suffix}") if each.is_file()))
        else:
            found.append(path)
    if not found:
        raise MakingError(f"no {suffix} there", where=", ".join(map(str, paths)))
    return found


def packages_of_index(index: Path, mirror: Path) -> list[Path]:
    """The packages that a `Packages` index lists, checked against the SHA-256 it has for each.

    Proven on return: these are the files the index means. That the index is Debian's is for whoever fetched it
    (`InRelease` is signed; apt checks it).

    Args:
        index: `Packages`, as it is or compressed.
        mirror: the folder that its `Filename` fields start from.

    Raises:
        MakingError: a package that is missing or another one than the index says.
    """
    found = []
    for stanza in stanzas(index):
        name, wanted = stanza.get("filename", ""), stanza.get("sha256", "")
        if not name or not wanted:
            raise MakingError(f"{stanza.get('package')} has no Filename and SHA256", where=str(index))
        path = mirror / name
        if not path.resolve().is_relative_to(mirror.resolve()):
            raise MakingError(f"{name!r} leads out of the mirror", where=str(index))
        digest = _sha256(path)
        if digest != wanted:
            raise MakingError(f"has SHA-256 {digest}, the index says {wanted}", where=str(path))
        found.append(path)
    if not found:
        raise MakingError("lists no package", where=str(index))
    return found


def installed(status: Path) -> frozenset[tuple[str, str, str]]:
    """(name, version, architecture) of what is installed, by a system's `/var/lib/dpkg/status`."""
    found = frozenset(
        (stanza.get("package", ""), stanza.get("version", ""), stanza.get("architecture", ""))
        for stanza in stanzas(status)
        if stanza.get("status") == _INSTALLED
    )
    if not found:
        raise MakingError("lists no installed package", where=str(status))
    return found


def stanzas(path: Path) -> Iterator[Stanza]:
    """The paragraphs of a control file (Debian policy, section 5.1), as it is or compressed."""
    with streamed(path, Silent(), limit=_MAX_INDEX) as stream:
        current: Stanza = {}
        for line in _lines(expanded_whole(stream, limit=_MAX_INDEX)):
            if not line.strip():
                if current:
                    yield current
                current = {}
            elif not line[:1].isspace():
                name, colon, value = line.partition(":")
                if not colon:
                    raise MakingError(f"{line[:60]!r} is no field: value", where=str(path))
                current[name.lower()] = value.strip()
        if current:
            yield current


def _lines(stream: ByteStream) -> Iterator[str]:
    rest = b""
    while chunk := stream.read(CHUNK):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > _MAX_LINE:
            raise stream.error(f"a line is longer than {_MAX_LINE} bytes")
        yield from (line.decode(errors="replace") for line in lines)
    yield rest.decode(errors="replace")


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()
