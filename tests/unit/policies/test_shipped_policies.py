"""Every shipped policy accepts the evidence it says it accepts, and rejects the rest for the reasons it says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from scripts.make_windows_evidence import SCENARIOS, windows_log
from tests.conftest import ROOT
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Expectation, History
from verifier.appraisal.result import Appraisal
from verifier.appraisal.runtime import WholeList
from verifier.claims import EndorsementFacts
from verifier.cli.appraise import appraise_bundle, finding_document
from verifier.cli.bundle import read_bundle
from verifier.policy.parse import parse_policy
from verifier.policy_files import find_policies, read_policy_source
from verifier.runtime_references import FolderReferences

POLICIES = find_policies(ROOT / "policies")


def samples() -> list[object]:
    cases = []
    for policy in POLICIES:
        document = yaml.safe_load((policy / "samples.yaml").read_text())
        for kind in ("accept", "reject"):
            cases += [
                pytest.param(policy, entry, id=f"{policy.name}-{kind}-{entry['evidence']}")
                for entry in document[kind]
            ]
    return cases


def test_there_are_policies_to_ship() -> None:
    assert {policy.name for policy in POLICIES} >= {
        "uki-strict",
        "grub-strict",
        "permissive",
        "uki-guest",
        "uki-runtime",
        "shim-grub-guest",
        "vsphere-linux",
        "vsphere-windows",
        "hardware-server",
    }


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.name)
def test_a_shipped_policy_is_named_like_its_folder_and_has_samples_of_both_kinds(policy: Path) -> None:
    assert parse_policy(read_policy_source(policy)).id == policy.name
    document = yaml.safe_load((policy / "samples.yaml").read_text())
    assert document["accept"]
    assert document["reject"]


def judged(policy: Path, entry: dict, ak: str) -> Appraisal:
    """A sample under its policy; `endorsement` is what enrolment would have proven of the EK."""
    folder = ROOT / "policies" / "evidence" / entry["evidence"]
    bundle = read_bundle(folder, ak=ak)
    facts = None
    if "endorsement" in entry:
        facts = EndorsementFacts(**(dict.fromkeys(EndorsementFacts.__struct_fields__) | entry["endorsement"]))
    expectation = Expectation(
        bundle.ak_public,
        ak_activated=facts is not None,  # only activation ties an EK to the AK that signed
        nonce=bundle.nonce,
        request=(),
        assumed=facts is None,
        endorsement=facts,
    )
    rules = parse_policy(read_policy_source(policy))
    runtime = None
    if rules.runtime is not None:
        listed = bundle.evidence.ima
        reference = FolderReferences([policy]).find(rules).make()
        runtime = WholeList(None if listed is None else listed.segment, reference)
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return appraise(bundle.evidence, expectation, rules, History(), now, runtime=runtime)


@pytest.mark.parametrize("ak", ["ecc", "rsa"])
@pytest.mark.parametrize(("policy", "entry"), samples())
def test_a_sample_gets_the_verdict_and_the_findings_that_its_policy_promises(
    policy: Path, entry: dict, ak: str
) -> None:
    result = judged(policy, entry, ak)
    assert result.tier.label == entry["status"]
    if "findings" not in entry and entry["status"] != "affirming":
        return
    found = [finding_document(finding) for finding in result.findings if finding.tier.value]
    keys = ("rule", "code", "pcr", "event_index")
    assert [{key: finding[key] for key in keys if key in finding} for finding in found] == entry.get(
        "findings", []
    )


def test_the_windows_samples_are_what_their_generator_makes() -> None:
    """Quotes differ from run to run (ECDSA is randomised); logs and PCR values may not."""
    for name, changes in SCENARIOS.items():
        shipped = read_bundle(ROOT / "policies" / "evidence" / name).evidence
        assert shipped.boot_log == windows_log(changes)


def test_without_trust_in_the_ak_a_good_boot_is_no_verdict() -> None:
    result, _ = appraise_bundle(
        ROOT / "policies" / "evidence" / "uki-sb-on", ROOT / "policies" / "uki-strict"
    )
    assert result.tier.label == "none"
    assert {finding.reason.value for finding in result.findings if finding.tier.value} == {
        "ak-unproven",
        "freshness-assumed",
    }
