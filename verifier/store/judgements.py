"""What verdicts say, packed for the store: the same again and again, so packed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from verifier.ports import VerdictRecord
from verifier.store import blobs, rows
from verifier.store.blobs import PackedBlob


class _Said(NamedTuple):
    findings: tuple[Mapping[str, Any], ...]
    """Held on to, so that no other findings can come to their identity."""
    vector: Mapping[str, int]
    endorsement: Mapping[str, Any] | None
    packed: PackedBlob

    def is_of(self, verdict: VerdictRecord) -> bool:
        return self.vector == verdict.vector and self.endorsement == verdict.endorsement


class Judgements:
    """Packs what verdicts say. Remembers the last few: by the very findings, which nobody changes, and by content."""

    def __init__(self, remembered: int = 512) -> None:
        self._remembered = remembered
        self._said: OrderedDict[int, _Said] = OrderedDict()
        self._packed: OrderedDict[bytes, PackedBlob] = OrderedDict()

    def packed(self, verdict: VerdictRecord) -> PackedBlob:
        """The judgement of a verdict.

        Raises:
            TypeError: a finding holds something that is not JSON.
        """
        if not isinstance(verdict.findings, tuple):
            return self._pack(verdict)
        key = id(verdict.findings)
        said = self._said.get(key)
        if said is None or not said.is_of(verdict):
            endorsement = None if verdict.endorsement is None else dict(verdict.endorsement)
            said = _Said(verdict.findings, dict(verdict.vector), endorsement, self._pack(verdict))
            self._said[key] = said
            self._forget(self._said)
        return said.packed

    def _pack(self, verdict: VerdictRecord) -> PackedBlob:
        digest, content = rows.judgement_bytes(verdict)
        found = self._packed.get(digest)
        if found is None:
            found = self._packed[digest] = blobs.pack(digest, content)
            self._forget(self._packed)
        return found

    def _forget(self, known: OrderedDict[Any, Any]) -> None:
        if len(known) > self._remembered:
            known.popitem(last=False)
