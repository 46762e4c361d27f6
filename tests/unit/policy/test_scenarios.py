"""Every captured scenario, judged by a policy that was learned from its good sibling: what its name promises, no more.

The evidence is of real boots (OVMF, shim, GRUB, systemd-stub, Linux) with quotes of two AKs each.
"""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime

import pytest

from tests.conftest import SHARED
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Expectation, History
from verifier.appraisal.result import Appraisal
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.findings import Finding
from verifier.policy.learn import LearnOptions, Style, learn
from verifier.policy.model import Policy, reads_log
from verifier.policy.parse import parse_policy
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg

EVIDENCE = SHARED / "evidence"
FOLDERS = sorted(path.parent.name for path in EVIDENCE.glob("*/meta.json"))
IMA_PCR = 10
"""Differs from boot to boot; the kernel extends it while the guest runs, and its own list explains it."""

pytestmark = pytest.mark.skipif(not FOLDERS, reason="no captured evidence here (../shared/evidence)")

COMMAND_LINE = {
    "command-line command-line-mismatch",
    "pcr-4 event-mismatch EV_EFI_BOOT_SERVICES_APPLICATION",
    "pcr-9 event-mismatch EV_EVENT_TAG",
    "pcr-11 event-mismatch .cmdline",
}
"""The image with the line in it, its section, and the line that the kernel measured."""
GRUB_LINE = {
    "command-line command-line-mismatch",
    "pcr-8 event-mismatch EV_IPL",
    "pcr-9 event-mismatch EV_IPL",
}
GRUB_KERNEL = {"pcr-4 event-mismatch EV_EFI_BOOT_SERVICES_APPLICATION", "pcr-9 event-mismatch EV_IPL"}
NEW_IMAGE = {
    "pcr-4 event-mismatch EV_EFI_BOOT_SERVICES_APPLICATION",
    "pcr-9 event-mismatch EV_EVENT_TAG",  # the initrd as the kernel read it
    "pcr-11 event-mismatch .initrd",
}

BY_EVENTS = {
    "uki-sb-on": set(),
    "uki-sb-on-reboot-1": set(),
    "uki-sb-on-reboot-2": set(),
    "uki-sb-on-ima-unknown-exe": set(),
    "uki-sb-on-ima-violation": set(),
    "uki-sb-off": {
        "secure-boot secure-boot-off",
        "pcr-4 event-unexpected EV_EFI_BOOT_SERVICES_APPLICATION",  # the kernel's stub starts it without shim's check
        *(f"pcr-7 event-mismatch {name}" for name in ("SecureBoot", "PK", "KEK", "db", "dbx")),
        "pcr-7 event-missing",  # nobody let an image run
    },
    "uki-sb-on-extra-db-key": {"pcr-7 event-mismatch db"},
    "uki-sb-on-signed-by-second-key": {
        "pcr-7 event-mismatch db"
    },  # the database, and the entry that was used
    "uki-sb-on-cmdline-tampered": COMMAND_LINE,
    "uki-sb-on-ima-ng": COMMAND_LINE,
    "uki-sb-on-no-ima": COMMAND_LINE,
    "uki-sb-on-systemd": COMMAND_LINE,
    "uki-sb-on-systemd-min": COMMAND_LINE,
    "uki-sb-on-initrd-modified": NEW_IMAGE,
    "uki-sb-on-kernel-6.1.0-54": NEW_IMAGE | {"pcr-11 event-mismatch .linux"},
    "grub-sb-on": set(),
    "grub-sb-on-cmdline-tampered": GRUB_LINE,
    "grub-sb-on-systemd": GRUB_LINE,
    "grub-sb-on-kernel-6.1.0-54": GRUB_KERNEL,
    "grub-sb-on-kernel-6.12": GRUB_KERNEL,
    "grub-sb-on-smm-4M": {"pcr-0 event-mismatch EV_EFI_PLATFORM_FIRMWARE_BLOB"},
}
"""Rule, code and event of all that did not pass. `grub-sb-off` has no boot log and a test of its own."""

