"""`attestctl policy`: lint and learn."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from verifier.cli import compare, output
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.errors import VtpmAttestError
from verifier.policy.learn import LearnOptions, learn
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_policy_source
from verifier.tcg.algorithms import HashAlg

app = App(name="policy", help="Write, learn and check policies.")


@app.command(name="lint")
def lint_command(policy: Path, *, json: bool = False) -> int:
    """Refuse a policy that is malformed or would let something pass in silence.

    Example:
        attestctl policy lint policies/uki-strict

    Args:
        policy: policy file, or folder with policy.yaml.
        json: print one JSON document.
    """
    try:
        parsed = parse_policy(read_policy_source(policy))
    except VtpmAttestError as error:
        if json:
            output.print_json({"ok": False, "error": str(error)})
            return output.exit_code(error)
        output.fail(error)
    if json:
        output.print_json(
            {"ok": True, "id": parsed.id, "revision": parsed.revision, "rules": len(parsed.rules)}
        )
    else:
        output.out.print(
            f"[green]ok[/] {parsed.id}: {len(parsed.rules)} rules, revision {parsed.revision[:16]}"
        )
        for pcr, why in sorted(parsed.unjudged.items()):
            output.out.print(f"[dim]PCR {pcr} is not judged: {why}[/]")
    return 0


@app.command(name="learn")
def learn_command(
    *bundles: Path,
    out: Path,
    id: str | None = None,  # noqa: A002 - the option is --id
    description: str = "",
    severity: str = "contraindicated",
    ak: str = "ecc",
) -> int:
    """Propose a policy from good evidence: constant events become golden, differing ones alternatives.

    You vouch that the evidence is good: every bundle given will be affirming under the result.

    Example:
        attestctl policy learn boot1.json boot2.json --out policies/web/policy.yaml

    Args:
        bundles: files of `attest-agent collect`, or evidence folders.
        out: where to write the policy; reference values go into the same file, or beside `policy.yaml`.
        id: id of the policy; the name of the folder or file by default.
        description: one line for people.
        severity: what a deviation means: contraindicated or warning.
        ak: which quote of an evidence folder to read.
    """
    try:
        claims = {bundle.name: prove(bundle) for bundle in (read_bundle(path, ak=ak) for path in bundles)}
        name = id or (out.parent.name if out.name == "policy.yaml" else out.stem)
        options = LearnOptions(
            id=name,
            description=description or f"Learned from {', '.join(claims)}.",
            bank=HashAlg.SHA256,
            severity=severity,
        )
        proposal = learn(claims, options)
        parsed = parse_policy(proposal.source)  # what we propose must itself be sound
    except VtpmAttestError as error:
        output.fail(error)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.name == "policy.yaml":
        out.write_text(proposal.policy)
        (out.parent / "reference-values.yaml").write_text(proposal.reference_values)
    else:
        out.write_text(proposal.source)
    output.out.print(
        f"wrote {out}: {len(parsed.rules)} rules from {len(claims)} boot(s); read it before you use it"
    )
    return 0


app.command(compare.diff)
app.command(compare.explain)
