"""`attestctl policy`: write, learn, compare, check and sign policies."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App
from rich.markup import escape
from rich.table import Table

from verifier.cli import (
    assignments,
    compare,
    dry_run,
    output,
    policy_apply,
    policy_learn,
    policy_rejudging,
    policy_sign,
    predict,
    revocations,
)
from verifier.errors import VtpmAttestError
from verifier.policy.dsse import open_policy
from verifier.policy.lint import Level, Problem
from verifier.policy.parse import check_policy
from verifier.policy.runtime.section import describe as describe_runtime
from verifier.policy.schema import policy_schema
from verifier.policy.tolerate import describe
from verifier.policy_files import read_policy_source

app = App(name="policy", help="Write, learn, compare, check and sign policies.")
_STYLE = {Level.ERROR: "red", Level.WARNING: "yellow"}


@app.command(name="lint")
def lint_command(policy: Path, *, strict: bool = False, json: bool = False) -> int:
    """List what is wrong with a policy: errors keep it from being used, warnings are for you. Exit code: 0, or 65.

    Examples:
        attestctl policy lint policies/uki-strict

        attestctl policy lint policies/uki-strict --strict --json

    Args:
        policy: policy file, signed policy, or folder with policy.yaml.
        strict: let warnings fail as errors do.
        json: print one JSON document.
    """
    try:
        parsed, problems = check_policy(open_policy(read_policy_source(policy), None).payload)
    except VtpmAttestError as error:
        output.fail(error)
    failed = any(strict or problem.level is Level.ERROR for problem in problems)
    if json:
        head = (
            {}
            if parsed is None
            else {"id": parsed.id, "revision": parsed.revision, "rules": len(parsed.rules)}
        )
        output.print_json(
            {"ok": not failed, **head, "problems": [_document(problem) for problem in problems]}
        )
        return output.EXIT_DATA if failed else 0
    if problems:
        (output.err if failed else output.out).print(_table(problems))
    if parsed is not None and not failed:
        output.out.print(
            f"[green]ok[/] {parsed.id}: {len(parsed.rules)} rules, revision {parsed.revision[:16]}"
        )
        for pcr, why in sorted(parsed.unjudged.items()):
            output.out.print(f"[dim]PCR {pcr} is not judged: {escape(why)}[/]")
        for line in describe_runtime(parsed.runtime):
            output.out.print(f"[dim]{escape(line)}[/]")
        for what, each in describe(parsed):
            output.out.print(f"[dim]{what} is tolerated ({each.severity.value}): {escape(each.why)}[/]")
    return output.EXIT_DATA if failed else 0


def _document(problem: Problem) -> dict[str, str]:
    return {
        "id": problem.id.value,
        "level": problem.level.value,
        "where": problem.where,
        "message": problem.message,
        "remedy": problem.remedy,
    }


def _table(problems: Sequence[Problem]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "problem", "where", "what"):
        table.add_column(column, overflow="fold", no_wrap=column in ("", "problem"))
    for problem in problems:
        style, what = _STYLE[problem.level], f"{escape(problem.message)}\n[dim]{escape(problem.remedy)}[/]"
        table.add_row(f"[{style}]{problem.level.value}[/]", problem.id.value, escape(problem.where), what)
    return table


@app.command(name="schema")
def schema_command() -> int:
    """Print the JSON Schema of policy documents, for editors (docs/policy.schema.json is this).

    Example:
        attestctl policy schema
    """
    output.out.out(json_module.dumps(policy_schema(), indent=2), highlight=False)
    return 0


app.command(policy_learn.learn_command, name="learn")
app.command(compare.diff)
app.command(compare.explain)
app.command(dry_run.dry_run, name="dry-run")
app.command(predict.predict)
app.command(revocations.revocations)
app.command(policy_sign.sign_command, name="sign")
app.command(policy_sign.verify_command, name="verify")
app.command(policy_apply.apply)
app.command(policy_rejudging.rejudging)
app.command(assignments.push)
app.command(assignments.assign)
app.command(assignments.assignments)
app.command(assignments.unassign)
