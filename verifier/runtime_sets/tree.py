"""A file system as it comes out when archives are unpacked over each other: links followed, whiteouts applied.

The kernel logs where a file really is, so `bin -> usr/bin` puts `bin/sh` under `/usr/bin/sh`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from verifier.policy.runtime.entry import Source
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.making import Digests

_MAX_LINKS: Final = 40
"""As the kernel: more is ELOOP."""
_MAX_DEPTH: Final = 1024


class Folder(dict[bytes, "Node"]):
    """Names to what they are."""

    __slots__ = ()


class Link:
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        self.target = target


class Leaf:
    """A file with its digests and where it came from; no digests: a device, a socket, nothing that is measured."""

    __slots__ = ("digests", "source")

    def __init__(self, digests: Digests | None, source: Source) -> None:
        self.digests = digests
        self.source = source


Node = Folder | Link | Leaf
Parts = tuple[bytes, ...]


class Tree:
    """Folders, files and links below one root. Names are parts without `..`; links stay below the root."""

    def __init__(self) -> None:
        self._root = Folder()

    def file(self, parts: Parts, leaf: Leaf) -> None:
        """Put a file; what was there goes."""
        self._parent(parts)[parts[-1]] = leaf

    def folder(self, parts: Parts) -> None:
        """Make a folder where there is none; a link to a folder stays one."""
        if parts:
            parent = self._parent(parts)
            there = parent.get(parts[-1])
            if not isinstance(there, Folder) and not (
                isinstance(there, Link) and self._leads_to_folder(parts)
            ):
                parent[parts[-1]] = Folder()

    def symlink(self, parts: Parts, target: bytes) -> None:
        """Put a symbolic link."""
        self._parent(parts)[parts[-1]] = Link(target)

    def hardlink(self, parts: Parts, target: Parts) -> bool:
        """Another name for what `target` is; whether there is such a thing."""
        found = self._parent(target).get(target[-1]) if target else None
        if found is None or isinstance(found, Folder):
            return False
        self._parent(parts)[parts[-1]] = found
        return True

    def remove(self, parts: Parts) -> None:
        """Take away what is there, if anything."""
        self._parent(parts).pop(parts[-1], None)

    def empty(self, parts: Parts) -> None:
        """Take away what is in a folder."""
        self._walk(parts).clear()

    def files(self) -> Iterator[tuple[bytes, Leaf]]:
        """Every file under its real path."""
        waiting: list[tuple[bytes, Folder]] = [(b"/", self._root)]
        while waiting:
            path, folder = waiting.pop()
            for name, node in folder.items():
                if isinstance(node, Folder):
                    waiting.append((path + name + b"/", node))
                elif isinstance(node, Leaf) and node.digests is not None:
                    yield path + name, node

    def _parent(self, parts: Parts) -> Folder:
        return self._walk(parts[:-1])

    def _leads_to_folder(self, parts: Parts) -> bool:
        try:
            return self._resolve(parts, make=False) is not None
        except MakingError:
            return False

    def _walk(self, parts: Parts) -> Folder:
        found = self._resolve(parts, make=True)
        if found is None:
            raise AssertionError("unreachable: folders are made")
        return found

    def _resolve(self, parts: Parts, *, make: bool) -> Folder | None:
        """The folder that `parts` lead to through links; made where there is none, None where it may not be."""
        path: list[Folder] = [self._root]
        waiting = list(reversed(parts))
        links = 0
        while waiting:
            part = waiting.pop()
            if part in {b"", b"."}:
                continue
            if part == b"..":
                if len(path) > 1:  # above the root is the root
                    path.pop()
                continue
            node = path[-1].get(part)
            if isinstance(node, Link):
                links += 1
                if links > _MAX_LINKS or len(waiting) > _MAX_DEPTH:
                    raise MakingError(
                        "symbolic links lead round in a circle",
                        where=b"/".join(parts).decode(errors="replace"),
                    )
                if node.target.startswith(b"/"):
                    path = [self._root]
                waiting.extend(reversed(node.target.split(b"/")))
                continue
            if not isinstance(node, Folder):
                if not make:
                    return None
                node = path[-1][part] = Folder()
            path.append(node)
        return path[-1]
