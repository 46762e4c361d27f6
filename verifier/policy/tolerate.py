"""Quirks that a policy tolerates: from the document to the model, and which one speaks for a finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from verifier.errors import PolicyError
from verifier.findings import Severity
from verifier.policy.document import TOLERABLE, TOLERATED_AS, TolerateDocument
from verifier.policy.model import Policy, Toleration
from verifier.quirks import Quirk

WHERE: Final = "tolerate"


def read_tolerations(entries: Iterable[TolerateDocument], quoted: frozenset[int]) -> tuple[Toleration, ...]:
    """The entries, checked one by one and against each other.

    Raises `PolicyError` for an unknown quirk, one that needs no leave, PCRs where none or some are wanted, a PCR that
    is not quoted, a severity that tolerates nothing, and what is said twice.
    """
    result: list[Toleration] = []
    said: set[tuple[Quirk, int | None]] = set()
    for entry in entries:
        toleration = _read(entry, quoted)
        for place in _places(toleration):
            if place in said:
                raise PolicyError(f"{place[0].value} is tolerated twice{_of(place[1])}", where=WHERE)
            said.add(place)
        result.append(toleration)
    return tuple(result)


def _read(entry: TolerateDocument, quoted: frozenset[int]) -> Toleration:
    quirk = _quirk(entry.quirk)
    if entry.severity not in TOLERATED_AS:
        choices = " or ".join(TOLERATED_AS)
        raise PolicyError(f"severity {entry.severity!r} tolerates nothing; write {choices}", where=WHERE)
    if quirk.entry.of_whole_log and entry.pcrs:
        raise PolicyError(f"{quirk.value} is one of the whole log; leave `pcrs` out", where=WHERE)
    if not quirk.entry.of_whole_log and not entry.pcrs:
        raise PolicyError(f"name the `pcrs` in which {quirk.value} is expected", where=WHERE)
    for pcr in sorted(set(entry.pcrs) - quoted):
        raise PolicyError(f"{quirk.value} is tolerated in PCR {pcr}, which is not quoted", where=WHERE)
    if len(set(entry.pcrs)) != len(entry.pcrs):
        raise PolicyError(f"{quirk.value} names a PCR twice", where=WHERE)
    return Toleration(
        quirk=quirk, pcrs=frozenset(entry.pcrs), severity=Severity(entry.severity), why=entry.why
    )


def _quirk(name: str) -> Quirk:
    try:
        quirk = Quirk(name)
    except ValueError:
        names = ", ".join(TOLERABLE)
        raise PolicyError(f"{name!r} is no known quirk; they are {names}", where=WHERE) from None
    if not quirk.entry.tolerable:
        raise PolicyError(f"{name} needs no toleration: it is read over", where=WHERE)
    return quirk


def _places(toleration: Toleration) -> Iterator[tuple[Quirk, int | None]]:
    for pcr in sorted(toleration.pcrs) or (None,):
        yield toleration.quirk, pcr


def _of(pcr: int | None) -> str:
    return "" if pcr is None else f" for PCR {pcr}"


def tolerated_pcrs(tolerated: Iterable[Toleration]) -> frozenset[tuple[Quirk, int]]:
    """Every quirk with every PCR it is tolerated in."""
    return frozenset((each.quirk, pcr) for each in tolerated for pcr in each.pcrs)


def toleration_of(
    tolerated: Iterable[Toleration], quirk: Quirk | None, pcr: int | None = None
) -> Toleration | None:
    """The entry that speaks for `quirk` in `pcr`; with no PCR, for the log as a whole."""
    for each in tolerated:
        if each.quirk is quirk and (pcr is None or pcr in each.pcrs):
            return each
    return None


def describe(policy: Policy) -> Iterator[tuple[str, Toleration]]:
    """For people: each entry with what it is about."""
    for each in policy.tolerated:
        where = f" in PCR {', '.join(map(str, sorted(each.pcrs)))}" if each.pcrs else ""
        yield f"{each.quirk.value}{where}", each
