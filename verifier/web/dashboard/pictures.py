"""Numbers as pictures: what the templates draw as SVG. Coordinates are in user units, from the top left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.ports import FleetSample
from verifier.reasons import Claim

STATES: Final = ("affirming", "warning", "contraindicated", "none", "stale", "enrolled", "revoked", "retired")
"""In the order they are stacked, from the bottom."""
WIDTH: Final = 760.0
HEIGHT: Final = 200.0
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Area:
    """One band of a stacked plot: its name, its outline, and its value at the end."""

    name: str
    points: str
    last: int


@dataclass(frozen=True, slots=True)
class Plot:
    """A stacked plot over time. `rows`: the same as a table, for who does not see it."""

    areas: tuple[Area, ...]
    top: int
    ticks: tuple[tuple[float, datetime], ...]
    rows: tuple[FleetSample, ...]
    width: float = WIDTH
    height: float = HEIGHT


def plot(samples: Sequence[FleetSample]) -> Plot | None:
    """Counts by state over time; None where there are not two samples to draw between."""
    if len(samples) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    top = max(*(sum(sample.counts.values()) for sample in samples), 1)
    start, span = samples[0].at, (samples[-1].at - samples[0].at).total_seconds()
    across = [WIDTH * (sample.at - start).total_seconds() / span for sample in samples]
    below = [0] * len(samples)
    areas = []
    for name in STATES:
        above = [low + sample.counts.get(name, 0) for low, sample in zip(below, samples, strict=True)]
        if above != below:
            outline = [*zip(across, above, strict=True), *reversed([*zip(across, below, strict=True)])]
            areas.append(Area(name, _points(outline, top), samples[-1].counts.get(name, 0)))
        below = above
    step = max(1, (len(samples) - 1) // (_TICKS - 1))
    ticks = tuple((across[index], samples[index].at) for index in range(0, len(samples), step))
    rows = tuple(samples[:: max(1, len(samples) // 24)])
    return Plot(tuple(areas), top, ticks, rows)


def _points(outline: Sequence[tuple[float, int]], top: int) -> str:
    return " ".join(f"{x:.1f},{HEIGHT - HEIGHT * value / top:.1f}" for x, value in outline)


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One AR4SI claim: its value, the tier it belongs to, and what the value means."""

    name: str
    value: int | None
    tier: str
    meaning: str


def vector_rows(vector: Mapping[str, int]) -> list[ClaimRow]:
    """All eight claims, those nobody spoke for too."""
    return [_row(claim, vector.get(claim.value)) for claim in Claim]


def _row(claim: Claim, value: int | None) -> ClaimRow:
    if value is None:
        return ClaimRow(claim.value, None, "absent", "nothing was judged")
    tier = next(name for low, name in _TIERS if value >= low)
    meaning = _MEANINGS.get((claim, value)) or _MEANINGS.get((None, value)) or tier
    return ClaimRow(claim.value, value, tier, meaning)


_TIERS: Final = ((96, "contraindicated"), (32, "warning"), (2, "affirming"), (-128, "none"))
_MEANINGS: Final[Mapping[tuple[Claim | None, int], str]] = {
    (None, 0): "could not be judged",
    (None, 99): "a cryptographic check failed",
    (Claim.INSTANCE_IDENTITY, 2): "recognized and trustworthy",
    (Claim.INSTANCE_IDENTITY, 96): "recognized, not trustworthy",
    (Claim.INSTANCE_IDENTITY, 97): "not recognized, and should be",
    (Claim.CONFIGURATION, 2): "known and approved",
    (Claim.CONFIGURATION, 32): "known vulnerabilities",
    (Claim.CONFIGURATION, 36): "elements that could not be judged",
    (Claim.CONFIGURATION, 96): "not acceptable",
    (Claim.EXECUTABLES, 2): "approved, at boot and after",
    (Claim.EXECUTABLES, 3): "approved at boot",
    (Claim.EXECUTABLES, 33): "something that is not recognized ran",
    (Claim.EXECUTABLES, 96): "something that must not run ran",
    (Claim.HARDWARE, 2): "genuine",
    (Claim.HARDWARE, 32): "known vulnerabilities",
    (Claim.HARDWARE, 96): "not acceptable",
    (Claim.HARDWARE, 97): "not recognized",
    (Claim.FILE_SYSTEM, 2): "approved",
    (Claim.FILE_SYSTEM, 32): "not recognized",
    (Claim.FILE_SYSTEM, 96): "not acceptable",
}
