"""Claims of what the machine ran, as the proven part of its IMA list came out (docs/ima.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifier.claims import RuntimeFacts
from verifier.policy.claim_entry import ClaimEntry, Kind, Value, View, claim

_COUNTS: Final = (
    ("entries", "Proven entries of the IMA list since boot."),
    ("known", "Files that the runtime reference knows."),
    ("staged", "Files known to a staged set only: an update that was announced."),
    ("excluded", "Files of paths that the policy does not judge."),
    ("signed", "Files that are good by their signature alone."),
    ("unknown", "Files of paths that no set has."),
    ("wrong", "Files of known paths with another content."),
    ("violations", "Files written while they were measured or in use; of which kind, the PCR does not say."),
    ("unknown_modules", "Kernel modules among the unknown and changed files."),
    ("policy_loads", "IMA policies among the unknown and changed files."),
    ("keys", "Keys loaded onto keyrings of the kernel, known or not."),
    ("buffers", "Other critical data the kernel measured, known or not."),
    ("kernels", "Boot aggregates in the list: more than one after kexec."),
    ("unproven", "Entries measured into PCRs that the quote does not prove."),
    ("allowed", "Entries that are not known and that the policy lets through."),
)


def _reader(read: Callable[[RuntimeFacts], Value | None]) -> Callable[[View], Value | None]:
    def extract(view: View) -> Value | None:
        facts = view.claims.runtime
        return None if facts is None else read(facts)

    return extract


def _count(name: str, about: str) -> ClaimEntry:
    def read(facts: RuntimeFacts) -> Value:
        value: int = getattr(facts, name)
        return value

    return claim(f"runtime.{name}", Kind.INT, about, _reader(read))


RUNTIME: Final = (
    *(_count(name, about) for name, about in _COUNTS),
    claim(
        "runtime.boot_aggregate",
        Kind.BOOL,
        "IMA's own record of the PCRs it found agrees with the quote and the boot log; not proven where neither tells.",
        _reader(lambda facts: facts.boot_aggregate),
    ),
)
