"""Every shipped policy accepts the evidence it says it accepts, and rejects the rest for the reasons it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from verifier.cli.appraise import appraise_bundle, finding_document
from verifier.policy.parse import parse_policy
from verifier.policy_files import find_policies, read_policy_source

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
    assert {policy.name for policy in POLICIES} >= {"uki-strict", "grub-strict", "permissive"}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: path.name)
def test_a_shipped_policy_is_named_like_its_folder_and_has_samples_of_both_kinds(policy: Path) -> None:
    assert parse_policy(read_policy_source(policy)).id == policy.name
    document = yaml.safe_load((policy / "samples.yaml").read_text())
    assert document["accept"]
    assert document["reject"]


@pytest.mark.parametrize("ak", ["ecc", "rsa"])
@pytest.mark.parametrize(("policy", "entry"), samples())
def test_a_sample_gets_the_verdict_and_the_findings_that_its_policy_promises(
    policy: Path, entry: dict, ak: str
) -> None:
    result, _ = appraise_bundle(
        ROOT / "policies" / "evidence" / entry["evidence"], policy, ak_trusted=True, ak=ak
    )
    assert result.tier.label == entry["status"]
    found = [finding_document(finding) for finding in result.findings if finding.tier.value]
    expected = entry.get("findings", [])
    assert [
        {key: finding.get(key) for key in ("rule", "code", "pcr", "event_index") if key in finding}
        for finding in found
    ] == expected


def test_without_trust_in_the_ak_a_good_boot_is_no_verdict() -> None:
    result, _ = appraise_bundle(
        ROOT / "policies" / "evidence" / "uki-sb-on", ROOT / "policies" / "uki-strict"
    )
    assert result.tier.label == "none"
    assert {finding.reason.value for finding in result.findings if finding.tier.value} == {
        "ak-unproven",
        "freshness-assumed",
    }
