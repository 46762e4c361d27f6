"""Container images in one tar archive: which layers they have, and their content, checked against its digest.

OCI Image Format Specification 1.1 (image-layout, index, manifest); Docker's older archives have `manifest.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.errors import ArchiveError, MakingError
from verifier.runtime_sets.files import opened, streamed
from verifier.runtime_sets.making import Making, Silent
from verifier.runtime_sets.stream import ByteStream
from verifier.runtime_sets.tar import tar_members

_MAX_JSON: Final = 16 * 1024 * 1024
_MAX_LAYERS: Final = 1024
_MAX_NESTING: Final = 4
_COMPRESSED: Final = (b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh", b"\x5d\x00\x00")
_INDEX: Final = b"index.json"
_DOCKER: Final = b"manifest.json"


class Image:
    """An image's archive, open.

    Attributes:
        layers: names of the members that are its layers, lowest first, each with the SHA-256 it must have, if named.
    """

    def __init__(
        self, file: IO[bytes], path: Path, members: dict[bytes, tuple[int, int]], platform: str | None
    ) -> None:
        self._file = file
        self._path = path
        self._members = members
        if _INDEX in members:
            self.layers = self._oci(platform)
        else:
            self.layers = self._docker()
        if not 0 < len(self.layers) <= _MAX_LAYERS:
            raise MakingError(f"{len(self.layers)} layers; an image has 1 to {_MAX_LAYERS}", where=str(path))

    @contextmanager
    def layer(self, name: bytes, digest: str | None, making: Making) -> Iterator[ByteStream]:
        """A layer, expanded. Proven when it has been left without an error: it has the digest it was named by."""
        start, size = self._place(name)
        self._file.seek(start)
        state = hashlib.sha256()

        def read(count: int) -> bytes:
            data = self._file.read(min(count, start + size - self._file.tell()))
            state.update(data)
            making.progress.advance(len(data))
            return data

        stream = ByteStream(read, f"{self._path} {name.decode(errors='replace')}", limit=making.limits.size)
        making.progress.start(f"{self._path.name} {name.decode(errors='replace')[-16:]}", size)
        yield expanded_whole(stream, limit=making.limits.size)
        while stream.read(1 << 18):
            pass
        if digest is not None and state.hexdigest() != digest:
            raise stream.error(f"the layer has SHA-256 {state.hexdigest()}, not {digest}", offset=0)

    def _place(self, name: bytes) -> tuple[int, int]:
        if name not in self._members:
            raise MakingError(f"has no member {name.decode(errors='replace')!r}", where=str(self._path))
        return self._members[name]

    def _json(self, name: bytes) -> Any:  # noqa: ANN401 - read with care below
        start, size = self._place(name)
        if size > _MAX_JSON:
            raise MakingError(f"{name!r} has {size} bytes", where=str(self._path))
        self._file.seek(start)
        data = self._file.read(size)
        parent, _, digest = name.rpartition(b"/")
        if parent == b"blobs/sha256" and hashlib.sha256(data).hexdigest().encode() != digest:
            raise MakingError(f"{name.decode()} has another SHA-256 than its name", where=str(self._path))
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MakingError(
                f"{name.decode(errors='replace')} is no JSON: {error}", where=str(self._path)
            ) from error

    def _docker(self) -> list[tuple[bytes, str | None]]:
        try:
            (image,) = self._json(_DOCKER)
            return [(str(name).encode(), None) for name in image["Layers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise MakingError(
                "manifest.json is not that of one image; save one image at a time", where=str(self._path)
            ) from error

    def _oci(self, platform: str | None) -> list[tuple[bytes, str | None]]:
        document, nesting = self._json(_INDEX), 0
        try:
            while "layers" not in document:
                nesting += 1
                if nesting > _MAX_NESTING:
                    raise MakingError("indices that lead to indices", where=str(self._path))
                document = self._json(_blob(self._chosen(document["manifests"], platform)))
            return [(_blob(each), _digest(each)) for each in document["layers"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MakingError(f"not an OCI image: {error!r}", where=str(self._path)) from error

    def _chosen(self, manifests: list[dict[str, Any]], platform: str | None) -> dict[str, Any]:
        images = [each for each in manifests if _platform(each) != "unknown/unknown"]
        if platform is not None and any(_platform(each) for each in images):
            images = [each for each in images if _platform(each) in {platform, None}]
        if len(images) != 1:
            there = ", ".join(sorted({_platform(each) or "?" for each in manifests}))
            raise MakingError(f"{len(images)} images fit; name a platform of {there}", where=str(self._path))
        return images[0]


@contextmanager
def image(path: Path, platform: str | None) -> Iterator[Image | None]:
    """The image in a file; None where it is no image's archive. Raises `MakingError` for one that is not whole."""
    with opened(path) as file:
        start = file.read(6)
    if start.startswith(_COMPRESSED):
        yield None
        return
    try:
        with streamed(path, Silent(), limit=1 << 62) as stream:
            members = {
                _name(each.name): each.data for each in tar_members(stream, most=1 << 20) if each.is_regular
            }
    except ArchiveError:
        yield None  # whoever reads it as a file system says what is wrong
        return
    if _INDEX not in members and _DOCKER not in members:
        yield None
        return
    with opened(path) as file:
        yield Image(file, path, members, platform)


def _name(name: bytes) -> bytes:
    return name.removeprefix(b"./")


def _digest(descriptor: dict[str, Any]) -> str:
    algorithm, _, digest = str(descriptor["digest"]).partition(":")
    if algorithm != "sha256" or len(digest) != 64 or not digest.isalnum():  # noqa: PLR2004 - hex digits of SHA-256
        raise ValueError(f"digest {descriptor['digest']!r}")
    return digest


def _blob(descriptor: dict[str, Any]) -> bytes:
    return b"blobs/sha256/" + _digest(descriptor).encode()


def _platform(descriptor: dict[str, Any]) -> str | None:
    platform = descriptor.get("platform")
    return f"{platform['os']}/{platform['architecture']}" if isinstance(platform, dict) else None
