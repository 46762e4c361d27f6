"""A verdict event by event: who read each event, and what stands beside them all."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.unit.policy.test_catalogue import captured
from verifier.claims import ProvenClaims
from verifier.findings import Finding, Severity, Status
from verifier.policy.evaluate import evaluate
from verifier.policy.explain import EventVerdict, beside_events, explain_events
from verifier.policy.parse import parse_policy
from verifier.reasons import Claim, Reason

HEAD = """\
schema: vtpm-attest/policy/1
id: explained
quote: {pcrs: [0, 4, 7, 9, 11, 12]}
rules:
"""
TAIL = """
unjudged: [{pcrs: [0, 4, 7, 9, 11, 12], why: a policy for tests}]
"""
SCENARIO = "uki-sb-on-cmdline-tampered"


def explained(rules: str, scenario: str = SCENARIO) -> tuple[dict[int, EventVerdict], tuple[str, ...]]:
    """By event index; and the codes of what is no one event's fault."""
    policy, claims = parse_policy(HEAD + rules + TAIL), captured(scenario)
    findings = evaluate(policy, claims)
    verdicts = explain_events(policy, claims, findings)
    return {v.event.index: v for v in verdicts}, tuple(f.reason.value for f in beside_events(findings))


def read_by(rule: str, scenario: str = SCENARIO) -> set[int]:
    verdicts, _ = explained(f"  - {{id: rule, claim: configuration, {rule}}}", scenario)
    return {index for index, verdict in verdicts.items() if "rule" in verdict.rules}


def indices(pcr: int, scenario: str = SCENARIO) -> set[int]:
    boot = captured(scenario).boot
    assert boot is not None
    return {event.index for event in boot.events if event.pcr == pcr and event.digests}


def test_a_cel_rule_reads_the_events_of_its_claims_pcr() -> None:
    assert read_by('cel: "size(boot.images) == 2"') == indices(4)
    assert read_by('cel: "size(boot.uki.sections) == 4 && size(boot.images) == 2"') == indices(4) | indices(
        11
    )
    assert indices(4)


def test_a_cel_rule_over_one_fact_reads_the_one_event_that_proves_it() -> None:
    boot = captured(SCENARIO).boot
    assert boot is not None
    (variable,) = (event.index for event in boot.events if event.name == "SecureBoot")
    assert read_by('cel: "boot.secure_boot.enabled"') == read_by("secure_boot: enabled") == {variable}


def test_rules_on_the_command_line_read_the_events_that_say_it() -> None:
    boot = captured(SCENARIO).boot
    assert boot is not None
    says = {event.index for event in boot.events if event.text == boot.kernel_command_line}
    assert {boot.events[index].pcr for index in says} == {9, 11}
    for rule in (
        "command_line: {forbid: [debug]}",
        "cel: \"'quiet' in boot.kernel_arguments\"",
        "cel: \"boot.kernel_command_line.contains('quiet')\"",
    ):
        assert read_by(rule) == says


@pytest.mark.parametrize("rule", ["cel: quote.clock.safe", "cel: size(boot.unexplained_pcrs) == 0"])
def test_claims_of_no_one_pcr_name_no_event(rule: str) -> None:
    assert read_by(rule) == set()


def test_a_broken_cel_rule_is_marked_where_it_read_and_told_beside_the_events() -> None:
    verdicts, beside = explained(
        """\
  - {id: guard, claim: configuration, cel: "!('lockdown=none' in boot.kernel_arguments)"}
  - {id: sections, claim: executables, cel: "size(boot.uki.sections) == 4"}
"""
    )
    marked = {index: verdict.broken for index, verdict in verdicts.items() if verdict.broken}
    assert set(marked.values()) == {("guard",)}
    assert {verdicts[index].event.pcr for index in marked} == {9, 11}
    assert all(verdicts[index].findings == () for index in marked), "no event alone is to blame"
    assert beside == ("rule-broken",)


def test_an_event_that_is_wrong_carries_its_finding_and_it_is_not_told_twice() -> None:
    verdicts, beside = explained(
        "  - {id: none-of-it, claim: executables, event: {pcr: 11, name: .cmdline, occurs: never}}"
    )
    (bad,) = (verdict for verdict in verdicts.values() if verdict.findings)
    assert (bad.event.name, bad.rules, bad.broken) == (".cmdline", ("none-of-it",), ("none-of-it",))
    assert beside == ()


def test_what_no_rule_read_has_the_policys_reason() -> None:
    verdicts, _ = explained("  - {id: rule, claim: configuration, secure_boot: enabled}")
    reasons = {verdict.event.pcr: verdict.why_unjudged for verdict in verdicts.values() if not verdict.rules}
    assert reasons[4] == "a policy for tests"
    assert reasons[5] == "its PCR is not quoted under this policy"


def test_without_a_log_there_is_nothing_to_explain_and_everything_to_tell() -> None:
    policy = parse_policy(HEAD + "  - {id: rule, claim: configuration, cel: boot.secure_boot.enabled}" + TAIL)
    claims: ProvenClaims = structs.replace(captured(SCENARIO), boot=None)
    findings = evaluate(policy, claims)
    assert explain_events(policy, claims, findings) == ()
    assert [finding.rule for finding in beside_events(findings)] == ["rule"]


def test_an_entry_of_the_ima_list_is_no_event_of_the_boot_log() -> None:
    policy, claims = (
        parse_policy(HEAD + "  - {id: on, claim: configuration, secure_boot: enabled}" + TAIL),
        captured(SCENARIO),
    )
    entry = Finding(
        reason=Reason.IMA_FILE_UNKNOWN,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.EXECUTABLES,
        message="/tmp/x is not among the known files",
        pcr=10,
        event_index=4,
    )
    assert not any(verdict.findings for verdict in explain_events(policy, claims, [entry]))
    assert beside_events([entry]) == (entry,)
