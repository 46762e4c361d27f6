"""Write the documents that are made from code. `--check` fails, naming them, when some are out of date."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from scripts.agent_completion import SHELLS, completion
from scripts.agent_manual import manual
from scripts.licences import table
from scripts.quirk_docs import quirks
from verifier import reason_texts
from verifier.policy.catalogue import CATALOGUE, ClaimEntry
from verifier.policy.lint.problem import PROBLEMS
from verifier.policy.schema import policy_schema
from verifier.reasons import Reason

ROOT = Path(__file__).resolve().parent.parent


def reasons() -> str:
    """The dictionary of reasons as Markdown."""
    parts = [
        "# Reasons",
        "",
        "Every finding and every refusal carries one of these codes. They are stable: programs may rely on them.",
        "This page is made from `verifier/reason_texts/` by `scripts/generate_docs.py`.",
        "",
    ]
    for reason in Reason:
        entry = reason_texts.ENTRIES[reason]
        parts += [
            f"## `{reason.value}`",
            "",
            f"**{entry.title}.** {entry.explanation}",
            "",
            f"*What to do:* {entry.remedy}",
            "",
        ]
    return "\n".join(parts)


def claims() -> str:
    """The catalogue of claims as Markdown."""
    parts = [
        "# Claims",
        "",
        "What a `cel` rule of a policy may read ([policy.md](policy.md)). Every value is proven: by the quote, by events of",
        "the boot log that a quoted PCR binds ([binding.md](binding.md)), or by enrolment. A claim that a guest's evidence does",
        "not prove makes the rules that read it `not-evaluated`; it is never taken to be empty or false. Digests are",
        "lower-case hex in the policy's bank unless something else is said. *PCR* names those of which at least one must be",
        "quoted and explained by the log; *speaks for* the AR4SI claims that rules over it usually speak for.",
        "",
        "This page is made from `verifier/policy/catalogue.py` by `scripts/generate_docs.py`.",
        "",
    ]
    for title, prefix in _SECTIONS.items():
        parts += [
            f"## {title}",
            "",
            "| claim | type | PCR | speaks for | what it is |",
            "|---|---|---|---|---|",
        ]
        parts += [_claim_row(entry) for entry in _entries(prefix)]
        parts.append("")
    return "\n".join(parts)


_SECTIONS: Final = {"The quote": "quote.", "The boot": "boot.", "Identity": "identity."}


def _entries(prefix: str) -> Iterator[ClaimEntry]:
    return (entry for entry in CATALOGUE.values() if entry.name.startswith(prefix))


def _claim_row(entry: ClaimEntry) -> str:
    pcrs = (" and " if entry.every else ", ").join(str(pcr) for pcr in sorted(entry.pcrs))
    speaks_for = ", ".join(claim.value for claim in entry.speaks_for)
    return f"| `{entry.name}` | `{entry.kind.value}` | {pcrs} | {speaks_for} | {entry.about} |"


def problems() -> str:
    """The lint problems as Markdown."""
    parts = [
        "# What `attestctl policy lint` finds",
        "",
        "Errors keep a policy from being used: parsing it refuses them too. Warnings are legal and suspicious. A problem is",
        "reported only where it is certain.",
        "",
        "This page is made from `verifier/policy/lint/problem.py` by `scripts/generate_docs.py`.",
        "",
        "| id | level | what it is | what to do |",
        "|---|---|---|---|",
    ]
    parts += [
        f"| `{identifier.value}` | {entry.level.value} | {entry.about} | {entry.remedy} |"
        for identifier, entry in PROBLEMS.items()
    ]
    return "\n".join([*parts, ""])


def schema() -> str:
    """The JSON Schema of policy documents."""
    return json.dumps(policy_schema(), indent=2) + "\n"


def licences() -> str:
    """What is carried, under which licence."""
    head = (
        "# Licences of what is carried\n\n"
        "Made by `python -m scripts.generate_docs` from the metadata of the pinned packages. The project itself is Apache-2.0.\n\n"
    )
    return head + table()


DOCUMENTS: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reasons.md": reasons,
    "docs/claims.md": claims,
    "docs/lint.md": problems,
    "docs/policy.schema.json": schema,
    "docs/quirks.md": quirks,
    "docs/licences.md": licences,
    "agent/man/attest-agent.1": manual,
    **{f"agent/completions/attest-agent.{shell}": partial(completion, shell) for shell in SHELLS},
}


def main() -> int:
    """Write or check."""
    stale = []
    for name, make in DOCUMENTS.items():
        target, text = ROOT / name, make()
        if "--check" in sys.argv:
            if not target.exists() or target.read_text() != text:
                stale.append(name)
        else:
            target.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run scripts/generate_docs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
