"""Machines with a software TPM, and evidence of them, for appraisal tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from tests.logs import EV_EFI_BOOT_SERVICES_APPLICATION, EV_IPL, Written, agile_log, secure_boot, separators
from tests.simulator import SoftwareTpm, Tamper
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.appraisal.result import Appraisal
from verifier.policy.learn import LearnOptions, learn
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NONCE = bytes(range(32))
SHA256 = HashAlg.SHA256
PCRS = (0, 4, 7, 8, 9)
LINE = "root=/dev/vda2 quiet"


def boot_events(line: str = LINE, kernel: bytes = b"kernel", *, secure: bool = True) -> list[Written]:
    return [
        Written(0, 0x8, b"1\0"),
        secure_boot(on=secure),
        *separators(),
        Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"device path", b"loader"),
        Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"device path", kernel),
        Written(8, EV_IPL, f"kernel_cmdline: {line}\0".encode(), line.encode()),
    ]


LOG = agile_log(boot_events())


@dataclass
class Machine:
    """A guest: its TPM and the log of its last boot."""

    tpm: SoftwareTpm
    log: bytes = LOG

    @classmethod
    def booted(cls, log: bytes = LOG, *, seed: int = 1, **options: object) -> Machine:
        tpm = SoftwareTpm(seed, **options)
        tpm.replay_log(log)
        return cls(tpm, log)

    def reboot(self, log: bytes | None = None, **options: object) -> None:
        self.tpm.reboot(**options)
        self.log = self.log if log is None else log
        self.tpm.replay_log(self.log)

    def evidence(
        self,
        *,
        nonce: bytes = NONCE,
        selection: object = None,
        tamper: Tamper | None = None,
        **changes: object,
    ) -> Evidence:
        selection = {SHA256: PCRS} if selection is None else selection
        extra = {"tamper": tamper} if tamper is not None else {}
        attest, signature = self.tpm.quote(nonce, selection, **extra)
        values = {SHA256: {pcr: self.tpm.pcrs(SHA256)[pcr] for pcr in PCRS}}
        return replace(Evidence(attest, signature, values, boot_log=self.log), **changes)

    def expectation(self, **changes: object) -> Expectation:
        request = (PcrRequest(bank=SHA256, pcrs=frozenset(PCRS)),)
        return replace(
            Expectation(self.tpm.ak_public, ak_activated=True, nonce=NONCE, request=request), **changes
        )


def golden(*machines: Machine, severity: str = "contraindicated") -> Policy:
    """A policy learned from good machines."""
    claims = {}
    for number, machine in enumerate(machines or (Machine.booted(),)):
        claims[f"boot{number}"] = appraise(
            machine.evidence(), machine.expectation(), None, History(), NOW
        ).claims
    options = LearnOptions(id="golden", description="", bank=SHA256, severity=severity)
    return parse_policy(learn(claims, options).source)


def judge(
    machine: Machine,
    evidence: Evidence | None = None,
    *,
    policy: Policy | None = None,
    history: History | None = None,
    **expected: object,
) -> Appraisal:
    return appraise(
        evidence or machine.evidence(),
        machine.expectation(**expected),
        policy or golden(),
        history or History(),
        NOW,
    )


def codes(appraisal: Appraisal) -> set[Reason]:
    """Everything that did not pass."""
    return {finding.reason for finding in appraisal.findings if finding.status.value != "passed"}
