"""What an earlier appraisal may leave for a later one: conclusions, named by everything they were drawn from.

Trust rule 5: a cached appraisal may be reused only when the bytes, the policy revision and every quoted PCR are
identical. So the keys hold those very values, not a digest of them (but for the log, which its SHA-256 names),
and whatever else the conclusion reads. What a boot log proves does not depend on the values of PCRs that it does not
measure, and those it is not told (`boot.told`): an IMA list that grows leaves it as it was. The quote, the key that
signed it, the nonce, the clock and the history are judged anew every time: nothing of them is ever kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from verifier.appraisal.alike import of_all_these
from verifier.claims import BootFacts, CertifiedIndex, EndorsementFacts, QuoteFacts, RuntimeFacts
from verifier.findings import Finding
from verifier.policy.model import Policy, Toleration
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.attest import ClockInfo

PcrValues = tuple[tuple[HashAlg, tuple[tuple[int, bytes], ...]], ...]


class LogNames(NamedTuple):
    """A boot log and what systemd's log continues it with, by SHA-256."""

    boot: bytes
    userspace: bytes | None


class BootKey(Struct, frozen=True):
    """All that `bind_log` reads."""

    log_sha256: bytes | None
    """None: the evidence has no log, or none that replays in a quoted bank."""
    pcrs: PcrValues
    """Every quoted PCR of every bank, ascending, as the log is told of it (`boot.told`)."""
    kernel_command_line: str | None
    userspace_sha256: bytes | None = None
    """Of the log of systemd; None where there is none, or nothing that it could continue."""
    indices: tuple[CertifiedIndex, ...] = ()
    """NV indices as they were certified, certificates apart: those are judged anew every time."""
    tolerated: tuple[Toleration, ...] = ()
    """Quirks of the log that the policy tolerates: they decide what is believed, and how grave it is."""


class BootOutcome(NamedTuple):
    """What a log proves against quoted PCRs, and what it fails to prove."""

    findings: tuple[Finding, ...]
    facts: BootFacts | None


class EvaluationKey(Struct, frozen=True):
    """All that a policy can read of proven claims."""

    policy_revision: str
    boot: BootKey
    signature_hash: HashAlg
    firmware_version: int
    endorsement: EndorsementFacts | None
    clock: ClockInfo | None
    """None where no rule of the policy reads it: it is another one in every quote."""
    runtime: RuntimeFacts | None = None


class WholeOutcome(NamedTuple):
    """What logs and policy came to together, where no IMA list was judged."""

    log_findings: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    boot: BootFacts | None


class Memo(Protocol):
    """Keeps conclusions by key. It may forget at any time; it must never answer for another key."""

    def whole(self, key: EvaluationKey) -> WholeOutcome | None:
        """What was kept, or None. `key.boot.log_sha256` is of the log that was sent, whatever it proved."""

    def keep_whole(self, key: EvaluationKey, outcome: WholeOutcome, log_size: int) -> None:
        """Keep an outcome; `log_size` in bytes says about how large it is."""

    def measured(self, names: LogNames) -> frozenset[int] | None:
        """The PCRs that these logs measure; what was kept, or None."""

    def keep_measured(self, names: LogNames, measured: frozenset[int]) -> None:
        """Keep them."""

    def boot(self, key: BootKey) -> BootOutcome | None:
        """What was kept, or None."""

    def keep_boot(self, key: BootKey, outcome: BootOutcome, log_size: int) -> None:
        """Keep an outcome; `log_size` in bytes says about how large it is."""

    def evaluation(self, key: EvaluationKey) -> tuple[Finding, ...] | None:
        """What was kept, or None."""

    def keep_evaluation(self, key: EvaluationKey, findings: tuple[Finding, ...]) -> None:
        """Keep the findings of one policy over one set of claims."""


class LocalMemo:
    """Keeps everything, for as long as one appraisal takes: several policies then share one reading of the log."""

    def __init__(self) -> None:
        self._boots: dict[BootKey, BootOutcome] = {}
        self._measured: dict[LogNames, frozenset[int]] = {}

    def whole(self, key: EvaluationKey) -> WholeOutcome | None:
        """Nothing: no policy is held twice against the logs of one appraisal."""
        del key
        return None

    def keep_whole(self, key: EvaluationKey, outcome: WholeOutcome, log_size: int) -> None:
        """Nothing is kept."""

    def measured(self, names: LogNames) -> frozenset[int] | None:
        """What was kept, or None."""
        return self._measured.get(names)

    def keep_measured(self, names: LogNames, measured: frozenset[int]) -> None:
        """Keep them."""
        self._measured[names] = measured

    def boot(self, key: BootKey) -> BootOutcome | None:
        """What was kept, or None."""
        return self._boots.get(key)

    def keep_boot(self, key: BootKey, outcome: BootOutcome, log_size: int) -> None:
        """Keep an outcome."""
        del log_size
        self._boots[key] = outcome

    def evaluation(self, key: EvaluationKey) -> tuple[Finding, ...] | None:
        """Nothing: no policy is evaluated twice within one appraisal."""
        del key
        return None

    def keep_evaluation(self, key: EvaluationKey, findings: tuple[Finding, ...]) -> None:
        """Nothing is kept."""


def boot_key(
    log_sha256: bytes | None,
    pcrs: Mapping[HashAlg, Mapping[int, bytes]],
    kernel_command_line: str | None,
    userspace_sha256: bytes | None = None,
    indices: tuple[CertifiedIndex, ...] = (),
    tolerated: tuple[Toleration, ...] = (),
) -> BootKey:
    """The key of what a log, and systemd's behind it, prove against these values under a policy that tolerates this."""
    if log_sha256 is None or userspace_sha256 is None:
        userspace_sha256, indices = None, ()
    return BootKey(log_sha256, _as_key(pcrs), kernel_command_line, userspace_sha256, indices, tolerated)


def evaluation_key(
    policy: Policy,
    boot: BootKey,
    quote: QuoteFacts,
    endorsement: EndorsementFacts | None,
    runtime: RuntimeFacts | None = None,
) -> EvaluationKey:
    """The key of what `policy` concludes. `boot.log_sha256` must be None where no boot facts are judged."""
    return EvaluationKey(
        policy.revision,
        boot,
        quote.signature_hash,
        quote.firmware_version,
        endorsement,
        quote.clock if policy.reads_clock else None,
        runtime,
    )


def _ordered(pcrs: Mapping[HashAlg, Mapping[int, bytes]]) -> PcrValues:
    banks = sorted(pcrs.items(), key=lambda item: item[0].label) if len(pcrs) > 1 else pcrs.items()
    return tuple([(bank, tuple(sorted(values.items()))) for bank, values in banks])


_as_key: Final = of_all_these(_ordered)
