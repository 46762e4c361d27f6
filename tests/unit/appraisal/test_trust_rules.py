"""The trust rules as far as the appraisal alone can break them (docs/trust-rules.md lists all ten)."""

from __future__ import annotations

import struct
from functools import cache

import pytest
from msgspec.structs import replace

from tests.conftest import ROOT
from tests.logs import Written, agile_event, agile_log, secure_boot, variable
from tests.unit.appraisal.machines import LOG, SHA256, Machine, boot_events, codes, golden, judge
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.appraisal.result import Appraisal, Status
from verifier.cli.bundle import read_bundle
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_policy_source
from verifier.reasons import Reason, Tier
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import parse_event_log

POLICY = ROOT / "policies"


@cache
def shipped(policy: str) -> Policy:
    return parse_policy(read_policy_source(POLICY / policy))


def captured(scenario: str, policy: str, log: bytes | None = None) -> Appraisal:
    """A captured boot under a shipped policy, its log perhaps replaced."""
    bundle = read_bundle(POLICY / "evidence" / scenario)
    evidence: Evidence = bundle.evidence if log is None else replace(bundle.evidence, boot_log=log)
    expectation = Expectation(bundle.ak_public, ak_activated=True, nonce=bundle.nonce, request=())
    return appraise(evidence, expectation, shipped(policy), History(), None)


def with_data(log: bytes, index: int, data: bytes) -> bytes:
    """The log with other bytes as the data of one event; its digests stay."""
    events = parse_event_log(log).events
    old = events[index].data
    end = events[index + 1].offset if index + 1 < len(events) else len(log)
    start = end - len(old)
    return log[: start - 4] + struct.pack("<I", len(data)) + data + log[start + len(old) :]


SCENARIOS = [
    ("uki-sb-on", "uki-strict"),
    ("uki-sb-on-cmdline-tampered", "uki-strict"),
    ("uki-sb-off", "uki-strict"),
    ("grub-sb-on", "grub-strict"),
    ("grub-sb-on-cmdline-tampered", "grub-strict"),
]


@pytest.mark.parametrize(("scenario", "policy"), SCENARIOS)
def test_rule_1_edited_event_text_with_an_unchanged_digest_improves_no_verdict(
    scenario: str, policy: str
) -> None:
    """Every event of the boot, one after the other, gets the data of every kind a forger would try."""
    honest = captured(scenario, policy)
    log = read_bundle(POLICY / "evidence" / scenario).evidence.boot_log
    good = read_bundle(POLICY / "evidence" / f"{scenario.split('-', maxsplit=1)[0]}-sb-on").evidence.boot_log
    assert log is not None
    assert good is not None
    good_data = [event.data for event in parse_event_log(good).events]
    for index, event in enumerate(parse_event_log(log).events):
        if event.event_type == EventType.EV_NO_ACTION or not event.data:
            continue
        for forged in (
            good_data[min(index, len(good_data) - 1)],
            b"\0" * len(event.data),
            b"kernel_cmdline: /vmlinuz quiet\0",
        ):
            result = captured(scenario, policy, with_data(log, index, forged))
            assert result.tier >= honest.tier, f"event {index} with {forged[:20]!r}"
            assert failures(result) >= failures(honest)


def failures(result: Appraisal) -> set[tuple[str | None, Reason, int | None]]:
    """What is held against a boot by its digests, whatever its texts say."""
    digests = {Reason.EVENT_MISMATCH, Reason.EVENT_MISSING, Reason.EVENT_UNEXPECTED, Reason.PCR_MISMATCH}
    return {
        (f.rule, f.reason, f.event_index)
        for f in result.findings
        if f.reason in digests and f.status is Status.FAILED
    }


def test_rule_1_text_that_no_digest_covers_changes_nothing_at_all() -> None:
    log = read_bundle(POLICY / "evidence" / "uki-sb-on").evidence.boot_log
    assert log is not None
    for index, event in enumerate(parse_event_log(log).events):
        if event.event_type in (
            EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
            EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB,
        ):
            forged = captured("uki-sb-on", "uki-strict", with_data(log, index, b"\x7f" * len(event.data)))
            assert forged.findings == captured("uki-sb-on", "uki-strict").findings


