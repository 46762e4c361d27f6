"""Hold the replay of a log against quoted PCRs: which PCRs does the log explain?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.appraisal.boot.deviation import Deviation, Track
from verifier.appraisal.boot.diagnose import Diagnosis, Replayed, diagnose
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import ParsedEventLog, extend_all, initial_value, measured_digests

UKI_PCR: Final = 11
BOOT_PHASES: Final = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")
"""Words that systemd-pcrphase extends into PCR 11 after the log has ended, in the order of a boot."""


@dataclass(frozen=True, slots=True)
class ReplayMismatch:
    """A quoted PCR that the log does not lead to. No event of this PCR may be believed, unless `repaired`.

    Attributes:
        expected: the quoted value.
        actual: what the log replays to.
        diagnosis: where the two part, as far as it can be told, and which known quirk fits.
        repaired: the quirk is tolerated, and what it leaves of the log leads to the quoted value: that is believed.
    """

    pcr: int
    bank: HashAlg
    expected: bytes
    actual: bytes
    diagnosis: Diagnosis
    repaired: bool = False

    @property
    def quirk(self) -> Quirk | None:
        """The known quirk that fits."""
        return self.diagnosis.quirk

    @property
    def after_event(self) -> int | None:
        """As `Diagnosis.after_event`."""
        return self.diagnosis.after_event


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the log explains of the quoted values.

    Attributes:
        believed: PCR to the banks in which the log leads to its quoted value; never one with a mismatch that is not
            repaired.
        replayed_banks: banks of the quote that the log has.
        missing_banks: banks of the quote in which nothing could be replayed.
        unlogged: quoted PCRs that hold something and have no event, and those that mismatch.
        phases: boot phases that continue PCR 11 beyond the log.
        mismatches: the one that diverges first in the log comes first, those of which that is not known last.
        locality: from which PCR 0 started.
        dropped: positions of events that were not extended into PCRs that are believed all the same.
    """

    believed: Mapping[int, tuple[HashAlg, ...]]
    replayed_banks: tuple[HashAlg, ...]
    missing_banks: tuple[HashAlg, ...]
    mismatches: tuple[ReplayMismatch, ...]
    unlogged: tuple[int, ...]
    phases: tuple[str, ...]
    locality: int
    dropped: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Missed:
    """A PCR that a bank did not lead to."""

    pcr: int
    bank: HashAlg
    expected: bytes
    actual: bytes


class _Explainer:
    """One pass over the quoted banks."""

    def __init__(
        self, log: ParsedEventLog, pcrs: Mapping[HashAlg, Mapping[int, bytes]], phases: tuple[str, ...] | None
    ) -> None:
        self.log = log
        self.pcrs = pcrs
        self.believed: dict[int, tuple[HashAlg, ...]] = {}
        self.missed: list[_Missed] = []
        self.unlogged: set[int] = set()
        self.phases = phases

    def bank(self, bank: HashAlg) -> None:
        measured = measured_digests(self.log, bank)
        for pcr, expected in self.pcrs[bank].items():
            start = initial_value(pcr, bank, self.log.initial_locality)
            digests = measured.get(pcr, [])
            actual = extend_all(start, digests, bank)
            explained = self._by_phases(actual, expected, bank) if pcr == UKI_PCR else actual == expected
            if explained:
                self.believed[pcr] = (*self.believed.get(pcr, ()), bank)
                continue
            if digests:
                self.missed.append(_Missed(pcr, bank, expected, actual))
            self.unlogged.add(pcr)

    def _by_phases(self, actual: bytes, expected: bytes, bank: HashAlg) -> bool:
        """Whether boot phases, the same in every bank, lead from the log's value to the quoted one."""
        if self.phases is not None:
            words = [bank.digest(word.encode()) for word in self.phases]
            return extend_all(actual, words, bank) == expected
        for phases, value in _phase_values(actual, BOOT_PHASES, bank):
            if value == expected:
                self.phases = phases
                return True
        return False

    def reached(self, pcr: int, bank: HashAlg, value: bytes) -> bool:
        expected = self.pcrs[bank][pcr]
        if pcr != UKI_PCR or value == expected:
            return value == expected
        if self.phases is not None:
            return extend_all(value, [bank.digest(word.encode()) for word in self.phases], bank) == expected
        return any(led == expected for _, led in _phase_values(value, BOOT_PHASES, bank))

    def cost(self, pcr: int) -> int:
        return 1 << len(BOOT_PHASES) if pcr == UKI_PCR else 1


