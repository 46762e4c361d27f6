"""A runtime set of what a machine measured: a machine known to be good, for nothing in a list says that it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from verifier.policy.runtime.entry import KERNEL_HASHES, KIND_OF, Entry, Kind, Source
from verifier.runtime_sets.compression import expanded_whole
from verifier.runtime_sets.files import archive_stream
from verifier.runtime_sets.making import CHUNK, Making
from verifier.tcg.ima.entry import BOOT_AGGREGATE, DigestType, ImaEntry
from verifier.tcg.ima.parse import fits, parse_list

_KINDS: Final = {DigestType.FILE: Kind.FILE, DigestType.VERITY: Kind.VERITY}


def ima_entries(paths: Iterable[Path], making: Making, *, source: str = "") -> Iterator[Entry]:
    """Entries of IMA lists, ascii or binary: the digests that stand there, whatever algorithms the making names.

    Left out, with a note: violations, entries whose template digest does not fit them, digests too weak to be
    kept. `boot_aggregate` is of the boot, not of a file.

    Raises:
        ImaFormatError: no list, with the offset.
    """
    for path in paths:
        with archive_stream(path, making) as stream:
            text = expanded_whole(stream, limit=making.limits.size)
            parsed = parse_list(b"".join(iter(lambda: text.read(CHUNK), b"")))  # noqa: B023 - used up here
        order = parsed.encoding.byte_order if parsed.encoding is not None else "little"
        origin = (Source("ima", source or path.name),)
        left: Counter[str] = Counter()
        for measured in parsed.entries:
            if measured.is_violation:
                left["violations"] += 1
            elif not fits(measured, order):
                left["entries whose digest does not fit them"] += 1
            elif measured.fields.path != BOOT_AGGREGATE:
                entry = _entry(measured, origin)
                if entry is None:
                    left["digests of an unknown or broken algorithm"] += 1
                elif not making.exclude.match(entry.path):
                    yield entry
        making.notes.extend(f"{path.name}: {count} {what} left out" for what, count in sorted(left.items()))


def _entry(measured: ImaEntry, sources: tuple[Source, ...]) -> Entry | None:
    fields = measured.fields
    alg = KERNEL_HASHES.get(fields.algorithm or "")
    if alg is None or fields.digest is None or len(fields.digest) != alg.size or not fields.path:
        return None
    kind = Kind.BUFFER if fields.buffer is not None else _KINDS[fields.digest_type]
    path = fields.path.encode("utf-8", "surrogateescape").replace(b" ", b"_")
    return Entry(path, KIND_OF[kind, alg], fields.digest, sources)
