"""What a stored verdict says at a given moment, as JSON and as an EAR."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from tests.conftest import shared_path
from verifier.findings import Finding, Severity, Status
from verifier.ports import AttesterRecord, AttesterState, GuestIdentity, Lifecycle, VerdictRecord
from verifier.reasons import Claim, Reason, Tier
from verifier.service.ear_claims import EarIdentity, Profile, ear_claims, submodules
from verifier.service.verdicts import as_judged, finding_mapping, view, view_attester
from verifier.tcg.attest import ClockInfo

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATE = NOW + timedelta(minutes=10, seconds=1)
IDENTITY = EarIdentity(developer="dev", build="1", issuer="https://v")


def found(reason, claim, status=Status.PASSED, severity=Severity.CONTRAINDICATED):
    finding = Finding(reason=reason, status=status, severity=severity, claim=claim, message="m")
    return finding_mapping(finding)


SIGNED = found(Reason.QUOTE_VERIFIED, Claim.HARDWARE)


def attester(**changes):
    values = {
        "id": "att-a",
        "tenant": "default",
        "ek_fingerprint": bytes(32),
        "ek_public": b"",
        "ek_certificate": None,
        "ek_issuer": None,
        "ek_profile": {},
        "endorsed_by": "certificate",
        "ak_name": b"",
        "ak_public": b"",
        "identity": GuestIdentity(),
        "smbios_uuids": frozenset(),
        "enrolled_at": NOW,
    }
    return AttesterRecord(**(values | changes))


def record(tier=Tier.AFFIRMING):
    return VerdictRecord(
        attester_id="att-a",
        tenant="default",
        sequence=7,
        tier=tier,
        vector={"configuration": 2},
        findings=(SIGNED,),
        policy_id="p",
        policy_revision="ab" * 32,
        evidence_sha256=bytes(32),
        clock=ClockInfo(1, 2, 3, safe=True),
        boot_id=None,
        judged_at=NOW,
        valid_until=NOW + timedelta(minutes=10),
    )


REVOKED = attester(lifecycle=Lifecycle.REVOKED, revoked_at=NOW)


def test_a_current_verdict_says_what_was_judged():
    shown = view(attester(), record(), NOW)
    assert (shown.tier, shown.lifecycle, shown.vector) == (
        Tier.AFFIRMING,
        Lifecycle.ENROLLED,
        {"configuration": 2},
    )


@pytest.mark.parametrize("tier", Tier)
def test_rule_10_a_verdict_that_ran_out_says_nothing(tier):
    shown = view(attester(), record(tier), LATE)
    assert (shown.tier, shown.lifecycle, shown.vector) == (Tier.NONE, Lifecycle.STALE, {})


@pytest.mark.parametrize("at", [NOW, LATE])
def test_nothing_a_revoked_attester_proved_counts(at):
    shown = view(REVOKED, record(), at)
    assert (shown.tier, shown.lifecycle) == (Tier.CONTRAINDICATED, Lifecycle.REVOKED)
    assert shown.vector == {"instance-identity": 96}
    assert shown.findings[-1]["code"] == "attester-revoked"


def test_an_attester_that_never_attested_is_nothing_and_a_revoked_one_is_worse():
    assert view_attester(AttesterState(attester=attester(), boot=None, latest=None), NOW).tier is Tier.NONE
    revoked = view_attester(AttesterState(attester=REVOKED, boot=None, latest=None), NOW)
    assert revoked.tier is Tier.CONTRAINDICATED


def test_history_shows_verdicts_as_they_were_judged():
    assert as_judged(record()).tier is Tier.AFFIRMING


def test_a_finding_is_stored_without_what_it_does_not_have():
    finding = Finding(
        reason=Reason.PCR_MISMATCH,
        status=Status.FAILED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.CONFIGURATION,
        message="m",
        pcr=0,
        expected="a",
    )
    mapping = finding_mapping(finding)
    assert mapping["remedy"] == Reason.PCR_MISMATCH.entry.remedy
    assert mapping["pcr"] == 0
    assert set(mapping) == {"code", "status", "severity", "claim", "message", "remedy", "pcr", "expected"}


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (view(attester(), record(), NOW), 2),
        (view(attester(), record(Tier.WARNING), NOW), 32),
        (view(attester(), record(Tier.NONE), NOW), 0),
        (view(attester(), record(Tier.CONTRAINDICATED), NOW), 96),
        (view(attester(), record(), LATE), 0),
        (view(REVOKED, record(), NOW), 96),
    ],
)
def test_an_ear_says_the_same_in_numbers(shown, status):
    claims = ear_claims(shown, IDENTITY, NOW, None)
    appraisal = claims["submods"]["vtpm"]
    assert appraisal["ear_status"] == status
    assert appraisal["ear_trustworthiness_vector"] == shown.vector
    assert claims["exp"] == int((NOW + timedelta(minutes=10)).timestamp())
    assert appraisal["ear_appraisal_policy_ids"] == [f"p@sha256:{'ab' * 32}"]
    assert "eat_nonce" not in claims
    assert ear_claims(shown, IDENTITY, NOW, "n" * 8)["eat_nonce"] == "n" * 8


GOLDEN = found(Reason.PCR_MATCHES, Claim.EXECUTABLES)
TAMPERED = found(Reason.PCR_MISMATCH, Claim.EXECUTABLES, Status.FAILED)
COPIED = found(Reason.CLONE_SUSPECTED, Claim.INSTANCE_IDENTITY, Status.FAILED)


@pytest.mark.parametrize(
    ("findings", "tier", "boot"),
    [
        ((SIGNED, GOLDEN), Tier.AFFIRMING, (Tier.AFFIRMING, {"executables": 3})),
        ((SIGNED, TAMPERED), Tier.CONTRAINDICATED, (Tier.CONTRAINDICATED, {"executables": 96})),
        ((SIGNED, GOLDEN, COPIED), Tier.CONTRAINDICATED, (Tier.AFFIRMING, {"executables": 3})),
        ((SIGNED,), Tier.AFFIRMING, None),
    ],
)
def test_the_whole_is_never_better_than_its_parts_and_a_part_nobody_judged_is_not_there(findings, tier, boot):
    shown = view(attester(), structs.replace(record(tier), findings=findings), NOW)
    parts = submodules(shown)
    assert parts["vtpm"].tier is tier
    assert all(part.tier <= parts["vtpm"].tier for part in parts.values())
    assert "runtime" not in parts
    if boot is None:
        assert set(parts) == {"vtpm"}
    else:
        assert (parts["boot"].tier, parts["boot"].vector) == boot


@pytest.mark.parametrize(
    ("who", "at", "tier"), [(attester(), LATE, Tier.NONE), (REVOKED, NOW, Tier.CONTRAINDICATED)]
)
def test_what_is_over_for_the_whole_is_over_for_every_part(who, at, tier):
    parts = submodules(view(who, structs.replace(record(), findings=(SIGNED, GOLDEN)), at))
    assert {part.tier for part in parts.values()} == {tier}
    assert parts["boot"].vector == {}


def test_the_older_profile_has_the_shape_of_the_samples_of_its_makers():
    sample = json.loads(shared_path("corpus/veraison_ear/ear/ear-claims-tv-ok.json").read_text())
    shown = view(attester(), structs.replace(record(), findings=(SIGNED, GOLDEN)), NOW)
    claims = ear_claims(shown, IDENTITY, NOW, None, profile=Profile.VERAISON)
    assert claims["eat_profile"] == sample["eat_profile"]
    assert set(sample) - {"ear.raw-evidence"} <= set(claims)
    assert {type(claims[name]) for name in ("iat", "exp")} == {int}
    assert set(claims["ear.verifier-id"]) == set(sample["ear.verifier-id"])
    (wanted,) = sample["submods"].values()
    for appraisal in claims["submods"].values():
        assert set(appraisal) == set(wanted)
        assert appraisal["ear.status"] == wanted["ear.status"] == "affirming"
        assert set(appraisal["ear.trustworthiness-vector"]) <= set(wanted["ear.trustworthiness-vector"])
        assert isinstance(appraisal["ear.appraisal-policy-id"], str)
