"""Hold the replay of a log against quoted PCRs: which PCRs does the log explain?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import ParsedEventLog, extend_all, initial_value, measured_digests
from verifier.tcg.preimage import ALWAYS_COVERED

UKI_PCR: Final = 11
BOOT_PHASES: Final = ("enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final")
"""Words that systemd-pcrphase extends into PCR 11 after the log has ended, in the order of a boot."""


@dataclass(frozen=True, slots=True)
class ReplayMismatch:
    """A quoted PCR that the log does not lead to. No event of this PCR may be believed.

    Attributes:
        expected: the quoted value.
        actual: what the log replays to.
        after_event: where the log and the quote part, as far as it can be told: the event up to which the log
            leads to the quoted value (it has events that were not extended), or the first whose digest its own
            data contradicts; None where every event looks sound, as when one is missing.
    """

    pcr: int
    bank: HashAlg
    expected: bytes
    actual: bytes
    after_event: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the log explains of the quoted values.

    Attributes:
        believed: PCR to the banks in which the log leads to its quoted value; never one with a mismatch.
        replayed_banks: banks of the quote that the log has.
        missing_banks: banks of the quote in which nothing could be replayed.
        unlogged: quoted PCRs that hold something and have no event, and those that mismatch.
        phases: boot phases that continue PCR 11 beyond the log.
    """

    believed: Mapping[int, tuple[HashAlg, ...]]
    replayed_banks: tuple[HashAlg, ...]
    missing_banks: tuple[HashAlg, ...]
    mismatches: tuple[ReplayMismatch, ...]
    unlogged: tuple[int, ...]
    phases: tuple[str, ...]


class _Explainer:
    """One pass over the quoted banks."""

    def __init__(self, log: ParsedEventLog, phases: tuple[str, ...] | None) -> None:
        self.log = log
        self.believed: dict[int, tuple[HashAlg, ...]] = {}
        self.mismatches: list[ReplayMismatch] = []
        self.unlogged: set[int] = set()
        self.phases = phases

    def bank(self, bank: HashAlg, quoted: Mapping[int, bytes]) -> None:
        measured = measured_digests(self.log, bank)
        for pcr, expected in quoted.items():
            start = initial_value(pcr, bank, self.log.initial_locality)
            digests = measured.get(pcr, [])
            actual = extend_all(start, digests, bank)
            explained = self._by_phases(actual, expected, bank) if pcr == UKI_PCR else actual == expected
            if explained:
                self.believed[pcr] = (*self.believed.get(pcr, ()), bank)
                continue
            if digests:
                self.mismatches.append(self._mismatch(pcr, bank, expected, actual))
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

    def _mismatch(self, pcr: int, bank: HashAlg, expected: bytes, actual: bytes) -> ReplayMismatch:
        column = self.log.algorithms.index(bank)
        value = initial_value(pcr, bank, self.log.initial_locality)
        suspect, after = None, None
        for position, event in enumerate(self.log.events):
            if event.pcr != pcr or event.event_type == EventType.EV_NO_ACTION:
                continue
            digest = event.digests[column]
            value = extend_all(value, [digest], bank)
            if value == expected:
                after = position
            if suspect is None and event.event_type in ALWAYS_COVERED and digest != bank.digest(event.data):
                suspect = position
        return ReplayMismatch(pcr, bank, expected, actual, suspect if after is None else after)


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
) -> Explanation:
    """Replay `log` in every quoted bank and compare.

    Proven for a PCR in `believed`: its digests, in their order. Not proven: event types, data, and the order of
    events of different PCRs. A PCR that fails in one quoted bank is believed in none.

    Args:
        log: the untrusted log.
        pcrs: quoted values per bank, already proven by the quote.
        phases: those that continue PCR 11, where systemd's own log told; None: they are looked for.
    """
    replayed = tuple(bank for bank in pcrs if bank in log.algorithms and bank.new is not None)
    explainer = _Explainer(log, phases)
    for bank in replayed:
        explainer.bank(bank, pcrs[bank])
    believed = {pcr: banks for pcr, banks in explainer.believed.items() if pcr not in explainer.unlogged}
    phases = explainer.phases if explainer.phases is not None and UKI_PCR in believed else ()
    return Explanation(
        believed=believed,
        replayed_banks=replayed,
        missing_banks=tuple(bank for bank in pcrs if bank not in replayed),
        mismatches=tuple(explainer.mismatches),
        unlogged=tuple(sorted(explainer.unlogged)),
        phases=phases,
    )
