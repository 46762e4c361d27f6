"""The boot aggregate against the boot log: what the quote alone cannot tell.

IMA takes its boot aggregate over PCRs 0 to 9 as its kernel found them. Userspace may have extended 8 and 9 since
(systemd measures NvPCRs into 9), so they are taken from the log, as far as the log is proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.appraisal.ima.judge import ImaOutcome
from verifier.claims import BootFacts
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Claim, Reason
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg
from verifier.tcg.event_types import USERSPACE
from verifier.tcg.ima.boot_aggregate import Aggregate, check_aggregate
from verifier.tcg.ima.replay import start_value

Quoted = Mapping[HashAlg, Mapping[int, bytes]]
_LATER: Final = (8, 9)


def settle_boot_aggregate(outcome: ImaOutcome, quoted: Quoted, boot: BootFacts | None) -> ImaOutcome:
    """The outcome with the boot aggregate held against the log, where the quoted values alone did not agree.

    Where there is no proven log of its bank, nothing is concluded and the claim stays unproven.
    """
    claims, aggregate = outcome.claims, outcome.state.summary.aggregate
    if claims is None or claims.boot_aggregate is not None or aggregate is None:
        return outcome
    bank = HASH_BY_LABEL.get(aggregate[0])
    then = None if bank is None or boot is None else _at_start(bank, quoted, boot)
    match check_aggregate(*aggregate, () if then is None else (then,)):
        case Aggregate.AGREES:
            return outcome._replace(claims=claims._replace(boot_aggregate=True))
        case Aggregate.UNCHECKABLE:
            return outcome
        case Aggregate.NO_TPM:
            why = (
                "the kernel found no TPM when IMA started, so IMA is not what extended the PCR from its start"
            )
        case Aggregate.DIFFERS:
            why = "it is of other PCRs than the quote and the boot log lead to"
    broken = _finding(aggregate, outcome.state.main, why)
    claims = claims._replace(boot_aggregate=False)
    return outcome._replace(claims=claims, findings=(*outcome.findings, broken))


def _at_start(bank: HashAlg, quoted: Quoted, boot: BootFacts) -> Quoted | None:
    """PCR values of the bank when the kernel started; None where the log does not prove them."""
    values = dict(quoted.get(bank, {}))
    if bank not in boot.banks or not set(_LATER).isdisjoint(boot.unlogged_pcrs):
        return None
    for pcr in _LATER:
        value = start_value(pcr, bank)
        for event in boot.events:
            if event.pcr == pcr and event.event_type != USERSPACE and bank in event.digests:
                value = bank.digest(value + event.digests[bank])
        values[pcr] = value
    return {bank: values}


def _finding(aggregate: tuple[str, bytes], pcr: int | None, why: str) -> Finding:
    algorithm, digest = aggregate
    return Finding(
        reason=Reason.IMA_BOOT_AGGREGATE,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.EXECUTABLES,
        message=f"the list's boot aggregate does not agree with this boot: {why}",
        pcr=pcr,
        event_index=0,
        actual=f"{algorithm}:{digest.hex()}",
    )
