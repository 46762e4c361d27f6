"""Write a runtime set. The text is canonical: equal sets are equal bytes, and their SHA-256 names them.

docs/runtime-policies.md describes the format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from verifier.policy.runtime.entry import Source
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.text import written

SCHEMA: Final = "vtpm-attest/runtime-set/1"
_CHUNK_LINES: Final = 4096


def write_runtime_set(runtime_set: RuntimeSet) -> Iterator[bytes]:
    """The set in chunks of text, some hundred kilobytes each."""
    lines = _head(runtime_set)
    number = {source: str(place).encode() for place, source in enumerate(runtime_set.sources)}
    texts = {kind: kind.text.encode() for kind in runtime_set.tables}
    for path, kind, digest, sources in runtime_set:
        origin = b",".join([number[source] for source in sources]) or b"-"
        lines.append(b"%b%b %b %b" % (texts[kind], digest.hex().encode(), origin, written(path)))
        if len(lines) >= _CHUNK_LINES:
            yield b"\n".join(lines) + b"\n"
            lines = []
    if lines:
        yield b"\n".join(lines) + b"\n"


def digest_of(runtime_set: RuntimeSet) -> str:
    """SHA-256 of the text, hex: what policies name the set by."""
    state = hashlib.sha256()
    for chunk in write_runtime_set(runtime_set):
        state.update(chunk)
    return state.hexdigest()


def _head(runtime_set: RuntimeSet) -> list[bytes]:
    head = runtime_set.head
    lines = [SCHEMA, f"name {head.name}"]
    if head.description:
        lines.append(f"description {head.description}")
    lines += [f"sources {len(runtime_set.sources)}", f"entries {len(runtime_set)}"]
    return [*(line.encode() for line in lines), *(b"source " + _source(each) for each in runtime_set.sources)]


def _source(source: Source) -> bytes:
    words = (written(word.encode()) or b"-" for word in source)
    return b" ".join(words)
