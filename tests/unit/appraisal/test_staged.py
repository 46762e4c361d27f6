"""Policies tried beside the one that decides: heard, named, and never more than their mode allows."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from tests.logs import agile_log
from tests.unit.appraisal.machines import NOW, SHA256, Machine, boot_events, codes, golden
from verifier.appraisal.appraise import appraise
from verifier.appraisal.checks import boot_log as boot_log_check
from verifier.appraisal.checks import quote as quote_check
from verifier.appraisal.evidence import History, PcrRequest
from verifier.appraisal.result import Severity, Status
from verifier.appraisal.staged import PolicySet, StagedPolicy, appraise_staged, union
from verifier.policy.assignment import Mode
from verifier.policy.model import LogUse
from verifier.policy.parse import parse_policy
from verifier.reasons import Reason, Tier
from verifier.tcg.algorithms import HashAlg

OTHER_LOG = agile_log(boot_events(kernel=b"kernel 2"))
MALFORMED = b"\xee" * 40

LAX = """\
schema: vtpm-attest/policy/1
id: {id}
description: nothing but what is quoted
validity: 10m
quote: {{bank: {bank}, pcrs: {pcrs}, signature_hashes: [{signed}]}}
boot_log: {log}
rules:
  - {{id: young, severity: warning, claim: hardware, cel: quote.clock.reset_count < 4000000000u}}
unjudged: [{{pcrs: {pcrs}, why: a policy for tests}}]
"""


def lax(name="lax", bank="sha256", pcrs="[0]", log="ignored", signed="sha256"):
    return parse_policy(LAX.format(id=name, bank=bank, pcrs=pcrs, log=log, signed=signed))


def next_policy():
    """Golden of another kernel, so that today's machine deviates from it."""
    return dataclasses.replace(golden(Machine.booted(OTHER_LOG)), id="next", revision="f" * 64)


def staged(machine, *tried, primary=None, evidence=None):
    policies = PolicySet(
        primary=golden() if primary is None else primary,
        staged=tuple(StagedPolicy(policy=policy, mode=mode) for policy, mode in tried),
    )
    return appraise_staged(evidence or machine.evidence(), machine.expectation(), policies, History(), NOW)


def of(appraisal, policy_id):
    return [f for f in appraisal.findings if f.rule is not None and f.rule.startswith(policy_id + "/")]


def test_alone_it_is_the_same_judgement():
    machine = Machine.booted()
    evidence = machine.evidence()
    alone = appraise(evidence, machine.expectation(), golden(), History(), NOW)
    assert staged(machine, evidence=evidence) == alone


def test_what_is_observed_is_recorded_and_moves_neither_tier_nor_vector():
    machine = Machine.booted()
    alone, observed = staged(machine), staged(machine, (next_policy(), Mode.OBSERVE))
    assert alone.tier is observed.tier is Tier.AFFIRMING
    assert observed.vector == alone.vector
    assert (observed.policy_id, observed.policy_revision) == (alone.policy_id, alone.policy_revision)
    summary, *findings = of(observed, "next")
    assert (summary.reason, summary.rule, summary.actual) == (
        Reason.POLICY_STAGED, "next/*", "contraindicated",
    )  # fmt: skip
    assert findings
    assert {f.severity for f in findings} == {Severity.INFO}
    assert all(f.status is not Status.PASSED for f in findings)


def test_an_observed_policy_adds_no_affirming_claim_either():
    """A claim that the policy in force does not speak for stays unspoken for."""
    machine = Machine.booted()
    alone = staged(machine, primary=lax())
    observed = staged(machine, (golden(), Mode.OBSERVE), (golden(), Mode.WARN), primary=lax())
    assert observed.vector == alone.vector
    assert observed.tier is alone.tier
    assert [f.actual for f in of(observed, "golden")] == ["affirming", "affirming"]


def test_what_warns_makes_a_warning_and_nothing_worse():
    machine = Machine.booted()
    warned = staged(machine, (next_policy(), Mode.WARN))
    assert warned.tier is Tier.WARNING
    assert max(f.tier for f in of(warned, "next")) is Tier.WARNING
    assert {value for value in warned.vector.values() if value >= 96} == set()
    assert of(warned, "next")[0].actual == "contraindicated"


def test_a_staged_policy_makes_no_verdict_better():
    deviating = Machine.booted(OTHER_LOG)
    bad = staged(deviating)
    for mode in (Mode.WARN, Mode.OBSERVE):
        tried = staged(deviating, (next_policy(), mode))
        assert tried.tier is bad.tier is Tier.CONTRAINDICATED
        assert codes(tried) == codes(bad)
        assert of(tried, "next")[0].status is Status.PASSED


