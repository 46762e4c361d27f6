"""RPM packages: the content of every file in the payload, or the digests their headers have.

RPM 4 and 6 packages, format version 3 (rpm, docs/manual/format*.md): lead, signature header, header, payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import Entry, Source
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.cpio import Member, members
from verifier.runtime_sets.files import archive_stream
from verifier.runtime_sets.making import Digests, Making
from verifier.runtime_sets.names import components, joined
from verifier.runtime_sets.stream import ByteStream
from verifier.tcg.algorithms import HashAlg

_LEAD: Final = 96
_LEAD_MAGIC: Final = b"\xed\xab\xee\xdb"
_HEADER_MAGIC: Final = b"\x8e\xad\xe8\x01"
_HEAD: Final = struct.Struct(">4s4xII")
_INDEX: Final = struct.Struct(">IIII")
_MOST_TAGS: Final = 65_536
_TYPE_SIZE: Final = {3: 2, 4: 4, 5: 8}
_STRINGS: Final = frozenset({6, 8, 9})
_ALIGNMENT: Final = 8

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
_SIZES, _LONG_SIZES, _MODES, _DIGESTS, _FLAGS = 1028, 5008, 1030, 1035, 1037
_DIRECTORIES_OF, _BASENAMES, _DIRECTORIES, _DIGEST_ALGORITHM = 1116, 1117, 1118, 5011
_MD5: Final = 1
_ALGORITHMS: Final = {2: HashAlg.SHA1, 8: HashAlg.SHA256, 9: HashAlg.SHA384, 10: HashAlg.SHA512}
"""`RPMTAG_FILEDIGESTALGO` is an OpenPGP hash (RFC 9580, section 9.5); absent, it is MD5."""
_CONFIG: Final = 1 << 0
_GHOST: Final = 1 << 6
_TYPE: Final = 0o170000
_REGULAR: Final = 0o100000


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmOptions:
    """What is listed of a package.

    Attributes:
        config: its configuration files, as packed.
        header_digests: take the header's digests where its algorithm is the one wanted; several times faster, and
            as good as the package itself: RPM refuses to unpack files that differ from them.
    """

    config: bool = True
    header_digests: bool = False


@dataclass(frozen=True, slots=True)
class _File:
    path: bytes
    mode: int
    size: int
    digest: str
    flags: int

    @property
    def is_packed(self) -> bool:
        return self.mode & _TYPE == _REGULAR and not self.flags & _GHOST


def rpm_entries(paths: Sequence[Path], making: Making, options: RpmOptions) -> Iterator[Entry]:
    """Entries of packages. Signatures of packages are not checked here; `rpm --checksig` does.

    Raises:
        ArchiveError: a package that does not parse, with the offset.
    """
    making.progress.expect(len(paths))
    for path in paths:
        with archive_stream(path, making) as stream:
            yield from _package(stream, making, options)


def _package(stream: ByteStream, making: Making, options: RpmOptions) -> Iterator[Entry]:
    if not stream.exactly(_LEAD, "the lead of an RPM").startswith(_LEAD_MAGIC):
        raise stream.error("does not begin as an RPM package", offset=0)
    _Header(stream)  # signatures
    stream.exactly(-stream.offset % _ALIGNMENT, "padding")
    header = _Header(stream)
    source = Source("rpm", header.text(_NAME), _version(header), header.text(_ARCH))
    files = _files(header)
    used = _ALGORITHMS.get(header.numbers(_DIGEST_ALGORITHM)[0] if header.has(_DIGEST_ALGORITHM) else _MD5)
    found: Iterable[tuple[_File, Digests]] = _payload(stream, files, making)
    if options.header_digests and used is not None and making.algorithms == (used,):
        found = [(file, (_digest(stream, file, used),)) for file in files if file.is_packed]
    for file, digests in found:
        if options.config or not file.flags & _CONFIG:
            path = joined(components(file.path, stream))
            yield from making.entries(path, digests, (source,), packed=True)


def _digest(stream: ByteStream, file: _File, algorithm: HashAlg) -> bytes:
    try:
        digest = bytes.fromhex(file.digest)
    except ValueError:
        digest = b""
    if len(digest) != algorithm.size:
        raise stream.error(f"the header has no {algorithm.label} digest of {file.path[:200]!r}")
    return digest


def _payload(stream: ByteStream, files: tuple[_File, ...], making: Making) -> Iterator[tuple[_File, Digests]]:
    payload = expanded_whole(stream, limit=making.limits.size)
    by_path = {b"/".join(components(file.path, stream)): file for file in files}
    linked: dict[tuple[int, int, int], list[_File]] = {}
    content: dict[tuple[int, int, int], Digests] = {}
    for member in members(payload, most=making.limits.files, sizes=tuple([file.size for file in files])):
        file = _of(payload, member, files, by_path)
        if not file.is_packed:
            continue
        digests = making.hash_of(member.content.read)
        if member.inode is None:
            yield file, digests
            continue
        # Of several names of one file, one has the content.
        linked.setdefault(member.inode, []).append(file)
        if member.size or member.inode not in content:
            content[member.inode] = digests
    for inode, names in linked.items():
        yield from ((file, content[inode]) for file in names)


def _of(payload: ByteStream, member: Member, files: tuple[_File, ...], by_path: dict[bytes, _File]) -> _File:
    if member.index is not None:
        return files[member.index]
    name = b"/".join(components(member.name, payload, offset=member.offset))
    file = by_path.get(name)
    if file is None:
        raise payload.error(f"{name!r} is not in the package's header", offset=member.offset)
    return file


def _version(header: _Header) -> str:
    """`epoch:version-release`, as rpm shows it."""
    plain = f"{header.text(_VERSION)}-{header.text(_RELEASE)}"
    epoch = header.numbers(_EPOCH)[0] if header.has(_EPOCH) else 0
    return f"{epoch}:{plain}" if epoch else plain


def _files(header: _Header) -> tuple[_File, ...]:
    if not header.has(_BASENAMES):
        return ()
    names, folders = header.strings(_BASENAMES), header.strings(_DIRECTORIES)
    places = header.numbers(_DIRECTORIES_OF)
    sizes = header.numbers(_LONG_SIZES if header.has(_LONG_SIZES) else _SIZES)
    columns = (places, header.numbers(_MODES), sizes, header.strings(_DIGESTS), header.numbers(_FLAGS))
    if any(len(column) != len(names) for column in columns) or any(place >= len(folders) for place in places):
        raise header.error("the lists of files do not fit together")
    return tuple(
        _File(folders[place] + name, mode, size, digest.decode("ascii", "replace"), flags)
        for name, place, mode, size, digest, flags in zip(names, *columns, strict=True)
    )


class _Header:
    """A header structure: tags to values, read on demand."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._offset = stream.offset
        magic, count, size = _HEAD.unpack(stream.exactly(_HEAD.size, "an RPM header"))
        if magic != _HEADER_MAGIC or count > _MOST_TAGS:
            raise self.error("no RPM header")
        table = stream.exactly(count * _INDEX.size, "the index of an RPM header")
        self._data = stream.exactly(size, "the data of an RPM header")
        self._tags = {tag: (kind, at, number) for tag, kind, at, number in _INDEX.iter_unpack(table)}

    def error(self, detail: str) -> Exception:
        return self._stream.error(detail, offset=self._offset)

    def has(self, tag: int) -> bool:
        return tag in self._tags

    def _entry(self, tag: int) -> tuple[int, int, int]:
        entry = self._tags.get(tag)
        if entry is None or entry[1] > len(self._data) or not 0 < entry[2] <= len(self._data):
            raise self.error(f"tag {tag} is missing or outside the header")
        return entry

    def numbers(self, tag: int) -> tuple[int, ...]:
        kind, at, count = self._entry(tag)
        size = _TYPE_SIZE.get(kind)
        if size is None or at + size * count > len(self._data):
            raise self.error(f"tag {tag} is no list of {count} numbers")
        return tuple(
            [
                int.from_bytes(self._data[place : place + size], "big")
                for place in range(at, at + size * count, size)
            ]
        )

    def strings(self, tag: int) -> tuple[bytes, ...]:
        kind, at, count = self._entry(tag)
        words = self._data[at:].split(b"\0", count)
        if kind not in _STRINGS or len(words) <= count:
            raise self.error(f"tag {tag} is no list of {count} words")
        return tuple(words[:count])

    def text(self, tag: int) -> str:
        text = self.strings(tag)[0].decode(errors="replace")
        if not text:
            raise self.error(f"tag {tag} is empty")
        return text