IMAGES, FILES = "images rule-broken", "files rule-broken"
LINE_CLAIMS = {"command-line command-line-mismatch", IMAGES, "uki-sections-cmdline rule-broken"}
BY_CLAIMS = {
    "uki-sb-on": set(),
    "uki-sb-on-reboot-1": set(),
    "uki-sb-on-reboot-2": set(),
    "uki-sb-on-ima-unknown-exe": set(),
    "uki-sb-on-ima-violation": set(),
    "uki-sb-off": {"secure-boot secure-boot-off", IMAGES, "secure-boot-dbx-entries rule-broken"},
    "uki-sb-on-extra-db-key": {"secure-boot-db-certificates rule-broken"},
    "uki-sb-on-signed-by-second-key": {
        "secure-boot-db-certificates rule-broken",
        "secure-boot-authorities rule-broken",
    },
    "uki-sb-on-cmdline-tampered": LINE_CLAIMS,
    "uki-sb-on-ima-ng": LINE_CLAIMS,
    "uki-sb-on-no-ima": LINE_CLAIMS,
    "uki-sb-on-systemd": LINE_CLAIMS,
    "uki-sb-on-systemd-min": LINE_CLAIMS,
    "uki-sb-on-initrd-modified": {IMAGES, FILES, "uki-sections-initrd rule-broken"},
    "uki-sb-on-kernel-6.1.0-54": {
        IMAGES,
        FILES,
        "uki-sections-initrd rule-broken",
        "uki-sections-linux rule-broken",
    },
    "grub-sb-on": set(),
    "grub-sb-on-cmdline-tampered": {"command-line command-line-mismatch", FILES},  # grub.cfg has the line
    "grub-sb-on-systemd": {"command-line command-line-mismatch", FILES},
    "grub-sb-on-kernel-6.1.0-54": {IMAGES, FILES},
    "grub-sb-on-kernel-6.12": {IMAGES, FILES},
    "grub-sb-on-smm-4M": set(),  # another firmware, and nothing that a claim speaks of
}
"""The same where the policy was learned from what the events say; claims have no event to point at."""


def good_sibling(scenario: str) -> str:
    return "uki-sb-on" if scenario.startswith("uki-") else "grub-sb-on"


@functools.cache
def learned(good: str, style: Style) -> Policy:
    options = LearnOptions(id="learned", description="", bank=HashAlg.SHA256)
    return parse_policy(learn({good: prove(read_bundle(EVIDENCE / good))}, options, style).source)


def judged(scenario: str, ak: str, style: Style) -> Appraisal:
    bundle = read_bundle(EVIDENCE / scenario, ak=ak)
    expectation = Expectation(
        bundle.ak_public, ak_activated=True, nonce=bundle.nonce, request=(), assumed=False, endorsement=None
    )
    policy = learned(good_sibling(scenario), style)
    return appraise(bundle.evidence, expectation, policy, History(), datetime(2026, 11, 24, tzinfo=UTC))


def wrong(result: Appraisal) -> list[Finding]:
    return [finding for finding in result.findings if finding.tier.value]


def shown(result: Appraisal, finding: Finding) -> str:
    """Rule, code and, where there is one, the event: by its proven name, else by its type."""
    said = f"{finding.rule} {finding.reason.value}"
    if finding.event_index is None:
        return said
    assert result.claims is not None
    assert result.claims.boot is not None
    event = result.claims.boot.events[finding.event_index]
    return f"{said} {event.name or event.type_name}"


def test_every_captured_scenario_is_judged_here() -> None:
    assert {*FOLDERS} == {*BY_EVENTS, "grub-sb-off"}
    assert BY_EVENTS.keys() == BY_CLAIMS.keys()


@pytest.mark.parametrize("ak", ["ecc", "rsa"])
@pytest.mark.parametrize(
    ("style", "scenario"),
    [(style, name) for style in Style for name in BY_EVENTS],
    ids=lambda value: str(getattr(value, "value", value)),
)
def test_a_scenario_gets_what_its_name_promises_and_nothing_else(
    style: Style, scenario: str, ak: str
) -> None:
    expected = (BY_EVENTS if style is Style.EVENTS else BY_CLAIMS)[scenario]
    result = judged(scenario, ak, style)
    assert {shown(result, finding) for finding in wrong(result)} == expected
    assert result.tier.label == ("contraindicated" if expected else "affirming")


@pytest.mark.parametrize("scenario", BY_EVENTS)
def test_findings_point_at_exactly_the_pcrs_that_differ(scenario: str) -> None:
    """Held against the PCRs as they were read beside the quote, not against anything this project computed."""
    good, other = (
        json.loads((EVIDENCE / name / "pcrs.json").read_text())["sha256"]
        for name in (good_sibling(scenario), scenario)
    )
    differ = {int(pcr) for pcr, value in other.items() if int(pcr) <= 15 and value != good[pcr]}
    found = {finding.pcr for finding in wrong(judged(scenario, "ecc", Style.EVENTS))}
    assert found - {None} == differ - {IMA_PCR}


@pytest.mark.parametrize("ak", ["ecc", "rsa"])
@pytest.mark.parametrize("style", Style)
def test_without_a_boot_log_every_rule_that_needs_one_says_so_and_nothing_passes(
    style: Style, ak: str
) -> None:
    """GRUB with Secure Boot off leaves the kernel without a log: the capture has none."""
    result = judged("grub-sb-off", ak, style)
    policy = learned("grub-sb-on", style)
    missing = {finding.rule for finding in wrong(result)}
    from_log = {rule.head.id for rule in policy.rules if reads_log(rule)}
    assert missing == from_log | {None}
    assert {finding.reason for finding in wrong(result)} <= {Reason.BOOT_LOG_MISSING, Reason.CLAIM_UNPROVEN}
    assert result.tier.label == "none"
