"""Sections of a unified kernel image, as systemd-stub measures them (systemd, "TPM2 PCR Measurements").

Two events per section in PCR 11: the digest of the section's name, ASCII with NUL, then that of its content.
The name in the log is UTF-16 and covered by neither, so it is the digest that names the section.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.appraisal.boot.binding import BoundLog
from verifier.claims import Binding
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.uki import UKI_SECTIONS

UKI_PCR: Final = 11

_ORDER: Final = {name: place for place, name in enumerate(UKI_SECTIONS)}
_BY_DIGEST: Final = {
    alg: {alg.digest(name.encode() + b"\0"): name for name in UKI_SECTIONS}
    for alg in HashAlg
    if alg.new is not None
}


def name_sections(bound: BoundLog) -> None:
    """Recognise the pairs; the event of a section's content gets the section's name.

    Only pairs at the front of the PCR count, and only in the stub's own order: it measures before anything that
    it starts can, so that a pair added later names nothing.
    """
    positions = bound.positions.get(UKI_PCR, [])
    last = -1
    for named, content in zip(positions[0::2], positions[1::2], strict=False):
        name = _name(bound.facts[named].digests)
        if name is None or _ORDER[name] <= last:
            return
        last = _ORDER[name]
        bound.know(named, name)
        bound.facts[content] = bound.facts[content]._replace(binding=Binding.UNBOUND, name=name, text=None)


def _name(digests: Mapping[HashAlg, bytes]) -> str | None:
    names = {_BY_DIGEST[bank].get(digest) for bank, digest in digests.items()}
    return names.pop() if len(names) == 1 else None
