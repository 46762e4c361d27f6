"""Write the documents that are made from code: docs/reasons.md. `--check` fails when one is out of date."""

from __future__ import annotations

import sys
from pathlib import Path

from verifier import reason_texts
from verifier.reasons import Reason

ROOT = Path(__file__).resolve().parent.parent


def reasons() -> str:
    """The dictionary of reasons as Markdown."""
    parts = [
        "# Reasons",
        "",
        "Every finding and every refusal carries one of these codes. They are stable: programs may rely on them.",
        "This page is made from `verifier/reason_texts.py` by `scripts/generate_docs.py`.",
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


def main() -> int:
    """Write or check."""
    target = ROOT / "docs" / "reasons.md"
    text = reasons()
    if "--check" in sys.argv:
        return 0 if target.read_text() == text else 1
    target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
