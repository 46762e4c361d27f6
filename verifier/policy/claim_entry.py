"""What a claim of the catalogue is, and how entries are made for each place that facts come from."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from verifier.claims import (
    BootDetails,
    BootFacts,
    EndorsementFacts,
    EventFact,
    ProvenClaims,
    UserspaceFacts,
    WindowsFacts,
)
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

Scalar = bool | int | str
Value = Scalar | list[Scalar] | Mapping[Scalar, "Value"]
"""What CEL computes with; digests are lower-case hex."""


class Kind(enum.Enum):
    """CEL types of claims; the value is how CEL writes the type."""

    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    STRING = "string"
    STRINGS = "list(string)"
    INTS = "list(int)"
    TEXT_MAP = "map(string, string)"
    NUMBER_MAP = "map(string, int)"
    BY_PCR = "map(int, string)"
    LISTS_BY_PCR = "map(int, list(string))"
    TEXTS_BY_NAME = "map(string, list(string))"


@dataclass(frozen=True)
class View:
    """Proven claims as one policy sees them: in its own bank.

    A boot log that was not replayed in that bank is not there.
    """

    claims: ProvenClaims
    bank: HashAlg

    @cached_property
    def boot(self) -> BootFacts | None:
        """The boot facts, if they hold in this bank."""
        boot = self.claims.boot
        return boot if boot is not None and self.bank in boot.banks else None

    @cached_property
    def pcrs(self) -> Mapping[int, bytes]:
        """Quoted values in this bank."""
        return self.claims.quote.pcrs.get(self.bank, {})

    def explained(self, pcr: int) -> bool:
        """Whether the log leads to the quoted value of `pcr`."""
        return self.boot is not None and pcr in self.pcrs and pcr not in self.boot.unlogged_pcrs

    def events(self, pcr: int) -> list[EventFact]:
        """Measured events of `pcr`, in order; empty where nothing is proven."""
        if self.boot is None or not self.explained(pcr):
            return []
        return [event for event in self.boot.events if event.pcr == pcr and self.bank in event.digests]


Extract = Callable[[View], Value | None]


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One claim.

    Attributes:
        name: as policies write it; at least one dot, so that no variable of a CEL macro can hide it.
        about: one sentence for people.
        speaks_for: the AR4SI claims a rule over it usually speaks for, the usual one first.
        extract: reads the value; None where it is not proven.
        pcrs: the claim is proven by events of at least one of these; empty: by the quote, by enrolment, or by
            whatever PCR there is.
        every: all of `pcrs` are needed.
        reads_log: it comes from the boot log.
    """

    name: str
    kind: Kind
    about: str
    speaks_for: tuple[Claim, ...]
    extract: Extract
    pcrs: frozenset[int] = frozenset()
    every: bool = False
    reads_log: bool = False

    def provable(self, pcrs: Iterable[int]) -> bool:
        """Whether a quote of `pcrs` that the log explains can prove it."""
        if not self.pcrs:
            return True
        return self.pcrs <= set(pcrs) if self.every else not self.pcrs.isdisjoint(pcrs)

    def read(self, view: View) -> Value | None:
        """The value, or None where it is not proven in this view."""
        if self.reads_log and view.boot is None:
            return None
        if not self.provable(filter(view.explained, self.pcrs)):
            return None
        return self.extract(view)


_USUAL: Final = {
    "quote": (Claim.HARDWARE, Claim.INSTANCE_IDENTITY),
    "boot": (Claim.CONFIGURATION,),
    "runtime": (Claim.EXECUTABLES, Claim.FILE_SYSTEM),
    "identity": (Claim.INSTANCE_IDENTITY, Claim.HARDWARE),
}


def claim(
    name: str,
    kind: Kind,
    about: str,
    extract: Extract,
    *pcrs: int,
    every: bool = False,
    speaks_for: tuple[Claim, ...] = (),
) -> ClaimEntry:
    """One entry; what it usually speaks for follows from the first part of its name, unless said."""
    source = name.partition(".")[0]
    return ClaimEntry(
        name=name,
        kind=kind,
        about=about,
        speaks_for=speaks_for or _USUAL[source],
        extract=extract,
        pcrs=frozenset(pcrs),
        every=every,
        reads_log=source == "boot",
    )


def boot(read: Callable[[BootFacts], Value | None]) -> Extract:
    """Off the boot facts."""
    return lambda view: None if view.boot is None else read(view.boot)


def details(read: Callable[[BootDetails], Value | None]) -> Extract:
    """Off the details, which are decoded when the first such claim is asked for."""

    def extract(view: View) -> Value | None:
        found = None if view.boot is None else view.boot.details
        return None if found is None else read(found)

    return extract


def windows(read: Callable[[WindowsFacts], Value | None]) -> Extract:
    """Off what Windows measured; unproven where it was not Windows that booted."""
    return details(lambda found: None if found.windows is None else read(found.windows))


def userspace(read: Callable[[UserspaceFacts], Value | None]) -> Extract:
    """Off what systemd measured once the kernel ran."""
    return details(lambda found: read(found.userspace))


def endorsement(read: Callable[[EndorsementFacts], Value | None]) -> Extract:
    """Off what enrolment proved of the EK."""

    def extract(view: View) -> Value | None:
        facts = view.claims.endorsement
        return None if facts is None else read(facts)

    return extract
