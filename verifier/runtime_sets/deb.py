"""Debian packages (deb(5)): the content of every file, under the names a system has it by."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import Entry, Source
from verifier.runtime_sets.ar import ArMember, ar_members
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.files import archive_stream
from verifier.runtime_sets.making import Digests, Making
from verifier.runtime_sets.names import components, joined
from verifier.runtime_sets.stream import ByteStream
from verifier.runtime_sets.tar import TarMember, tar_members

_SCRIPTS: Final = frozenset({b"preinst", b"postinst", b"prerm", b"postrm", b"config"})
_INFO: Final = b"/var/lib/dpkg/info/"
_UNPACKING: Final = b"/var/lib/dpkg/tmp.ci/"
_NAMED: Final = 8
_MAX_CONTROL: Final = 64 * 1024 * 1024
_FIELD: Final = re.compile(r"^(Package|Version|Architecture|Multi-Arch):[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_DIVERSION: Final = re.compile(rb"^[^#\n]*\bdpkg-divert\b", re.MULTILINE)


@dataclass(slots=True)
class _Control:
    """What `control.tar` says.

    Attributes:
        scripts: maintainer scripts with their digests: dpkg runs them from its own folders.
    """

    source: Source
    same: bool = False
    conffiles: frozenset[bytes] = frozenset()
    scripts: dict[bytes, Digests] = field(default_factory=dict)
    diverts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DebOptions:
    """What is listed of a package.

    Attributes:
        conffiles: its configuration files, as packed; whoever edits them on a machine changes their digests.
        scripts: its maintainer scripts, where dpkg runs them from.
        only: (name, version, architecture) of the packages that are wanted; None: all.
    """

    conffiles: bool = True
    scripts: bool = True
    only: frozenset[tuple[str, str, str]] | None = None


def deb_entries(paths: Sequence[Path], making: Making, options: DebOptions) -> Iterator[Entry]:
    """Entries of packages.

    `md5sums` of a package are not looked at: everything is hashed. Nothing checks who built a package; its hash in a
    signed index does (`verifier.runtime_sets.deb_index`).

    Raises:
        ArchiveError: a package that does not parse, with the offset.
    """
    found: set[tuple[str, str, str]] = set()
    making.progress.expect(len(paths))
    for path in paths:
        with archive_stream(path, making) as stream:
            yield from _package(stream, making, options, found)
    missing = sorted((options.only or frozenset()) - found)
    if missing:
        some = ", ".join(f"{name} {version} {arch}" for name, version, arch in missing[:_NAMED])
        making.notes.append(f"{len(missing)} wanted packages are not among the files: {some}")


def _package(
    stream: ByteStream, making: Making, options: DebOptions, found: set[tuple[str, str, str]]
) -> Iterator[Entry]:
    control: _Control | None = None
    for member in ar_members(stream):
        if member.name.startswith(b"control.tar"):
            control = _control(_inner(stream, member, making, "control.tar"), making)
            found.add(control.source[1:])
            if options.only is not None and control.source[1:] not in options.only:
                return
        elif member.name.startswith(b"data.tar"):
            if control is None:
                raise stream.error("data.tar stands before control.tar")
            yield from _data(_inner(stream, member, making, "data.tar"), control, making, options)
            yield from _script_entries(control, making, options)
            return
    raise stream.error("no control.tar and data.tar: no Debian package")


def _inner(stream: ByteStream, member: ArMember, making: Making, name: str) -> ByteStream:
    packed = ByteStream(member.content.read, f"{stream.structure} {name}", limit=making.limits.size)
    return expanded_whole(packed, limit=making.limits.size)


def _control(stream: ByteStream, making: Making) -> _Control:
    text: bytes | None = None
    conffiles: frozenset[bytes] = frozenset()
    scripts: dict[bytes, Digests] = {}
    diverts = False
    for member in tar_members(stream, most=making.limits.files):
        parts = components(member.name, stream, offset=member.offset)
        name = b"/".join(parts)
        if not member.is_regular or name not in {b"control", b"conffiles", *_SCRIPTS}:
            continue
        content = _small(stream, member)
        if name == b"control":
            text = content
        elif name == b"conffiles":
            conffiles = frozenset(line.split()[-1] for line in content.splitlines() if line.split())
        else:
            scripts[name] = making.hash_of(io.BytesIO(content).read)
            diverts = diverts or _DIVERSION.search(content) is not None
    if text is None:
        raise stream.error("no control file")
    fields = dict(_FIELD.findall(text.decode(errors="replace")))
    if not {"Package", "Version", "Architecture"} <= fields.keys():
        raise stream.error("the control file has no Package, Version and Architecture")
    source = Source("deb", fields["Package"], fields["Version"], fields["Architecture"])
    return _Control(source, fields.get("Multi-Arch") == "same", conffiles, scripts, diverts)


def _small(stream: ByteStream, member: TarMember) -> bytes:
    content = b""
    while chunk := member.read(_MAX_CONTROL + 1 - len(content)):
        content += chunk
        if len(content) > _MAX_CONTROL:
            raise stream.error(f"{member.name!r} is larger than {_MAX_CONTROL} bytes", offset=member.offset)
    return content


def _data(stream: ByteStream, control: _Control, making: Making, options: DebOptions) -> Iterator[Entry]:
    seen: dict[bytes, Digests] = {}
    sources = (control.source,)
    for member in tar_members(stream, most=making.limits.files):
        parts = components(member.name, stream, offset=member.offset)
        path = joined(parts)
        if member.is_hardlink:
            target = joined(components(member.target, stream, offset=member.offset))
            if target not in seen:
                raise stream.error(f"{path!r} links to {target!r}, which is not there", offset=member.offset)
            digests = seen[target]
        elif member.is_regular:
            digests = making.hash_of(member.read)
        else:
            continue
        seen[path] = digests
        if options.conffiles or path not in control.conffiles:
            yield from making.entries(path, digests, sources, packed=True)
    if control.diverts:
        making.notes.append(
            f"{control.source.text} may divert files of other packages (dpkg-divert): they then lie under other"
            " names than these"
        )


def _script_entries(control: _Control, making: Making, options: DebOptions) -> Iterator[Entry]:
    if not options.scripts:
        return
    package, arch = control.source.name.encode(), control.source.arch.encode()
    owner = package + b":" + arch if control.same else package
    for name, digests in sorted(control.scripts.items()):
        yield from making.entries(_INFO + owner + b"." + name, digests, (control.source,))
        yield from making.entries(_UNPACKING + name, digests, (control.source,))
