"""Captured boots with real quotes, judged against what an earlier boot of the same image measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT, shared_path
from tests.runtime_reference import ALLOW, WARN, Known
from verifier.appraisal.appraise import examine
from verifier.appraisal.appraise import judge as judge_policy
from verifier.appraisal.evidence import Expectation, History
from verifier.appraisal.ima.judge import ImaOutcome, judge
from verifier.appraisal.ima.segment import ImaSegment
from verifier.appraisal.ima.state import INITIAL
from verifier.appraisal.result import Finding, Severity, Status
from verifier.appraisal.vector import vector
from verifier.claims import ProvenClaims, QuoteFacts
from verifier.cli.bundle import read_bundle
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeOptions
from verifier.policy_files import load_policy
from verifier.reasons import Claim, Reason, Tier
from verifier.tcg.ima.parse import parse_list

NOW = datetime(2026, 11, 28, tzinfo=UTC)
SAMPLE = ROOT / "policies" / "evidence" / "uki-sb-on"
POLICY = load_policy(ROOT / "policies" / "uki-strict")


class Listed:
    """The list that came with a bundle."""

    def __init__(self, data: bytes, reference: Known) -> None:
        self.data, self.reference = data, reference
        self.outcome: ImaOutcome | None = None

    def judge(self, policy: Policy, quote: QuoteFacts) -> ImaOutcome:
        del policy
        self.outcome = judge(INITIAL, ImaSegment(self.data), quote.pcrs, self.reference)
        return self.outcome


def learned(**options: object) -> Known:
    reference = Known(options=RuntimeOptions(**options))  # type: ignore[arg-type]
    for entry in parse_list((SAMPLE / "binary_runtime_measurements").read_bytes()).entries[1:]:
        reference.files.setdefault(entry.fields.path or "", []).append(entry.fields.digest or b"")
    return reference


def appraised(
    folder: Path, reference: Known, *, ak: str = "ecc", data: bytes | None = None
) -> tuple[tuple[Finding, ...], ProvenClaims]:
    bundle = read_bundle(folder, ak=ak)
    expectation = Expectation(bundle.ak_public, True, bundle.nonce, ())
    examined = examine(bundle.evidence, expectation, POLICY, History())
    assert examined.authenticated
    raw = (folder / "binary_runtime_measurements").read_bytes() if data is None else data
    judged = judge_policy(examined, bundle.evidence, POLICY, None, runtime=Listed(raw, reference))
    assert judged.claims is not None
    return tuple(one for one in judged.findings if one.reason.value.startswith("ima-")), judged.claims


def bad(findings: tuple[Finding, ...]) -> list[tuple[Reason, int | None]]:
    return [(one.reason, one.event_index) for one in findings if one.tier is not Tier.AFFIRMING]


@pytest.mark.parametrize("ak", ["ecc", "rsa"])
def test_a_boot_is_good_by_what_it_measured_itself(ak: str) -> None:
    findings, claims = appraised(SAMPLE, learned(), ak=ak)
    assert [one.reason for one in findings] == [Reason.IMA_LIST_REPLAYS, Reason.IMA_FILES_KNOWN]
    assert findings[0].message == "380 entries lead to the quoted sha256 PCR 10"
    assert claims.runtime is not None
    assert (claims.runtime.entries, claims.runtime.known, claims.runtime.kernels) == (380, 379, 1)
    assert claims.runtime.boot_aggregate is True


@pytest.mark.parametrize("name", ["uki-sb-on-reboot-1", "uki-sb-on-reboot-2"])
def test_another_boot_of_the_image_is_good_too(name: str) -> None:
    findings, _ = appraised(SAMPLE.parent / name, learned())
    assert bad(findings) == []


def test_a_program_that_nobody_listed_is_found_and_named() -> None:
    findings, claims = appraised(shared_path("evidence/uki-sb-on-ima-unknown-exe"), learned())
    ((reason, index),) = bad(findings)
    assert reason is Reason.IMA_FILE_UNKNOWN
    entry = parse_list(
        shared_path("evidence/uki-sb-on-ima-unknown-exe/binary_runtime_measurements").read_bytes()
    ).entries[index or 0]
    (finding,) = [one for one in findings if one.reason is reason]
    assert finding.actual == f"sha256:{(entry.fields.digest or b'').hex()}"
    assert (entry.fields.path or "?") in finding.message
    assert finding.claim is Claim.EXECUTABLES
    assert claims.runtime is not None
    assert (claims.runtime.unknown, claims.runtime.known) == (1, 379)


def test_violations_are_found_and_are_as_grave_as_the_policy_says() -> None:
    folder = shared_path("evidence/uki-sb-on-ima-violation")
    findings, claims = appraised(folder, learned())
    assert [reason for reason, _ in bad(findings)].count(Reason.IMA_VIOLATION) == 2
    assert claims.runtime is not None
    assert claims.runtime.violations == 2
    tolerant, _ = appraised(folder, learned(violations=WARN))
    tiers = {one.tier for one in tolerant if one.reason is Reason.IMA_VIOLATION}
    assert tiers == {Tier.WARNING}


def test_the_list_of_one_boot_is_not_proven_by_the_quote_of_another() -> None:
    folder = shared_path("evidence/uki-sb-on-ima-unknown-exe")
    findings, claims = appraised(
        folder, learned(), data=(SAMPLE / "binary_runtime_measurements").read_bytes()
    )
    assert bad(findings) == [(Reason.IMA_LIST_MISMATCH, None)]
    assert claims.runtime is None


def test_leaving_the_program_out_of_the_list_is_found() -> None:
    folder = shared_path("evidence/uki-sb-on-ima-unknown-exe")
    raw = (folder / "binary_runtime_measurements").read_bytes()
    known = learned().files
    entries = parse_list(raw).entries
    (odd,) = [one for one in entries[1:] if (one.fields.path or "") not in known]
    end = entries[odd.index + 1].offset if odd.index + 1 < len(entries) else len(raw)
    findings, _ = appraised(folder, learned(), data=raw[: odd.offset] + raw[end:])
    assert bad(findings) == [(Reason.IMA_LIST_MISMATCH, None)]


def test_executables_are_vouched_for_at_run_time_only_where_a_list_was_judged_and_good() -> None:
    """AR4SI, section 2.3.4: 3 is for what booted, 2 for run time as well."""
    booted = Finding(
        reason=Reason.EVENT_MATCHES,
        status=Status.PASSED,
        severity=Severity.CONTRAINDICATED,
        claim=Claim.EXECUTABLES,
        message="the golden kernel booted",
    )
    good, _ = appraised(SAMPLE, learned())
    assert vector([booted])[Claim.EXECUTABLES] == 3
    assert vector([booted, *good])[Claim.EXECUTABLES] == 2
    unjudged, _ = appraised(SAMPLE, learned(), data=b"")
    assert vector([booted, *unjudged])[Claim.EXECUTABLES] == 0


def test_a_policy_that_allows_the_unknown_vouches_for_no_executable() -> None:
    lenient = Known(options=RuntimeOptions(unknown_path=ALLOW, unknown_module=ALLOW))
    findings, claims = appraised(SAMPLE, lenient)
    assert [one.reason for one in findings] == [Reason.IMA_LIST_REPLAYS, Reason.IMA_FILES_ALLOWED]
    assert Claim.EXECUTABLES not in vector(findings)
    assert claims.runtime is not None
    assert claims.runtime.allowed == claims.runtime.unknown == 379
