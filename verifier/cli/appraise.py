"""`attestctl appraise`: judge a collected bundle offline, with the very code that the service runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from verifier.appraisal.appraise import appraise as judge
from verifier.appraisal.evidence import Expectation, History
from verifier.appraisal.result import Appraisal, Finding
from verifier.appraisal.runtime import WholeList
from verifier.cli import output
from verifier.cli.bundle import Bundle, read_bundle
from verifier.errors import VtpmAttestError
from verifier.policy.model import Policy
from verifier.policy_files import load_policy
from verifier.runtime_references import FolderReferences


def appraise(
    bundle: Path,
    *,
    policy: Path,
    at: datetime | None = None,
    ak_trusted: bool = False,
    ak: Literal["ecc", "rsa"] = "ecc",
    everything: Annotated[bool, Parameter(name=["--all", "-a"])] = False,
    runtime_sets: Path | None = None,
    json: bool = False,
) -> int:
    """Appraise collected evidence offline. Exit code: 0 affirming, 1 warning, 2 contraindicated, 3 none.

    A bundle proves neither that it is fresh nor that its AK belongs to a TPM, so the answer is `none` unless
    you say --ak-trusted; both assumptions are then listed as findings.

    Examples:
        attestctl appraise bundle.json --policy policies/uki-strict --ak-trusted

        attestctl appraise policies/evidence/uki-sb-on --policy policies/uki-strict --ak-trusted --json

    Args:
        bundle: file of `attest-agent collect`, or a folder with quote, log and PCRs.
        policy: policy file, signed policy, or folder with policy.yaml.
        at: judge as of this time (RFC 3339); now by default.
        ak_trusted: take it on your word that the AK is a TPM's and the bundle's nonce fresh.
        ak: which quote of a folder to judge.
        everything: list the checks that passed as well.
        runtime_sets: folder of the runtime sets that the policy names; that of the policy by default.
        json: print one JSON document.
    """
    try:
        result, loaded = appraise_bundle(
            bundle, policy, at=at, ak_trusted=ak_trusted, ak=ak, runtime_sets=runtime_sets
        )
    except VtpmAttestError as error:
        output.fail(error)
    document = as_document(result, loaded)
    if json:
        output.print_json(document)
    else:
        _show(document, everything=everything)
    return output.EXIT_TIER[result.tier]


def appraise_bundle(
    path: Path,
    policy: Path,
    *,
    at: datetime | None = None,
    ak_trusted: bool = False,
    ak: str = "ecc",
    runtime_sets: Path | None = None,
) -> tuple[Appraisal, Bundle]:
    """Read and judge; raises `VtpmAttestError` for anything that cannot be read."""
    rules = load_policy(policy)
    bundle = read_bundle(path, ak=ak)
    expectation = Expectation(
        ak_public=bundle.ak_public,
        ak_activated=False,
        nonce=bundle.nonce if ak_trusted else None,
        request=(),
        assumed=ak_trusted,
    )
    now = at or datetime.now(UTC)
    runtime = _runtime(rules, bundle, runtime_sets or (policy if policy.is_dir() else policy.parent))
    return judge(bundle.evidence, expectation, rules, History(), now, runtime=runtime), bundle


def _runtime(policy: Policy, bundle: Bundle, folder: Path) -> WholeList | None:
    """How the bundle's IMA list is judged; None where the policy does not read it."""
    if policy.runtime is None:
        return None
    reference = FolderReferences([folder]).find(policy).make()
    return WholeList(None if bundle.evidence.ima is None else bundle.evidence.ima.segment, reference)


def as_document(result: Appraisal, bundle: Bundle) -> dict[str, object]:
    """The JSON document of an appraisal."""
    claims = result.claims
    return {
        "bundle": bundle.name,
        "status": result.tier.label,
        "vector": {claim.value: value for claim, value in sorted(result.vector.items())},
        "findings": [finding_document(finding) for finding in result.findings],
        "policy": {"id": result.policy_id, "revision": result.policy_revision},
        "boot_log_sha256": _sha256(bundle.evidence.boot_log),
        "runtime": None if claims is None or claims.runtime is None else claims.runtime._asdict(),
        "clock": None
        if claims is None
        else {
            "clock": claims.quote.clock.clock,
            "reset_count": claims.quote.clock.reset_count,
            "restart_count": claims.quote.clock.restart_count,
            "safe": claims.quote.clock.safe,
        },
    }


def finding_document(finding: Finding) -> dict[str, object]:
    """A finding with the keys of the wire; absent ones left out."""
    document: dict[str, object] = {
        "code": finding.reason.value,
        "status": finding.status.value,
        "severity": finding.severity.value,
        "claim": finding.claim.value,
        "message": finding.message,
    }
    optional: Mapping[str, object | None] = {
        "remedy": finding.remedy,
        "rule": finding.rule,
        "pcr": finding.pcr,
        "event_index": finding.event_index,
        "expected": finding.expected,
        "actual": finding.actual,
        "quirk": finding.quirk,
    }
    return document | {key: value for key, value in optional.items() if value is not None}


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _show(document: Mapping[str, object], *, everything: bool) -> None:
    findings = document["findings"]
    policy, vector = document["policy"], document["vector"]
    if not (isinstance(findings, list) and isinstance(policy, dict) and isinstance(vector, dict)):
        raise TypeError("an appraisal document has findings, a policy and a vector")
    output.out.print(f"{document['bundle']}: {output.tier_text(str(document['status']))}")
    output.out.print(f"[dim]policy {policy['id']} revision {str(policy['revision'])[:16]}[/]")
    output.out.print("[dim]" + "  ".join(f"{claim}={value}" for claim, value in vector.items()) + "[/]\n")
    passed = sum(finding["status"] == "passed" for finding in findings)
    output.out.print(output.findings_table(findings, everything=everything))
    if passed and not everything:
        output.out.print(f"[dim]{passed} checks passed; --all lists them[/]")
