"""`attestctl policy dry-run`: whose verdict a policy would change, and why; nothing is changed by asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter

from verifier.cli import output
from verifier.cli.bundle import read_bundle
from verifier.cli.dry_run_view import Report, exit_code, show
from verifier.cli.fleet import Where
from verifier.cli.fleet_pages import each_page
from verifier.cli.proof import judge
from verifier.cli.remote import Remote, path_of
from verifier.errors import EvidenceError, PolicyError, VtpmAttestError
from verifier.policy.model import Policy
from verifier.policy.source import parse_source
from verifier.policy_files import load_policy, read_policy_source
from verifier.ports import Lifecycle
from verifier.reasons import Reason
from verifier.service.trial import DryRunPage, Outcome, Trial, Untried, compare
from verifier.web.dry_run_messages import YAML, page_message

_EVIDENCE_FILES: Final = ("bundle.json", "meta.json")


def dry_run(
    policy: str,
    *bundles: Path,
    label: str | None = None,
    assigned: str | None = None,
    everyone: Annotated[bool, Parameter(name="--all", negative="")] = False,
    against: Path | None = None,
    ak: Literal["ecc", "rsa"] = "ecc",
    rows: int = 40,
    where: Where | None = None,
) -> int:
    """Show whose verdict a policy would change, and why. Nothing is stored or changed.

    Asks a verifier, which judges the newest stored evidence of its fleet: by default of those guests that a policy with
    this id judges now. With BUNDLE it judges files instead, offline. Exit code: 0 nobody fares worse, 1 some would get a
    warning, 2 some would be contraindicated, 3 some would be none or could not be judged, or there was nobody to judge.

    Examples:
        attestctl policy dry-run policies/web.yaml

        attestctl policy dry-run policies/web.yaml --label env=production

        attestctl policy dry-run web --all --json

        attestctl policy dry-run next.yaml evidence/ --against policies/web.yaml

    Args:
        policy: policy file, signed policy, folder with policy.yaml, or ID[@REVISION] of a policy the verifier has.
        bundles: files of `attest-agent collect`, evidence folders, or folders of either.
        label: only guests with this label, KEY=VALUE.
        assigned: only guests that the policy of this id judges now.
        everyone: every guest.
        against: offline: policy in force; without it, whoever would not be affirming is shown.
        ak: offline: which quote of an evidence folder to judge.
        rows: how many guests to list at most; 0 lists all.
    """
    at = where or Where()
    try:
        if bundles:
            if everyone or label or assigned:
                output.fail(
                    ValueError(
                        "--all, --label and --assigned choose guests of a verifier; leave out the files"
                    )
                )
            report = _offline(policy, bundles, against, ak)
        else:
            if against is not None:
                output.fail(
                    ValueError("--against is for files; a verifier compares with the verdicts it has stored")
                )
            query = {"label": label, "assigned": assigned, "all": "true" if everyone else None}
            report = at.ask(lambda remote: _online(remote, policy, query))
    except VtpmAttestError as error:
        output.fail(error)
    if at.json:
        output.print_json(report.document())
    else:
        show(report, rows)
    return exit_code(report)


def _online(remote: Remote, policy: str, query: Mapping[str, object | None]) -> Report:
    """Page after page; the verifier keeps nothing between them."""
    body, policy_id, revision = _named(policy)
    total = None if query["label"] else remote.get("/v1/status").get("total")
    report, path = Report(compared=True), f"/v1/policies{path_of(policy_id, 'dry-run')}"

    def ask(cursor: str | None, limit: int) -> Mapping[str, Any]:
        asked = {**query, "revision": revision, "cursor": cursor, "limit": limit}
        page: Mapping[str, Any] = remote.upload(path, body, YAML, asked)
        return page

    each_page(ask, report.add, total=total)
    return report


def _named(policy: str) -> tuple[bytes, str, str | None]:
    """What to send, the policy's id, and the revision where it is a stored one."""
    path = Path(policy)
    if path.exists():
        source = read_policy_source(path)
        return source, parse_source(source).id, None
    if "/" in policy or path.suffix in {".yaml", ".yml", ".json"}:
        raise PolicyError("there is no such file", where=policy)
    policy_id, _, revision = policy.partition("@")
    return b"", policy_id, revision or None


def _offline(policy: str, paths: Sequence[Path], against: Path | None, ak: str) -> Report:
    rules = load_policy(Path(policy))
    current = None if against is None else load_policy(against)
    page = DryRunPage(policy_id=rules.id, revision=rules.revision)
    for path in output.progress(list(_evidence(paths)), "judging again"):
        page.examined += 1
        outcome = _judge(path, rules, current, ak)
        page.trials.append(
            Trial(attester_id=path.stem, hostname=None, lifecycle=Lifecycle.ENROLLED, outcome=outcome)
        )
    report = Report(compared=current is not None)
    report.add(msgspec.to_builtins(page_message(page)))
    return report


def _judge(path: Path, rules: Policy, current: Policy | None, ak: str) -> Outcome:
    """What is wrong with one file is told and keeps no other from being judged."""
    try:
        bundle = read_bundle(path, ak=ak)
        missing = rules.quote.pcrs - bundle.evidence.pcrs.get(rules.quote.bank, {}).keys()
        if missing:
            listed = ", ".join(map(str, sorted(missing)))
            detail = f"it has no {rules.quote.bank.label} PCR {listed}, which this policy judges"
            return Untried(code=Reason.QUOTE_PCR_SELECTION, detail=detail)
        after = judge(bundle, rules)
        if current is None:
            return compare(None, (), after)
        before = judge(bundle, current)
    except EvidenceError as error:
        return Untried(code=error.reason, detail=str(error))
    return compare(before.tier, before.findings, after)


def _evidence(paths: Sequence[Path]) -> Iterator[Path]:
    """Files and evidence folders as they are named; of any other folder, what lies in it."""
    for path in paths:
        if not path.is_dir() or _is_evidence(path):
            yield path
            continue
        inner = [one for one in sorted(path.iterdir()) if one.suffix == ".json" or _is_evidence(one)]
        if not inner:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, "no evidence lies in this folder", structure=str(path)
            )
        yield from inner


def _is_evidence(path: Path) -> bool:
    return any((path / name).is_file() for name in _EVIDENCE_FILES)
