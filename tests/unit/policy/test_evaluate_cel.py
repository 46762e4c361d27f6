"""CEL rules: what passes, what fails and with which values, what cannot be judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from tests.unit.policy.test_catalogue import captured
from tests.unit.policy.test_evaluate import BOOT, CLAIMS, judge, without_log
from verifier.claims import EndorsementFacts, ProvenClaims
from verifier.findings import Status
from verifier.policy.evaluate import evaluate
from verifier.policy.parse import parse_policy
from verifier.reasons import Claim, Reason, Tier


def cel(expression: str, claims: ProvenClaims = CLAIMS):
    (finding,) = judge(f'cel: "{expression}"', claims)
    return finding


def with_line(line: str | None) -> ProvenClaims:
    return structs.replace(CLAIMS, boot=replace(BOOT, kernel_command_line=line))


def test_a_true_expression_passes() -> None:
    finding = cel("boot.secure_boot.enabled && 'quiet' in boot.kernel_arguments")
    assert (finding.reason, finding.status, finding.remedy) == (Reason.RULE_HOLDS, Status.PASSED, None)
    assert finding.tier is Tier.AFFIRMING


def test_a_false_expression_fails_and_tells_the_values_it_read() -> None:
    finding = cel("!boot.secure_boot.enabled")
    assert (finding.reason, finding.status, finding.pcr) == (Reason.RULE_BROKEN, Status.FAILED, 7)
    assert finding.tier is Tier.CONTRAINDICATED
    assert finding.expected == "!boot.secure_boot.enabled"
    assert finding.actual == "boot.secure_boot.enabled = true"
    assert finding.remedy


def test_an_unproven_claim_is_named_and_nothing_passes() -> None:
    finding = cel("boot.secure_boot.enabled || boot.secure_boot.setup_mode")
    assert (finding.reason, finding.status) == (Reason.CLAIM_UNPROVEN, Status.NOT_EVALUATED)
    assert "boot.secure_boot.setup_mode is not proven" in finding.message
    assert finding.tier is Tier.NONE
    both = cel("identity.ek.virtual || boot.secure_boot.audit_mode")
    assert "boot.secure_boot.audit_mode, identity.ek.virtual are not proven" in both.message


def test_without_a_log_only_the_quote_can_be_judged() -> None:
    assert cel("boot.secure_boot.enabled", without_log()).reason is Reason.CLAIM_UNPROVEN
    assert cel("quote.clock.safe", without_log()).status is Status.PASSED


def test_a_fault_is_no_answer() -> None:
    finding = cel("boot.digests[4][7] == 'a'")
    assert (finding.reason, finding.status) == (Reason.RULE_FAULTY, Status.NOT_EVALUATED)
    assert "Index error" in finding.message
    assert finding.tier is Tier.NONE


@pytest.mark.parametrize("line", ["quiet\0 init=/bin/sh", "quiet \udc80"])
def test_text_the_runtime_cannot_take_whole_is_never_judged_in_part(line: str) -> None:
    finding = cel("!boot.kernel_command_line.contains('init=')", with_line(line))
    assert (finding.reason, finding.status) == (Reason.RULE_FAULTY, Status.NOT_EVALUATED)


def test_long_values_are_shown_in_part() -> None:
    finding = cel("boot.kernel_command_line == 'x' && quote.pcrs[4] == 'y'", with_line("a" * 5000))
    assert finding.actual is not None
    assert len(finding.actual) <= 1024
    assert "…" in finding.actual
    many = cel("size(boot.kernel_arguments) < 2", with_line(" ".join("abcdefghijkl")))
    assert many.actual == ('boot.kernel_arguments = ["a", "b", "c", "d", "e", "f", "g", "h", 4 more]')


def test_identity_can_be_judged_where_enrolment_proved_it() -> None:
    facts = EndorsementFacts(endorsed_by="certificate", virtual=True)
    rule = "identity.endorsed_by == 'certificate' && identity.ek.virtual"
    assert cel(rule, structs.replace(CLAIMS, endorsement=facts)).status is Status.PASSED
    assert cel(rule).reason is Reason.CLAIM_UNPROVEN


REAL = """
schema: vtpm-attest/policy/1
id: real
quote: {pcrs: [4, 7, 8, 9, 11, 12]}
rules:
  - id: secure-boot
    claim: configuration
    cel: boot.secure_boot.enabled && boot.secure_boot.dbx.entries > 0
  - id: one-image
    claim: executables
    severity: warning
    message: something else ran
    cel: boot.images.all(image, image == '%(image)s')
  - id: kernel
    claim: executables
    cel: "'.linux' in boot.uki.sections && boot.uki.sections['.linux'] == '%(linux)s'"
  - id: arguments
    claim: configuration
    cel: >-
      boot.kernel_arguments.all(word, !word.startsWith('init=')) &&
      boot.kernel_command_line.matches('(^| )ima_policy=tcb( |$)')
  - id: signer
    claim: configuration
    cel: boot.secure_boot.authorities.all(used, used in boot.secure_boot.db.certificates)
unjudged:
  - {pcrs: [4, 7, 8, 9, 11, 12], why: judged by the claims above}
"""
GOOD = {
    "image": "f987e3e483c0e719e15ff5b060a4bc19bea742d49f572f8cf77596b1e6abeb7f",
    "linux": "98cd6f847b56873cdefb57ca3ffd9ca7fbe30d7d574602661a3170f1aea9a20f",
}


@pytest.mark.parametrize(
    ("scenario", "failed"),
    [
        ("uki-sb-on", set()),
        ("uki-sb-on-reboot-1", set()),
        ("uki-sb-off", {"secure-boot", "one-image"}),
        ("uki-sb-on-initrd-modified", {"one-image"}),
        ("uki-sb-on-cmdline-tampered", {"one-image"}),
        ("grub-sb-on", {"one-image", "kernel", "signer"}),
    ],
)
def test_captured_boots_get_the_findings_their_differences_deserve(scenario: str, failed: set[str]) -> None:
    findings = evaluate(parse_policy(REAL % GOOD), captured(scenario))
    assert {finding.rule for finding in findings if finding.status is not Status.PASSED} == failed
    assert all(finding.status is not Status.NOT_EVALUATED for finding in findings)


def test_a_rule_speaks_for_its_claim_and_says_its_message() -> None:
    findings = evaluate(parse_policy(REAL % GOOD), captured("uki-sb-off"))
    image = next(finding for finding in findings if finding.rule == "one-image")
    assert (image.claim, image.pcr, image.tier) == (Claim.EXECUTABLES, 4, Tier.WARNING)
    assert image.message == "something else ran: the expression does not hold"
    assert image.actual is not None
    assert GOOD["image"] in image.actual
