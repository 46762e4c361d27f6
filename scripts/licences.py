"""Licences of everything that verifier and agent carry at run time, from the metadata of what is installed."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINNED = {"verifier": "docker/verifier/requirements.txt", "agent": "docker/agent/requirements.txt"}
_PIN = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==", re.MULTILINE)
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.1-or-later",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Words of classifiers and older metadata, where no SPDX expression is given."""
_TPM2_PYTSS = {"tpm2-pytss": "BSD-2-Clause"}
"""Whose metadata says no more than `BSD`; its LICENSE file has two clauses."""
ACCEPTED = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "LGPL-2.1-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
    }
)
"""What Apache-2.0 software can depend on; the LGPL and MPL ones are libraries that are used unchanged."""


def carried() -> dict[str, set[str]]:
    """Package to what carries it."""
    found: dict[str, set[str]] = {}
    for holder, path in PINNED.items():
        for name in _PIN.findall((ROOT / path).read_text()):
            found.setdefault(name.lower(), set()).add(holder)
    return found


def licence(name: str) -> str:
    """An SPDX expression.

    Raises:
        LookupError: the package says nothing that is understood.
    """
    told = metadata.metadata(name)
    if name in _TPM2_PYTSS:
        return _TPM2_PYTSS[name]
    if expression := told.get("License-Expression"):
        return expression
    names = [
        line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License ::")
    ]
    known = [_SPDX[one] for one in names if one in _SPDX]
    if known and len(known) == len(names):
        return " OR ".join(known)
    text = (told.get("License") or "").strip()
    if text in _SPDX or text in ACCEPTED:
        return _SPDX.get(text, text)
    raise LookupError(f"{name}: no licence that is understood (classifiers {names}, text {text[:60]!r})")


def parts(expression: str) -> set[str]:
    """The licences an expression names."""
    return set(re.split(r" AND | OR |[()]", expression)) - {""}


def table() -> str:
    """One row for each package."""
    rows = [
        f"| {name} | {licence(name)} | {', '.join(sorted(holders, reverse=True))} |"
        for name, holders in sorted(carried().items())
    ]
    return "\n".join(["| package | licence (SPDX) | carried by |", "|---|---|---|", *rows, ""])