def test_only_warn_and_observe_can_be_staged():
    with pytest.raises(ValueError, match="golden"):
        StagedPolicy(policy=golden(), mode=Mode.ENFORCE)


def test_pcrs_that_only_a_staged_policy_asks_for_do_not_fail_the_quote():
    """A challenge made before the assignment did not ask for them."""
    machine = Machine.booted()
    wants_more = lax("wants-more", pcrs="[0, 14]")
    for mode, tier in ((Mode.OBSERVE, Tier.AFFIRMING), (Mode.WARN, Tier.WARNING)):
        tried = staged(machine, (wants_more, mode))
        assert tried.tier is tier
        (finding,) = of(tried, "wants-more")
        assert (finding.reason, finding.status) == (Reason.QUOTE_PCR_SELECTION, Status.NOT_EVALUATED)
        assert "PCR 14" in finding.message
    (finding,) = of(staged(machine, (lax("other", "sha384"), Mode.OBSERVE)), "other")
    assert "sha384" in finding.message


def test_a_signature_hash_that_only_a_staged_policy_refuses_is_its_finding():
    machine = Machine.booted()
    tried = staged(machine, (lax("strict", signed="sha512"), Mode.WARN))
    assert tried.authenticated
    assert tried.tier is Tier.WARNING
    assert [f.reason for f in of(tried, "strict")] == [Reason.QUOTE_SIGNATURE_ALGORITHM]


def test_a_log_that_only_a_staged_policy_reads_refuses_nothing():
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=MALFORMED)
    tried = staged(machine, (golden(), Mode.OBSERVE), primary=lax(), evidence=evidence)
    assert tried.tier is Tier.AFFIRMING
    (finding,) = of(tried, "golden")
    assert (finding.reason, finding.status, finding.severity) == (
        Reason.MALFORMED_STRUCTURE, Status.NOT_EVALUATED, Severity.INFO,
    )  # fmt: skip
    assert tried.claims.boot is None


def test_what_the_deciding_policy_ignores_stays_unread_by_it():
    machine = Machine.booted()
    tried = staged(machine, (golden(), Mode.OBSERVE), primary=lax())
    assert tried.claims.boot is None


def test_a_missing_log_is_a_staged_policys_warning_only_where_the_first_does_not_say_so():
    machine = Machine.booted()
    evidence = machine.evidence(boot_log=None)
    tried = staged(machine, (golden(), Mode.WARN), primary=lax(), evidence=evidence)
    assert tried.tier is Tier.WARNING
    assert Reason.BOOT_LOG_MISSING in {f.reason for f in of(tried, "golden")}
    required = dataclasses.replace(lax("strict-log"), boot_log=LogUse.REQUIRED)
    both = staged(machine, (required, Mode.WARN), primary=golden(), evidence=evidence)
    assert [f.reason for f in of(both, "strict-log")] == [Reason.POLICY_STAGED]


def test_a_quote_that_proves_nothing_is_not_tried_against_anything():
    machine = Machine.booted()
    evidence = structs.replace(machine.evidence(), attest=Machine.booted(seed=2).evidence().attest)
    tried = staged(machine, (next_policy(), Mode.WARN), evidence=evidence)
    assert not tried.authenticated
    assert of(tried, "next") == []


def test_quote_and_log_are_read_once_for_any_number_of_policies(monkeypatch):
    counts = {"verify": 0, "bind": 0}
    verify, bind = quote_check.verify, boot_log_check.bind_log

    def count(name, work):
        def counted(*arguments):
            counts[name] += 1
            return work(*arguments)

        return counted

    machine, tried = Machine.booted(), [(next_policy(), Mode.WARN), (golden(), Mode.OBSERVE)]
    monkeypatch.setattr(quote_check, "verify", count("verify", verify))
    monkeypatch.setattr(boot_log_check, "bind_log", count("bind", bind))
    staged(machine, *tried, primary=lax(log="optional"))
    assert counts == {"verify": 1, "bind": 1}


def test_the_challenge_asks_for_everything_any_policy_needs_per_bank():
    sha384 = HashAlg.SHA384
    asked = union(
        [
            PcrRequest(SHA256, frozenset({0, 7})),
            PcrRequest(sha384, frozenset({4})),
            PcrRequest(SHA256, frozenset({7, 11})),
        ]
    )
    assert asked == (PcrRequest(SHA256, frozenset({0, 7, 11})), PcrRequest(sha384, frozenset({4})))