def _phase_values(
    value: bytes, words: Sequence[str], bank: HashAlg, said: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Every value that some of `words`, in their order, lead to, none first: 2**6 for six words."""
    yield said, value
    for position, word in enumerate(words):
        after = extend_all(value, [bank.digest(word.encode())], bank)
        yield from _phase_values(after, words[position + 1 :], bank, (*said, word))


def explain(
    log: ParsedEventLog,
    pcrs: Mapping[HashAlg, Mapping[int, bytes]],
    phases: tuple[str, ...] | None = None,
    tolerated: Collection[tuple[Quirk, int]] = (),
) -> Explanation:
    """Replay `log` in every quoted bank and compare; where that fails, say where and by which known quirk.

    Proven for a PCR in `believed`: its digests, in their order, but for those of `dropped`. Not proven: event types,
    data, and the order of events of different PCRs. A PCR that fails in one quoted bank is believed in none.

    Args:
        log: the untrusted log.
        pcrs: quoted values per bank, already proven by the quote.
        phases: those that continue PCR 11, where systemd's own log told; None: they are looked for.
        tolerated: quirks that a policy tolerates, with the PCR. Of these, what leads to the quoted value all the same
            is believed.
    """
    replayed = tuple(bank for bank in pcrs if bank in log.algorithms and bank.new is not None)
    explainer = _Explainer(log, pcrs, phases)
    for bank in replayed:
        explainer.bank(bank)
    believed = {pcr: banks for pcr, banks in explainer.believed.items() if pcr not in explainer.unlogged}
    mismatches, repairs = (
        _diagnosed(explainer, replayed, believed, tolerated) if explainer.missed else ((), {})
    )
    believed.update(dict.fromkeys(repairs, replayed))
    phases = explainer.phases if explainer.phases is not None and UKI_PCR in believed else ()
    locality = repairs[0].locality if 0 in repairs else None
    return Explanation(
        believed=believed,
        replayed_banks=replayed,
        missing_banks=tuple(bank for bank in pcrs if bank not in replayed),
        mismatches=mismatches,
        unlogged=tuple(sorted(explainer.unlogged - repairs.keys())),
        phases=phases,
        locality=log.initial_locality if locality is None else locality,
        dropped=frozenset().union(*(repair.dropped for repair in repairs.values())),
    )


def _diagnosed(
    explainer: _Explainer,
    banks: tuple[HashAlg, ...],
    believed: Mapping[int, tuple[HashAlg, ...]],
    tolerated: Collection[tuple[Quirk, int]],
) -> tuple[tuple[ReplayMismatch, ...], dict[int, Deviation]]:
    """Every mismatch with its diagnosis, and per PCR what to believe in spite of it."""
    failed: dict[int, list[HashAlg]] = {}
    for missed in explainer.missed:
        failed.setdefault(missed.pcr, []).append(missed.bank)
    diagnoses = diagnose(Replayed(explainer.log, banks, failed, frozenset(believed)), explainer)
    repairs = {
        pcr: diagnosis.repair
        for pcr, diagnosis in diagnoses.items()
        if diagnosis.repair is not None
        and (diagnosis.quirk, pcr) in tolerated
        and _exactly(explainer, pcr, failed[pcr], diagnosis.repair)
    }
    mismatches = [
        ReplayMismatch(m.pcr, m.bank, m.expected, m.actual, diagnoses[m.pcr], m.pcr in repairs)
        for m in explainer.missed
    ]
    return tuple(sorted(mismatches, key=_divergence)), repairs


def _exactly(explainer: _Explainer, pcr: int, banks: Sequence[HashAlg], repair: Deviation) -> bool:
    """Whether it leads to the quoted value itself: boot phases behind it would have to be told as well."""
    track = Track(explainer.log, pcr)
    return all(track.value(bank, repair) == explainer.pcrs[bank][pcr] for bank in banks)


def _divergence(mismatch: ReplayMismatch) -> tuple[bool, int]:
    at_event = mismatch.diagnosis.at_event
    return (at_event is None, at_event or 0)
