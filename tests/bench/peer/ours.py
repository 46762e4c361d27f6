"""Our half, on the same bytes: the same questions, answered by what the service calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tests.bench.measure import seconds
from tests.bench.peer.inputs import NONCE, PCRS, Inputs
from tests.runtime_sets import SHA256 as FILE
from tests.runtime_sets import a_set
from verifier.appraisal.appraise import appraise
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.checks.quote import check_quote
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.appraisal.ima.judge import judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.appraisal.result import Appraisal
from verifier.findings import Status
from verifier.policy.learn import LearnOptions, learn
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy
from verifier.policy.runtime.compiled import CompiledReference
from verifier.policy.runtime.entry import Entry
from verifier.policy.runtime.section import NamedSet, RuntimeSection
from verifier.policy.runtime.writing import digest_of
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.ima.parse import to_binary

NOW = datetime(2026, 11, 28, tzinfo=UTC)
GOLDEN = """\
schema: vtpm-attest/policy/1
id: golden
description: every quoted PCR has its golden value
validity: 10m
quote: {{bank: sha256, pcrs: {pcrs}}}
boot_log: optional
rules:
{rules}
"""
RULE = """\
  - id: pcr-{pcr}
    severity: contraindicated
    claim: executables
    pcr: {{index: {pcr}, any_of: ["{value}"]}}
"""


def measure(inputs: Inputs) -> dict[str, float]:
    """CPU seconds of each work, by the names the peer's half has."""
    golden, strict = _golden(inputs), _strict(inputs)
    works: dict[str, Callable[[], object]] = {
        "quote rsa": lambda: _appraise(inputs, "rsa", golden, log=False),
        "quote ecc": lambda: _appraise(inputs, "ecc", golden, log=False),
        "boot log": _boot_log(inputs),
        "first boot": lambda: _appraise(inputs, "ecc", strict, log=True),
        "ima list": _ima(inputs),
    }
    for name in ("quote rsa", "quote ecc", "first boot"):
        found = works[name]()
        assert isinstance(found, Appraisal)
        failed = [
            finding.reason.value
            for finding in found.findings
            if finding.rule and finding.status is not Status.PASSED
        ]
        assert failed == [], (name, failed)
    return {name: seconds(work)[0] for name, work in works.items()}


def _machine(inputs: Inputs, kind: str, *, log: bool) -> tuple[Evidence, Expectation]:
    public, attest, signature = inputs.quotes[kind]
    evidence = Evidence(
        attest, signature, {HashAlg.SHA256: inputs.pcrs}, boot_log=inputs.log if log else None
    )
    request = (PcrRequest(bank=HashAlg.SHA256, pcrs=frozenset(PCRS)),)
    return evidence, Expectation(public, True, NONCE, request)


def _appraise(inputs: Inputs, kind: str, policy: Policy | None, *, log: bool) -> Appraisal:
    evidence, expected = _machine(inputs, kind, log=log)
    return appraise(evidence, expected, policy, History(), NOW)


def _boot_log(inputs: Inputs) -> Callable[[], object]:
    facts = check_quote(*_machine(inputs, "ecc", log=True)).facts
    assert facts is not None
    return lambda: bind_log(inputs.log, parse_event_log(inputs.log), facts.pcrs, None)


def _golden(inputs: Inputs) -> Policy:
    rules = "".join(RULE.format(pcr=pcr, value=value.hex()) for pcr, value in inputs.pcrs.items())
    return parse_policy(GOLDEN.format(pcrs=list(PCRS), rules=rules))


def _strict(inputs: Inputs) -> Policy:
    """Every event golden, as learned from this very boot: more than the peer's policy looks at."""
    claims = _appraise(inputs, "ecc", None, log=True).claims
    assert claims is not None
    options = LearnOptions(id="strict", description="", bank=HashAlg.SHA256)
    return parse_policy(learn({"boot": claims}, options).source)


def _ima(inputs: Inputs) -> Callable[[], object]:
    """The list as our agent sends it: the kernel's binary form of the same entries."""
    known = a_set(*(Entry(path.encode(), FILE, digest) for path, digest in inputs.digests.items()))
    section = RuntimeSection(sets=(NamedSet(digest_of(known)),))
    reference = CompiledReference(section, {digest_of(known): known}, HashAlg.SHA256)
    segment = ImaSegment(to_binary(inputs.ima))
    quoted = {HashAlg.SHA256: {**inputs.pcrs, 10: inputs.pcr10}}

    def work() -> object:
        outcome = judge(INITIAL, segment, quoted, reference)
        assert outcome.claims is not None
        assert outcome.claims.known >= len(inputs.digests) - 1  # the boot aggregate is no file
        return outcome

    return work
