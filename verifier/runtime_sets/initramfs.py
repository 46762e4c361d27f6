"""What a kernel unpacks into its first root: concatenated cpio archives, each compressed or not.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Later archives replace what earlier ones put.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import Entry, Source
from verifier.runtime_sets.compression import expanded
from verifier.runtime_sets.cpio import MAGICS, Member, members
from verifier.runtime_sets.files import archive_stream
from verifier.runtime_sets.making import CHUNK, Making
from verifier.runtime_sets.names import MAX_NAME, components
from verifier.runtime_sets.stream import ByteStream
from verifier.runtime_sets.tree import Leaf, Tree

_MAGIC: Final = 6


def initramfs_entries(paths: Iterable[Path], making: Making) -> Iterator[Entry]:
    """Entries of initramfs images, each a root of its own (give the ones of one boot to one call each).

    Raises:
        ArchiveError: an image that does not parse, with the offset.
    """
    for path in paths:
        with archive_stream(path, making) as stream:
            yield from stream_entries(stream, making, Source("initramfs", path.name))


def stream_entries(stream: ByteStream, making: Making, source: Source) -> Iterator[Entry]:
    """Entries of one image."""
    tree = Tree()
    count = 0
    while stream.peek(1):
        if stream.peek(1) == b"\0":  # padding between archives
            _skip_zeroes(stream)
        elif stream.peek(_MAGIC) in MAGICS:
            _unpack(stream, tree, making, source)
            count += 1
        else:
            inner = expanded(stream, limit=making.limits.size)
            if inner is None:
                raise stream.error(
                    f"{stream.peek(_MAGIC)!r} begins neither a cpio archive nor compressed data"
                )
            count += 1
            _compressed(inner, tree, making, source)
    if not count:
        raise stream.error("no archive in it", offset=0)
    for path, leaf in tree.files():
        if leaf.digests is not None:
            yield from making.entries(path, leaf.digests, (leaf.source,))


def _compressed(stream: ByteStream, tree: Tree, making: Making, source: Source) -> None:
    while stream.peek(1):
        if stream.peek(1) == b"\0":
            _skip_zeroes(stream)
        else:
            _unpack(stream, tree, making, source)


def _skip_zeroes(stream: ByteStream) -> None:
    while data := stream.read(CHUNK):
        rest = data.lstrip(b"\0")
        if rest:
            stream.give_back(rest)
            return


def _unpack(stream: ByteStream, tree: Tree, making: Making, source: Source) -> None:
    """One archive into the tree."""
    linked: dict[tuple[int, int, int], Leaf] = {}
    for member in members(stream, most=making.limits.files):
        parts = components(member.name, stream, offset=member.offset)
        if not parts:
            continue
        if member.is_regular:
            leaf = Leaf(making.hash_of(member.content.read), source)
            if member.inode is not None:  # of several names of one file, one has the content
                first = linked.setdefault(member.inode, leaf)
                if member.size:
                    first.digests = leaf.digests
                leaf = first
            tree.file(parts, leaf)
        elif member.is_symlink:
            tree.symlink(parts, _target(stream, member))
        elif member.is_directory:
            tree.folder(parts)
        else:
            tree.file(parts, Leaf(None, source))


def _target(stream: ByteStream, member: Member) -> bytes:
    if member.size > MAX_NAME:
        raise stream.error("a symbolic link longer than a path", offset=member.offset)
    target = b""
    while data := member.content.read(MAX_NAME):
        target += data
    return target.rstrip(b"\0")
