"""Which entries of a list a runtime reference does not know; plain values, for other processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from verifier.errors import EvidenceError
from verifier.policy.runtime.reference import RuntimeReference, SignatureUse, Verdict
from verifier.policy.runtime.text import written
from verifier.ports_runtime import Recipe
from verifier.service.ima_work import Unreadable, reference_of
from verifier.tcg.ima.entry import BOOT_AGGREGATE, DigestType, ImaFields
from verifier.tcg.ima.parse import decode_entry
from verifier.tcg.ima.walk import detect_encoding, walk

MOST: Final = 5_000
"""Entries told of one list."""
_VERDICTS: Final = {Verdict.UNKNOWN_PATH: "unknown", Verdict.WRONG_DIGEST: "changed"}


class UnknownEntry(NamedTuple):
    """A file that was measured and that the reference does not have.

    Attributes:
        path: as a runtime set writes it.
        digest: kernel's name of the hash, colon, hex; with `verity:` before it for fs-verity's digest.
        change: `unknown` path, or a known path with `changed` content.
        package: what the sets have of this path, for people; None for an unknown one.
        known_as: another path the content is known under.
    """

    path: str
    digest: str
    change: str
    package: str | None
    known_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageWork:
    """A proven list, from its beginning, and what to hold it against."""

    recipe: Recipe
    data: pickle.PickleBuffer


def unknown_entries(work: TriageWork) -> tuple[UnknownEntry, ...] | Unreadable:
    """Each unknown file once, in the order in which it was first measured; for `Workers`."""
    reference = reference_of(work.recipe)
    found: dict[UnknownEntry, None] = {}
    try:
        for entry in _files(bytes(work.data)):
            unknown = _unknown(entry, reference)
            if unknown is not None:
                found[unknown] = None
                if len(found) >= MOST:
                    break
    except EvidenceError as error:
        return Unreadable.of(error)
    return tuple(found)


def _files(data: bytes) -> Iterator[ImaFields]:
    encoding = detect_encoding(data)
    for index, raw in enumerate(walk(data, encoding)):
        entry = decode_entry(raw, index, encoding.byte_order)
        if not entry.is_violation and entry.fields.path not in {None, BOOT_AGGREGATE}:
            yield entry.fields


def _unknown(fields: ImaFields, reference: RuntimeReference) -> UnknownEntry | None:
    path, algorithm, digest = fields.path, fields.algorithm, fields.digest
    if path is None or algorithm is None or digest is None:
        return None
    if fields.buffer is not None and not path.startswith("/"):
        return None  # critical data and keys: no files
    if fields.signature and reference.options.signatures is not SignatureUse.IGNORED:
        return None  # its signature decides, and is told of where it is not good
    found = reference.file(path, algorithm, digest, fields.digest_type)
    change = _VERDICTS.get(found.verdict)
    if change is None:
        return None
    prefix = "verity:" if fields.digest_type is DigestType.VERITY else ""
    return UnknownEntry(
        path=written(path.encode("utf-8", "surrogateescape").replace(b" ", b"_")).decode(),
        digest=f"{prefix}{algorithm}:{digest.hex()}",
        change=change,
        package=found.source,
        known_as=found.digest_known_as,
    )
