"""What changed: between two boots, event by event, and between two policies, rule by rule."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import SequenceMatcher
from typing import Final

from verifier.claims import EventFact, ProvenClaims
from verifier.policy.model import Accepted, Policy, Rule
from verifier.tcg.algorithms import HashAlg


class Change(enum.StrEnum):
    """How something differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChange:
    """One difference between two boots, in one PCR.

    `before` and `after` are the events; both None where only the PCR's value can be compared because a log
    does not explain it.
    """

    change: Change
    pcr: int
    before: EventFact | None = None
    after: EventFact | None = None
    before_value: bytes | None = None
    after_value: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One difference between two policies: a rule, or a field of the policy itself."""

    change: Change
    where: str
    before: str | None = None
    after: str | None = None


def diff_boots(before: ProvenClaims, after: ProvenClaims, bank: HashAlg) -> tuple[EventChange, ...]:
    """Differences between two proven boots, PCR by PCR, each event in the place where it was measured.

    Only digests decide; texts are shown where they are proven. PCRs whose value is equal are left out, so two
    boots without differences give an empty tuple.
    """
    left, right = before.quote.pcrs.get(bank, {}), after.quote.pcrs.get(bank, {})
    changes: list[EventChange] = []
    for pcr in sorted(set(left) | set(right)):
        if left.get(pcr) == right.get(pcr):
            continue
        old, new = _measured(before, pcr, bank), _measured(after, pcr, bank)
        if old is None or new is None or pcr not in left or pcr not in right:
            changes.append(
                EventChange(
                    change=_kind(left.get(pcr), right.get(pcr)),
                    pcr=pcr,
                    before_value=left.get(pcr),
                    after_value=right.get(pcr),
                )
            )
            continue
        changes.extend(_events(pcr, old, new, bank))
    return tuple(changes)


def _kind(before: object | None, after: object | None) -> Change:
    if before is None:
        return Change.ADDED
    return Change.REMOVED if after is None else Change.CHANGED


def _measured(claims: ProvenClaims, pcr: int, bank: HashAlg) -> list[EventFact] | None:
    """The events of a PCR that the log explains; None where it does not."""
    boot = claims.boot
    if boot is None or bank not in boot.banks or pcr in boot.unlogged_pcrs:
        return None
    return [event for event in boot.events if event.pcr == pcr and bank in event.digests]


def _events(
    pcr: int, old: Sequence[EventFact], new: Sequence[EventFact], bank: HashAlg
) -> Iterator[EventChange]:
    matcher = SequenceMatcher(
        None, [event.digests[bank] for event in old], [event.digests[bank] for event in new], autojunk=False
    )
    for tag, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        lefts: list[EventFact | None] = list(old[left_start:left_end])
        rights: list[EventFact | None] = list(new[right_start:right_end])
        size = max(len(lefts), len(rights))
        for left, right in zip(_padded(lefts, size), _padded(rights, size), strict=True):
            yield EventChange(change=_kind(left, right), pcr=pcr, before=left, after=right)


def _padded(items: list[EventFact | None], size: int) -> list[EventFact | None]:
    return items + [None] * (size - len(items))


def diff_policies(before: Policy, after: Policy) -> tuple[PolicyChange, ...]:
    """Differences between two policies: fields first, then rules by id, then what only one of them has."""
    changes = [
        PolicyChange(change=Change.CHANGED, where=name, before=_shown(old), after=_shown(new))
        for name, old, new in _fields(before, after)
        if old != new
    ]
    changes.extend(_toleration_changes(before, after))
    changes.extend(_runtime_changes(before, after))
    left, right = _by_id(before.rules), _by_id(after.rules)
    for rule_id in [*left, *(each for each in right if each not in left)]:
        old_rule, new_rule = left.get(rule_id), right.get(rule_id)
        if old_rule is None or new_rule is None:
            changes.append(
                PolicyChange(
                    change=_kind(old_rule, new_rule),
                    where=f"rule {rule_id}",
                    before=None if old_rule is None else type(old_rule).__name__,
                    after=None if new_rule is None else type(new_rule).__name__,
                )
            )
        elif old_rule != new_rule:
            changes.extend(_rule_changes(rule_id, old_rule, new_rule))
    return tuple(changes)


def _toleration_changes(before: Policy, after: Policy) -> Iterator[PolicyChange]:
    """Quirk by quirk and PCR by PCR, so that a toleration that grows cannot hide in one that was there."""
    old, new = _tolerations(before), _tolerations(after)
    for where in [*old, *(each for each in new if each not in old)]:
        left, right = old.get(where), new.get(where)
        if left != right:
            yield PolicyChange(change=_kind(left, right), where=where, before=left, after=right)


def _runtime_changes(before: Policy, after: Policy) -> Iterator[PolicyChange]:
    old, new = (
        {} if each is None else dict(_leaves(each, "runtime")) for each in (before.runtime, after.runtime)
    )
    for where in [*old, *(each for each in new if each not in old)]:
        left, right = old.get(where), new.get(where)
        if left != right:
            yield PolicyChange(change=_kind(left, right), where=where, before=left, after=right)


def _tolerations(policy: Policy) -> Mapping[str, str]:
    return {
        f"tolerate {each.quirk.value}{'' if pcr is None else f' PCR {pcr}'}": f"{each.severity.value}: {each.why}"
        for each in policy.tolerated
        for pcr in sorted(each.pcrs) or (None,)
    }


_SHOWN_TOGETHER: Final = 8
"""Longer lists of digests are compared digest by digest."""
_COMPARED: Final = ("description", "validity", "quote", "boot_log", "unjudged")


def _fields(before: Policy, after: Policy) -> Iterator[tuple[str, object, object]]:
    for name in _COMPARED:
        yield name, getattr(before, name), getattr(after, name)


def _by_id(rules: Iterable[Rule]) -> Mapping[str, Rule]:
    return {rule.head.id: rule for rule in rules}


def _rule_changes(rule_id: str, before: Rule, after: Rule) -> Iterator[PolicyChange]:
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for path in [*old, *(each for each in new if each not in old)]:
        left, right = old.get(path), new.get(path)
        if left != right:
            yield PolicyChange(
                change=_kind(left, right), where=f"rule {rule_id} {path}".strip(), before=left, after=right
            )


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a rule as (path, text), so that two rules can be compared place by place."""
    if isinstance(value, Accepted) and len(value.digests) > _SHOWN_TOGETHER:
        for digest, note in value.digests.items():
            yield f"{path} {digest.hex()}", note or "accepted"
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.compare:
                yield from _leaves(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")
    else:
        yield path, _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{_shown(key)} ({_shown(item)})" if item else _shown(key) for key, item in value.items()
        )
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return str(value.value if isinstance(value.value, str) else value.name.lower())
    if isinstance(value, (frozenset, set)):
        return ", ".join(sorted((_shown(item) for item in value), key=_natural))
    if is_dataclass(value) and not isinstance(value, type):
        return "; ".join(f"{field.name}: {_shown(getattr(value, field.name))}" for field in fields(value))
    return str(value)


def _natural(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (-1, text)
