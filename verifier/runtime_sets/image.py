"""Images: a root filesystem in one tar archive, or a container image (OCI layout, `docker save`) in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import Entry, Source
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.files import archive_stream
from verifier.runtime_sets.layers import Image, image
from verifier.runtime_sets.making import Making, Silent
from verifier.runtime_sets.names import components
from verifier.runtime_sets.stream import ByteStream
from verifier.runtime_sets.tar import TarMember, tar_members
from verifier.runtime_sets.tree import Leaf, Parts, Tree

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"


def tar_entries(path: Path, making: Making, *, platform: str | None = None) -> Iterator[Entry]:
    """Entries of a root filesystem's tar archive, or of a container image's, which is recognised by what is in it.

    Args:
        path: the archive, compressed or not; an image must not be compressed as a whole.
        making: how.
        platform: of an image for several: `linux/amd64`.

    Raises:
        ArchiveError: it does not parse, with the offset; or a layer has another digest than its manifest says.
        MakingError: an image for several platforms, and none was named; links that lead round in a circle.
    """
    tree = Tree()
    with image(path, platform) as found:
        if found is not None:
            _apply_layers(found, tree, making, path.name)
        else:
            with archive_stream(path, making) as stream:
                _unpack(
                    expanded_whole(stream, limit=making.limits.size),
                    tree,
                    making,
                    Source("rootfs", path.name),
                )
    for name, leaf in tree.files():
        if leaf.digests is not None:
            yield from making.entries(name, leaf.digests, (leaf.source,))


def _apply_layers(found: Image, tree: Tree, making: Making, name: str) -> None:
    silent = Making(limits=making.limits, progress=Silent())
    for number, (member, digest) in enumerate(found.layers):
        version = f"layer-{number}" if digest is None else f"sha256:{digest}"
        # A layer's whiteouts are of what lies below it only, wherever they stand in it.
        with found.layer(member, digest, silent) as stream:
            for parts in _whiteouts(stream, making):
                _hide(tree, parts)
        with found.layer(member, digest, making) as stream:
            _unpack(stream, tree, making, Source("image", name, version), layer=True)


def _whiteouts(stream: ByteStream, making: Making) -> list[Parts]:
    names = [
        components(member.name, stream, offset=member.offset)
        for member in tar_members(stream, most=making.limits.files)
    ]
    return [parts for parts in names if parts and parts[-1].startswith(_WHITEOUT)]


def _hide(tree: Tree, parts: Parts) -> None:
    if parts[-1] == _OPAQUE:
        tree.empty(parts[:-1])
    else:
        hidden = parts[-1].removeprefix(_WHITEOUT)
        if hidden:
            tree.remove((*parts[:-1], hidden))


def _unpack(stream: ByteStream, tree: Tree, making: Making, source: Source, *, layer: bool = False) -> None:
    for member in tar_members(stream, most=making.limits.files):
        parts = components(member.name, stream, offset=member.offset)
        if parts and not (layer and parts[-1].startswith(_WHITEOUT)):
            _put(stream, tree, member, parts, making, source)


def _put(
    stream: ByteStream, tree: Tree, member: TarMember, parts: Parts, making: Making, source: Source
) -> None:
    if member.is_regular:
        tree.file(parts, Leaf(making.hash_of(member.read), source))
    elif member.is_hardlink:
        target = components(member.target, stream, offset=member.offset)
        if not tree.hardlink(parts, target):
            raise stream.error(
                f"{member.name!r} links to {member.target!r}, which is not there", offset=member.offset
            )
    elif member.is_symlink:
        tree.symlink(parts, member.target)
    elif member.is_directory:
        tree.folder(parts)
    else:
        tree.file(parts, Leaf(None, source))
