"""Find how a list leads from a proven state to quoted PCR values: in which bank, by which rule, how far."""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping
from typing import Final, NamedTuple

from verifier.appraisal.ima.state import ImaState
from verifier.policy.runtime.reference import RuntimeReference
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import DEFAULT_PCR, ImaFormatError, ListEncoding
from verifier.tcg.ima.replay import Miss, Route, Scan
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.walk import read_entry

Quoted = Mapping[HashAlg, Mapping[int, bytes]]
_STRENGTH: Final = (
    HashAlg.SHA512,
    HashAlg.SHA384,
    HashAlg.SHA256,
    HashAlg.SHA3_512,
    HashAlg.SHA3_384,
    HashAlg.SHA3_256,
    HashAlg.SM3_256,
    HashAlg.SHA1,
)
"""Banks as they are preferred: SHA-1 proves least, so it decides only where nothing else is quoted."""


class _Anything:
    """Contains everything: for a scan that is not asked what its entries are."""

    def __contains__(self, digest: object) -> bool:
        return True


_ANYTHING: Final = _Anything()


class Proof(NamedTuple):
    """A prefix of a list that leads to the quoted value of its main PCR.

    Attributes:
        data: what was scanned.
        main: the PCR that decided.
        bank: in which it was proven.
        count: entries proven by this quote.
        end: offset of the byte after them in `data`.
        misses: those of them that are not accepted as a whole, by offset in `data`.
        aggregates: values after them, by PCR and bank.
        rules: how the kernel extends each bank.
        unproven: PCRs of entries that are not quoted with the value the entries lead to.
        mismatched: quoted banks of the main PCR that the same entries do not lead to.
    """

    data: bytes
    main: int
    bank: HashAlg
    count: int  # type: ignore[assignment]  # hides tuple.count, which nothing needs
    end: int
    misses: tuple[Miss, ...]
    aggregates: Mapping[int, Mapping[HashAlg, bytes]]
    rules: Mapping[HashAlg, BankRule]
    unproven: frozenset[int]
    mismatched: tuple[HashAlg, ...]


def main_pcr(state: ImaState, data: bytes, encoding: ListEncoding) -> int:
    """The PCR that decides how far a list is proven: that of its first entry, the boot aggregate."""
    if state.main is not None:
        return state.main
    try:
        return read_entry(data, 0, encoding, state.count).pcr if data else DEFAULT_PCR
    except ImaFormatError as error:
        if error.cut:
            return DEFAULT_PCR
        raise


def resumable(state: ImaState, quoted: Quoted) -> bool:
    """Whether a quoted bank is one whose value the state knows."""
    if state.count == 0 or state.main is None:
        return True
    known = state.aggregates.get(state.main, {})
    banks = [bank for bank, pcrs in quoted.items() if state.main in pcrs]
    return not banks or not known.keys().isdisjoint(banks)


class Trace:
    """Looks for proofs.

    Attributes:
        banks: quoted banks of the main PCR, the strongest first.
    """

    __slots__ = ("banks", "encoding", "main", "quoted", "reference", "step")

    def __init__(
        self, encoding: ListEncoding, quoted: Quoted, reference: RuntimeReference, step: int, main: int
    ) -> None:
        """Prepare; `step` entries are scanned between two pauses, for `main` see `main_pcr`."""
        self.encoding, self.quoted, self.reference = encoding, quoted, reference
        self.step, self.main = step, main
        found = [bank for bank, pcrs in quoted.items() if main in pcrs and bank.new is not None]
        self.banks = tuple(sorted(found, key=_STRENGTH.index) if len(found) > 1 else found)

    def find(self, state: ImaState, data: bytes, at: int) -> Generator[None, None, Proof | None]:
        """How the entries of `data` from offset `at` on lead on from `state`, or None.

        Raises:
            ImaFormatError: they are no entries.
        """
        banks = self.banks
        if state.count:
            known = state.aggregates.get(self.main, {})
            banks = tuple([bank for bank in banks if bank in known])
        for bank in banks[:1]:
            for rule in _rules(state, bank):
                accepted = self.reference.accepted(HashAlg.SHA1 if rule is BankRule.PADDED_SHA1 else bank)
                scan = yield from self._scan(state, data, at, bank, rule, accepted)
                if scan.found:
                    return (yield from self._proof(state, data, at, (bank, rule), banks[1:], scan))
        return None

    def _scan(
        self,
        state: ImaState,
        data: bytes,
        at: int,
        bank: HashAlg,
        rule: BankRule,
        accepted: Container[bytes],
    ) -> Generator[None, None, Scan]:
        start = {pcr: banks[bank] for pcr, banks in state.aggregates.items() if bank in banks}
        route = Route(bank, rule, start, self.quoted[bank], self.main)
        scan = Scan(data, self.encoding, route, accepted, state.count, at)
        while not scan.advance(self.step):
            yield
        return scan

    def _proof(
        self,
        state: ImaState,
        data: bytes,
        at: int,
        proven: tuple[HashAlg, BankRule],
        others: tuple[HashAlg, ...],
        scan: Scan,
    ) -> Generator[None, None, Proof]:
        """The proof, with what the same entries come to in the other quoted banks."""
        bank, rule = proven
        aggregates = {pcr: {bank: value} for pcr, value in scan.values.items()}
        rules, mismatched = {**state.rules, bank: rule}, []
        for other in others:
            for tried in _rules(state, other):
                second = yield from self._scan(state, data, at, other, tried, _ANYTHING)
                if second.found and second.position == scan.position:
                    rules[other] = tried
                    aggregates[self.main][other] = second.values[self.main]
                    break
            else:
                mismatched.append(other)
        targets = self.quoted[bank]
        return Proof(
            data=data,
            main=self.main,
            bank=bank,
            count=scan.index - state.count,
            end=scan.position,
            misses=tuple(scan.misses),
            aggregates=aggregates,
            rules=rules,
            unproven=frozenset([pcr for pcr, value in scan.values.items() if targets.get(pcr) != value]),
            mismatched=tuple(mismatched),
        )


def _rules(state: ImaState, bank: HashAlg) -> tuple[BankRule, ...]:
    """Rules to try: the one the kernel has shown, or all; without an entry any serves."""
    shown = state.rules.get(bank)
    if shown is not None:
        return (shown,)
    return (BankRule.OWN_HASH,) if bank is HashAlg.SHA1 else tuple(BankRule)