def test_rule_1_secure_boot_measured_off_whose_text_says_on_is_not_believed() -> None:
    lying = [
        secure_boot(on=True, measured_on=False) if e == secure_boot(on=True) else e for e in boot_events()
    ]
    machine = Machine.booted(agile_log(lying))
    result = judge(machine)
    assert result.tier is not Tier.AFFIRMING
    assert Reason.SECURE_BOOT_UNPROVEN in codes(result)
    assert Reason.SECURE_BOOT_ON not in {finding.reason for finding in result.findings}
    assert result.claims is not None
    assert result.claims.boot is not None
    assert result.claims.boot.secure_boot.enabled is None


def test_rule_1_a_separator_ends_what_firmware_may_say() -> None:
    """SecureBoot measured on by the loader, after the separator, is the loader's word."""
    events = boot_events(secure=False)
    late = [*(e for e in events if e != secure_boot(on=False)), secure_boot(on=True)]
    result = judge(Machine.booted(agile_log(late)))
    assert Reason.SECURE_BOOT_ON not in {finding.reason for finding in result.findings}


def test_rule_1_a_variable_of_the_same_name_and_another_vendor_is_not_secure_boot() -> None:
    impostor = Written(7, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, variable("SecureBoot", b"\1", bytes(16)))
    events = [impostor if e == secure_boot(on=False) else e for e in boot_events(secure=False)]
    result = judge(Machine.booted(agile_log(events)))
    assert Reason.SECURE_BOOT_ON not in {finding.reason for finding in result.findings}


def test_rule_1_a_forged_startup_locality_is_not_believed() -> None:
    forged = LOG + agile_event(Written(0, EventType.EV_NO_ACTION, b"StartupLocality\0\x03"))
    result = judge(Machine.booted(), Machine.booted().evidence(boot_log=forged))
    assert result.tier is Tier.CONTRAINDICATED
    assert {f.pcr for f in result.findings if f.reason is Reason.BOOT_LOG_MISMATCH} == {0}


@pytest.mark.parametrize(
    "reason", [Reason.BOOT_LOG_MISSING, Reason.POLICY_MISSING, Reason.AK_UNPROVEN, Reason.FRESHNESS_ASSUMED]
)
def test_rule_4_what_was_not_evaluated_is_recorded_and_keeps_the_verdict_from_affirming(
    reason: Reason,
) -> None:
    machine = Machine.booted()
    evidence, expected, policy = machine.evidence(), machine.expectation(), golden()
    result = {
        Reason.BOOT_LOG_MISSING: lambda: judge(machine, machine.evidence(boot_log=None)),
        Reason.POLICY_MISSING: lambda: appraise(evidence, expected, None, History(), None),
        Reason.AK_UNPROVEN: lambda: appraise(
            evidence, replace(expected, ak_activated=False), policy, History(), None
        ),
        Reason.FRESHNESS_ASSUMED: lambda: appraise(
            evidence, replace(expected, nonce=None), policy, History(), None
        ),
    }[reason]()
    assert result.tier is Tier.NONE
    assert any(f.reason is reason and f.status is Status.NOT_EVALUATED for f in result.findings)


def test_rule_4_a_pcr_that_was_not_quoted_is_no_pass() -> None:
    machine = Machine.booted()
    narrow = machine.evidence(selection={SHA256: (0, 4, 7)})
    request = (PcrRequest(bank=SHA256, pcrs=frozenset({0, 4, 7})),)
    assert judge(machine, narrow, request=request).tier is Tier.CONTRAINDICATED


def test_rule_5_the_same_machine_is_judged_anew_when_a_pcr_moved() -> None:
    machine = Machine.booted()
    assert judge(machine).tier is Tier.AFFIRMING
    machine.tpm.measure(8, b"kexec into something else")
    assert judge(machine).tier is not Tier.AFFIRMING
