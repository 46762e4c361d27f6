"""ar archives, as deb(5) uses them: the common format, no symbol tables, names of at most 16 bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from verifier.runtime_sets.stream import ByteStream, Part

_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = 60
_END: Final = b"`\n"
_MOST: Final = 64


class ArMember(NamedTuple):
    """One member; read its content to its end before the next is asked for (what is left is passed over)."""

    name: bytes
    content: Part


def ar_members(stream: ByteStream) -> Iterator[ArMember]:
    """Every member. Raises `ArchiveError` where it is no such archive."""
    if stream.exactly(len(_MAGIC), "an ar archive") != _MAGIC:
        raise stream.error("does not begin with '!<arch>': no Debian package", offset=0)
    for _ in range(_MOST):
        if not stream.peek(1):
            return
        start = stream.offset
        header = stream.exactly(_HEADER, "an ar header")
        size = header[48:58].rstrip(b" ")
        if header[58:] != _END or not size.isdigit():
            raise stream.error("no ar header", offset=start)
        name = header[:16].rstrip(b" ").removesuffix(b"/")
        content = stream.part(int(size), f"the member {name!r}")
        yield ArMember(name, content)
        while content.read(1 << 18):
            pass
        if int(size) % 2 and stream.peek(1):
            stream.exactly(1, "padding")
    raise stream.error(f"more than {_MOST} members")
