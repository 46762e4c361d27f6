"""Why an entry is not what the reference expects, most likely: a hint for people that decides nothing."""

from __future__ import annotations

import re
from typing import Final

from verifier.policy.runtime.reference import Lookup, Verdict

MODULE: Final = re.compile(r"\.ko(\.(gz|xz|zst))?$")
_SCRIPT: Final = re.compile(r"\.(sh|bash|py|pl|rb|js|lua|awk|tcl|php)$")
_GENERATED: Final = re.compile(r"\.pyc$|/ld\.so\.cache$|\.(cache|db|conf|cfg|json|ya?ml|xml|log|tmp)$")
_WRITABLE: Final = re.compile(r"^/(tmp|var/tmp|dev/shm|run/user|home|root)/")
_MEMORY: Final = re.compile(r"^/?memfd:|[ _]\(deleted\)$|^\(null\)$")

_STRANGERS: Final = (
    (_MEMORY, "it was run from memory or deleted meanwhile: no package does that"),
    (MODULE, "a module of another kernel or one built on the machine, or a foreign one"),
    (_WRITABLE, "it lies where users can write: a program that somebody brought along"),
    (_GENERATED, "a file made on the machine, which no package has: exclude it or learn it"),
)
_STRANGER: Final = "a package that no set covers, or a program that somebody brought along"


def likely(path: str, lookup: Lookup) -> str:
    """One clause for the finding of a file."""
    if lookup.verdict is Verdict.WRONG_DIGEST:
        return _changed(path, lookup)
    if lookup.digest_known_as is not None:
        return f"its content is that of {lookup.digest_known_as}: copied, moved or renamed"
    return next((clause for pattern, clause in _STRANGERS if pattern.search(path)), _STRANGER)


def _changed(path: str, lookup: Lookup) -> str:
    source = f" ({lookup.source})" if lookup.source else ""
    if _GENERATED.search(path):
        return f"a file that the machine itself rewrites, or tampering{source}"
    if MODULE.search(path):
        return f"the module of another kernel build, or tampering{source}"
    if _SCRIPT.search(path):
        return f"the script was edited, or its package updated{source}"
    return f"its package was updated since the set was made, or the file was tampered with{source}"
