"""What is predicted: the events of a boot in order, and the PCR values they lead to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType, type_name
from verifier.tcg.eventlog import extend_all, initial_value

MAX_OPTIONAL: Final = 6
"""Optional events per PCR: every choice of them is one more value, and nobody reads more than 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedEvent:
    """One measurement of the boot to come.

    Attributes:
        digest: what is extended, in the bank of the prediction.
        label: what it is a digest of, for people.
        optional: some firmware or loaders leave it out; see docs/prediction.md.
    """

    pcr: int
    event_type: EventType
    label: str
    digest: bytes
    optional: bool = False

    @property
    def text(self) -> str:
        """Type and label in one line."""
        return f"{type_name(self.event_type)} {self.label}"


@dataclass(frozen=True, slots=True)
class PredictedValue:
    """A value the PCR may have, and what distinguishes the boot that leads to it (empty: nothing does)."""

    value: bytes
    when: str


@dataclass(frozen=True, slots=True)
class PredictedPcr:
    """A PCR all of whose measurements follow from the files given.

    Attributes:
        events: in order; empty for a PCR that must stay untouched.
        values: every value these events allow, the fullest first.
    """

    pcr: int
    events: tuple[PredictedEvent, ...]
    values: tuple[PredictedValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Everything that follows from the files of one image.

    Proves nothing about any machine: it says what a boot of exactly these files on firmware that measures as edk2
    does leads to. Whoever publishes it vouches for the files.

    Attributes:
        pcrs: by index.
        unpredicted: PCRs that such a boot does extend, and why their value does not follow from the files.
        secure_boot: as assumed; None where nothing predicted depends on it.
        command_line: what the kernel is told, where the image fixes it.
    """

    bank: HashAlg
    pcrs: Mapping[int, PredictedPcr]
    unpredicted: Mapping[int, str]
    secure_boot: bool | None
    command_line: str | None

    @property
    def events(self) -> tuple[PredictedEvent, ...]:
        """Every event, PCR by PCR."""
        return tuple(event for pcr in sorted(self.pcrs) for event in self.pcrs[pcr].events)


def predicted_pcr(
    pcr: int, events: Iterable[PredictedEvent], bank: HashAlg, endings: Iterable[tuple[str, ...]] = ((),)
) -> PredictedPcr:
    """Extend a PCR from reset with `events`, for every choice of the optional ones.

    Args:
        pcr: its index.
        events: those of this PCR, in order.
        bank: of the digests.
        endings: words that software may extend after the last logged event, for example boot phases; one value
            per ending.

    Raises:
        UnsupportedError: more than `MAX_OPTIONAL` optional events.
    """
    ordered = tuple(events)
    optional = [index for index, event in enumerate(ordered) if event.optional]
    if len(optional) > MAX_OPTIONAL:
        raise UnsupportedError(f"PCR {pcr} has {len(optional)} optional events")
    values: dict[bytes, str] = {}
    for count in range(len(optional) + 1):
        for left_out in itertools.combinations(reversed(optional), count):
            digests = [event.digest for index, event in enumerate(ordered) if index not in left_out]
            value = extend_all(initial_value(pcr, bank), digests, bank)
            missing = [ordered[index].label for index in sorted(left_out)]
            for ending in endings:
                final = extend_all(value, [bank.digest(word.encode()) for word in ending], bank)
                values.setdefault(final, _when(missing, ending))
    return PredictedPcr(pcr, ordered, tuple(PredictedValue(value, when) for value, when in values.items()))


def _when(missing: list[str], ending: tuple[str, ...]) -> str:
    parts = [f"without {', '.join(missing)}"] if missing else []
    if ending:
        parts.append(f"after {', '.join(ending)}")
    return "; ".join(parts)
