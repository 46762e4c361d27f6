"""What Windows measured of itself before its kernel ran (SIPA, PCRs 12 and 13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from verifier.appraisal.boot.binding import BoundLog
from verifier.claims import Binding, WindowsFacts, WindowsModule
from verifier.errors import EvidenceError
from verifier.tcg.algorithms import HASH_BY_ID
from verifier.tcg.event_types import EventType
from verifier.tcg.windows import Record, Sipa, parse_si_policy, parse_sipa, unlock_flags

PARAMETER_PCR: Final = 12
MODULE_PCR: Final = 13
CLOSED: Final = b"WBCL"
"""Windows ends each of its PCRs with a separator of this value before the kernel runs."""

_NUMBERS: Final = (1, 2, 4, 8)


def read_windows(bound: BoundLog) -> WindowsFacts | None:
    """Facts of a Windows boot; None where there was none, or where its measurements leave a doubt.

    A running system can extend these PCRs. So only what stands before the proven closing separator counts, and
    everything there must be bound and decode: the true measurement cannot hide under another label.
    """
    parameters = _closed_records(bound, PARAMETER_PCR)
    modules = _closed_records(bound, MODULE_PCR)
    if not parameters or modules is None:
        return None
    numbers = _numbers([*parameters, *modules])
    unlock = numbers.pop(Sipa.BITLOCKER_UNLOCK.name.lower(), set())
    transfers = numbers.pop(Sipa.TRANSFER_CONTROL.name.lower(), set())
    return WindowsFacts(
        parameters={name: next(iter(values)) for name, values in numbers.items() if len(values) == 1},
        contradictions=frozenset(name for name, values in numbers.items() if len(values) > 1),
        bitlocker_unlock=frozenset().union(*(unlock_flags(value) for value in unlock)),
        transfers=frozenset(transfers),
        elam_drivers=_texts(parameters, Sipa.ELAM_KEYNAME),
        modules=tuple([module for module in map(_module, _containers(modules)) if module is not None]),
        policies=tuple(
            [name for name in map(_policy_name, _leaves([*parameters, *modules])) if name is not None]
        ),
    )


def _closed_records(bound: BoundLog, pcr: int) -> list[Record] | None:
    records: list[Record] = []
    for fact in bound.of(pcr):
        if fact.digests == bound.expected(CLOSED, fact.digests):
            return records
        # Of this type alone the digest covers all that is decoded.
        if fact.binding is not Binding.BOUND or fact.event_type != EventType.EV_EVENT_TAG:
            return None
        try:
            records.extend(parse_sipa(bound.log.events[fact.index].data))
        except EvidenceError:
            return None
    return None


def _leaves(records: Iterable[Record]) -> Iterable[Record]:
    """Records of the trust boundaries themselves, those of loaded modules not included."""
    for record in records:
        if record.kind == Sipa.LOADEDMODULE_AGGREGATION:
            continue
        if record.parts:
            yield from _leaves(record.parts)
        else:
            yield record


def _containers(records: Iterable[Record]) -> Iterable[Record]:
    """Loaded modules, wherever they stand."""
    for record in records:
        if record.kind == Sipa.LOADEDMODULE_AGGREGATION:
            yield record
        else:
            yield from _containers(record.parts)


def _numbers(records: Iterable[Record]) -> dict[str, set[int]]:
    numbers: dict[str, set[int]] = {}
    for record in _leaves(records):
        if len(record.content) in _NUMBERS:
            numbers.setdefault(record.name, set()).add(int.from_bytes(record.content, "little"))
    return numbers


def _texts(records: Iterable[Record], kind: Sipa) -> tuple[str, ...]:
    return tuple([record.text for record in _leaves(records) if record.kind == kind])


def _module(container: Record) -> WindowsModule | None:
    parts: Mapping[int, Record] = {part.kind: part for part in container.parts}
    path, digest = parts.get(Sipa.FILEPATH), parts.get(Sipa.AUTHENTICODEHASH)
    if path is None or digest is None:
        return None
    algorithm = parts.get(Sipa.HASHALGORITHMID)
    return WindowsModule(path.text, _hash_name(algorithm.number if algorithm else 0), digest.content)


def _hash_name(number: int) -> str:
    """CryptoAPI ALG_ID (0x800c is CALG_SHA_256), or a TPM_ALG_ID in later versions."""
    known = HASH_BY_ID.get(number)
    return _CALG.get(number) or (known.label if known is not None else f"0x{number:x}")


_CALG: Final = {0x8004: "sha1", 0x800C: "sha256", 0x800D: "sha384", 0x800E: "sha512"}


def _policy_name(record: Record) -> str | None:
    if record.kind != Sipa.SI_POLICY:
        return None
    try:
        return parse_si_policy(record.content)
    except EvidenceError:
        return None
