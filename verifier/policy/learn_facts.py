"""Rules on claims from good boots: what is the same in all of them, and the sets that all of them stay in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from verifier.claims import ProvenClaims
from verifier.policy.catalogue import CATALOGUE, Kind, Value, View
from verifier.policy.cel import MAX_EXPRESSION, unfit
from verifier.reasons import Claim
from verifier.tcg.algorithms import HashAlg

_OWN_RULES: Final = frozenset({"boot.secure_boot.enabled"})
"""Judged by a rule of their own kind."""
_SETS: Final = {
    "boot.secure_boot.pk.certificates": "another platform key",
    "boot.secure_boot.kek.certificates": "another key exchange key",
    "boot.secure_boot.db.certificates": "firmware trusts another certificate",
    "boot.secure_boot.authorities": "another certificate let an image run",
    "boot.drivers": "another option ROM or driver ran",
    "boot.images": "another boot loader or kernel ran",
    "boot.files": "another file was read by the boot loader or kernel",
    "boot.credentials": "other credentials, extensions or addons were passed on",
    "boot.extensions": "other system extensions were passed on",
    "boot.windows.bitlocker_unlock": "the system volume was unlocked in another way",
    "boot.windows.elam_drivers": "another antimalware driver was started first",
    "boot.windows.code_integrity_policies": "another code-integrity policy was active",
}
_ONE_OF: Final = {"boot.firmware.version": "the firmware is another one"}
_EMPTY: Final = {"boot.error_separators": "firmware reported an error"}
_MINIMUM: Final = {"boot.secure_boot.dbx.entries": "revocations went missing"}
_EXACT: Final = frozenset(
    {
        "boot.drivers",
        "boot.images",
        "boot.files",
        "boot.credentials",
        "boot.extensions",
        "boot.uki.sections",
        "boot.firmware.version",
    }
)
_SECTIONS: Final = "boot.uki.sections"
_SBAT: Final = "boot.shim.sbat_level"


@dataclass(frozen=True, slots=True)
class Fact:
    """A rule that every boot meets.

    Attributes:
        pcrs: where the claim comes from; empty where it is no certain PCR.
        exact: it lists what a sequence of the same PCR lists too.
    """

    id: str
    claim: Claim
    expression: str
    message: str
    pcrs: frozenset[int]
    exact: bool


def constant_facts(boots: Sequence[ProvenClaims], bank: HashAlg) -> Iterator[Fact]:
    """Rules on every claim of the boot log that all `boots` prove.

    A constant is demanded, sets may not grow, levels may not sink. Claims that are unproven in any boot are left
    out, and so are values that differ in each machine (clocks, disks).
    """
    views = [View(claims, bank) for claims in boots]
    for name, entry in CATALOGUE.items():
        if not entry.reads_log or name in _OWN_RULES:
            continue
        values = [value for view in views if (value := entry.read(view)) is not None]
        if len(values) != len(views) or any(unfit(value) for value in values):
            continue
        for suffix, expression, message in _proposals(name, entry.kind, values):
            if len(expression) <= MAX_EXPRESSION:
                identifier = name.removeprefix("boot.").replace(".", "-").replace("_", "-") + suffix
                yield Fact(identifier, entry.speaks_for[0], expression, message, entry.pcrs, name in _EXACT)


_Proposal = tuple[str, str, str]


def _proposals(name: str, kind: Kind, values: Sequence[Value]) -> Iterator[_Proposal]:
    if kind is Kind.BOOL:
        yield from _constant_bool(name, values)
    for table, propose in _FORMS:
        if name in table:
            yield from propose(name, table[name], values)
    if name == _SECTIONS:
        yield from _sections(values)
    elif name == _SBAT:
        yield from _sbat(values)


def _constant_bool(name: str, values: Sequence[Value]) -> Iterator[_Proposal]:
    if all(value is True for value in values):
        yield "", name, f"{name} was true where this was learned"
    elif all(value is False for value in values):
        yield "", f"!{name}", f"{name} was false where this was learned"


def _subset(name: str, message: str, values: Sequence[Value]) -> Iterator[_Proposal]:
    union = sorted({str(item) for value in values if isinstance(value, list) for item in value})
    if union:
        yield "", f"{name}.all(one, one in {_literal(union)})", message
    else:
        yield "", f"{name} == []", message


def _one_of(name: str, message: str, values: Sequence[Value]) -> Iterator[_Proposal]:
    yield "", f"{name} in {_literal(sorted({str(value) for value in values}))}", message


def _empty(name: str, message: str, values: Sequence[Value]) -> Iterator[_Proposal]:
    if not any(values):
        yield "", f"{name} == []", message


def _minimum(name: str, message: str, values: Sequence[Value]) -> Iterator[_Proposal]:
    least = min(value for value in values if isinstance(value, int))
    if least > 0:
        yield "", f"{name} >= {least}", message


def _sections(values: Sequence[Value]) -> Iterator[_Proposal]:
    """Which sections there are, and of each its digests; nothing where no unified kernel image booted."""
    found = [value for value in values if isinstance(value, Mapping)]
    names = {str(name) for value in found for name in value}
    if not names or not all(found):
        return
    kinds = f"{_SECTIONS}.all(name, name in {_literal(sorted(names))})"
    yield "", kinds, "the unified kernel image has other sections"
    for name in sorted(names):
        if all(name in value for value in found):
            digests = sorted({str(value[name]) for value in found})
            expression = f"{_SECTIONS}[{_literal(name)}] in {_literal(digests)}"
            yield f"-{name.lstrip('.')}", expression, f"section {name} is another one"


def _sbat(values: Sequence[Value]) -> Iterator[_Proposal]:
    found = [value for value in values if isinstance(value, Mapping)]
    for component in sorted({str(name) for name in found[0]}):
        levels = [str(value.get(component, "")) for value in found]
        if all(level.isascii() and level.isdigit() and len(level) < _MAX_DIGITS for level in levels):
            least = min(int(level) for level in levels)
            expression = f"int({_SBAT}[{_literal(component)}]) >= {least}"
            yield f"-{_word(component)}", expression, f"the revocation level of {component} sank"


_MAX_DIGITS: Final = 10
_FORMS: Final[
    tuple[tuple[Mapping[str, str], Callable[[str, str, Sequence[Value]], Iterator[_Proposal]]], ...]
] = (
    (_SETS, _subset),
    (_ONE_OF, _one_of),
    (_EMPTY, _empty),
    (_MINIMUM, _minimum),
)


def _word(text: str) -> str:
    """What may stand in a rule's id."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())[:16]


def _literal(value: object) -> str:
    """JSON of strings is CEL."""
    return json.dumps(value, ensure_ascii=False)
