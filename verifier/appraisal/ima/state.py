"""What was proven and judged of one boot's IMA list so far: from here the next tail is resumed.

Kept per attester, boot and reference revision. Frozen; `to_json` gives the text a store keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from verifier.errors import StoredDataDamaged
from verifier.findings import Finding, Severity
from verifier.policy.runtime.reference import SigningKey
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.ima.entry import ListEncoding
from verifier.tcg.ima.rules import BankRule

MAX_RETAINED: Final = 100
"""Findings kept in full; the rest is counted in `ImaSummary.more`."""


_NONE: Final[Mapping[str, int]] = {}


class ImaCounts(NamedTuple):
    """How many proven entries came out how; they add up to what `ImaState.count` counts.

    A named tuple, as are others here: a tail of ten entries is judged in microseconds.

    Attributes:
        known, staged, excluded: files, by the reference.
        signed: good by their signature alone.
        unknown: of no known path (files, modules).
        wrong: of a known path, with another digest.
        violations: of either kind.
        boot_aggregates: one per kernel that was started; more than one after kexec.
        keys: keys loaded onto keyrings, known or not.
        buffers: other critical data, known or not.
        unproven: entries of PCRs that the quote does not cover: neither proven nor judged.
        allowed: of all these, those that are not known and that the policy lets through all the same.
    """

    known: int = 0
    staged: int = 0
    excluded: int = 0
    signed: int = 0
    unknown: int = 0
    wrong: int = 0
    violations: int = 0
    boot_aggregates: int = 0
    keys: int = 0
    buffers: int = 0
    unproven: int = 0
    allowed: int = 0


class ImaSummary(NamedTuple):
    """What was judged so far.

    Attributes:
        counts: of entries.
        unknown_modules, policy_loads: how many of the files that are not known were kernel modules and IMA policies.
        findings: of entries, the first `MAX_RETAINED` in the order of the list. A bad entry stays bad until reboot.
        more: how many further findings there are, by reason code.
        more_worst: the gravest of those.
        learned: keys that were measured onto a keyring whose keys the policy trusts.
        aggregate: algorithm and digest of the first boot aggregate.
        boot_aggregate: True where that agrees with the PCRs as they were quoted; None where that alone does not tell.
    """

    counts: ImaCounts = ImaCounts()
    unknown_modules: int = 0
    policy_loads: int = 0
    findings: tuple[Finding, ...] = ()
    more: Mapping[str, int] = _NONE
    more_worst: Severity | None = None
    learned: tuple[SigningKey, ...] = ()
    aggregate: tuple[str, bytes] | None = None
    boot_aggregate: bool | None = None


_NOTHING_JUDGED: Final = ImaSummary()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImaState:
    """Where the proven part of the list ends, and what it came to. `INITIAL` is that of a boot nobody has seen.

    Attributes:
        count: entries proven since boot; the index of the next.
        main: the PCR they are measured into: that of the first.
        offset: bytes of the guest's binary list they take: the next segment starts here.
        encoding: of the list, once an entry has been read.
        aggregates: value by PCR and bank after the last of them: what the quote said.
        rules: how this kernel extends each bank, once an entry has shown it.
        revision: of the reference that judged (`RuntimeReference.revision`); empty at the start. Under another one
            the list must be judged from its beginning.
        summary: what was judged.
    """

    count: int = 0
    main: int | None = None
    offset: int = 0
    encoding: ListEncoding | None = None
    aggregates: Mapping[int, Mapping[HashAlg, bytes]] = field(default_factory=dict)
    rules: Mapping[HashAlg, BankRule] = field(default_factory=dict)
    revision: bytes = b""
    summary: ImaSummary = _NOTHING_JUDGED

    def usable(self, revision: bytes) -> bool:
        """Whether a reference of this revision may go on from here, or must start over from `INITIAL`."""
        return self.count == 0 or self.revision == revision

    def to_json(self) -> str:
        """This state as JSON text; `from_json` reads it back, equal."""
        plain = _Plain(
            count=self.count,
            main=self.main,
            offset=self.offset,
            encoding=self.encoding,
            aggregates={
                pcr: {alg.label: value for alg, value in banks.items()}
                for pcr, banks in self.aggregates.items()
            },
            rules={alg.label: rule for alg, rule in self.rules.items()},
            revision=self.revision,
            summary=self.summary,
        )
        return msgspec.json.encode(plain).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ImaState:
        """Read what `to_json` wrote.

        Raises:
            StoredDataDamaged: it is not that.
        """
        try:
            plain = _decode.decode(text)
            return cls(
                count=plain.count,
                main=plain.main,
                offset=plain.offset,
                encoding=plain.encoding,
                aggregates={
                    pcr: {HASH_BY_LABEL[label]: value for label, value in banks.items()}
                    for pcr, banks in plain.aggregates.items()
                },
                rules={HASH_BY_LABEL[label]: rule for label, rule in plain.rules.items()},
                revision=plain.revision,
                summary=plain.summary,
            )
        except (msgspec.MsgspecError, KeyError, UnicodeError, RecursionError) as error:
            raise StoredDataDamaged(f"stored IMA state does not parse: {error}") from error


class _Plain(msgspec.Struct, kw_only=True):
    count: int
    main: int | None
    offset: int
    encoding: ListEncoding | None
    aggregates: dict[int, dict[str, bytes]]
    rules: dict[str, BankRule]
    revision: bytes
    summary: ImaSummary


_decode: Final = msgspec.json.Decoder(_Plain)
INITIAL: Final = ImaState()
