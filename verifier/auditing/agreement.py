"""What is not in the log itself but follows from what is: the newest verdicts, and what verdicts say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from verifier.auditing.findings import MOST, Findings, Tampering
from verifier.auditing.leaves import stored, streamed
from verifier.errors import StoredDataDamaged
from verifier.store import blobs
from verifier.store.blobs import PackedBlob
from verifier.store.schema import attestation, judgement, latest
from verifier.store.schema_log import log_batch

_SHARED: Final = tuple(
    column.name
    for column in attestation.c
    if column.name in latest.c and column.name not in {"attester_id", "sequence"}
)
_INDEX: Final = (log_batch.c.first_index + attestation.c.log_place).label("leaf")


@dataclass(frozen=True, slots=True)
class Gap:
    """Verdicts of an attester that are not there, though those around them are.

    Attributes:
        first: sequence of the first.
        last: of the last.
        after: index of the leaf of the verdict before them; -1 where there is none.
        before: of the one behind them; None where they are the newest.
        newest: the last of them is what `latest` shows.
    """

    attester_id: str
    first: int
    last: int
    after: int
    before: int | None
    newest: bool


def check_latest(
    connection: Connection, findings: Findings, step: Callable[[int], object] = lambda _: None
) -> None:
    """`latest` has to say what the newest attestation of its attester does."""
    joined = latest.outerjoin(
        attestation,
        and_(attestation.c.attester_id == latest.c.attester_id, attestation.c.sequence == latest.c.sequence),
    ).outerjoin(log_batch, log_batch.c.id == attestation.c.log_batch)
    columns = [stored(latest.c[name]) for name in _SHARED]
    columns += [stored(attestation.c[name]).label(f"a_{name}") for name in _SHARED]
    query = select(latest.c.attester_id, latest.c.sequence, attestation.c.attester_id, _INDEX, *columns)
    for attester_id, sequence, found, index, *values in streamed(connection, query.select_from(joined), step):
        if found is None:
            continue  # nothing was judged yet; or the verdict is gone, which `gaps` tells
        shown, said = values[: len(_SHARED)], values[len(_SHARED) :]
        if shown == said:
            continue
        differs = [
            f"{name} is {_text(one)}, the verdict says {_text(other)}"
            for name, one, other in zip(_SHARED, shown, said, strict=True)
            if one != other
        ]
        key = f"attester_id {attester_id}, sequence {sequence}"
        at = said[_SHARED.index("judged_at")]
        findings.add(Tampering("latest", key, "; ".join(differs), index, at if isinstance(at, int) else None))


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def gaps(connection: Connection, findings: Findings) -> list[Gap]:
    """Verdicts that are not there. `latest` that names an older one than the newest is a finding."""
    counted = (
        select(
            attestation.c.attester_id,
            func.count().label("rows"),
            func.min(attestation.c.sequence).label("low"),
            func.max(attestation.c.sequence).label("high"),
        )
        .group_by(attestation.c.attester_id)
        .subquery()
    )
    query = select(
        func.coalesce(latest.c.attester_id, counted.c.attester_id),
        latest.c.sequence,
        counted.c.rows,
        counted.c.low,
        counted.c.high,
    ).select_from(latest.join(counted, counted.c.attester_id == latest.c.attester_id, full=True))
    odd = query.where(
        (counted.c.high - counted.c.low + 1 != counted.c.rows)
        | (latest.c.sequence != func.coalesce(counted.c.high, 0))
        | latest.c.sequence.is_(None)
    )
    found: list[Gap] = []
    for attester_id, newest, _, _, high in connection.execute(odd.limit(MOST)).all():
        if newest is None or newest < (high or 0):
            key = f"attester_id {attester_id}, sequence {high}"
            says = "no verdict" if newest is None else f"verdict {newest}"
            problem = f"shows {says} where {high} is the newest"
            index = _index_of(connection, attester_id, high)
            findings.add(Tampering("latest", key, problem, index))
        found += _gaps_of(connection, attester_id, newest or 0)
    return found


def _gaps_of(connection: Connection, attester_id: str, newest: int) -> Iterator[Gap]:
    before: tuple[int, int] | None = None
    query = (
        select(attestation.c.sequence, _INDEX)
        .select_from(attestation.outerjoin(log_batch, log_batch.c.id == attestation.c.log_batch))
        .where(attestation.c.attester_id == attester_id)
        .order_by(attestation.c.sequence)
    )
    for sequence, index in streamed(connection, query):
        if before is not None and sequence > before[0] + 1:
            yield Gap(attester_id, before[0] + 1, sequence - 1, before[1], index, newest=False)
        before = sequence, -1 if index is None else index
    last, after = before or (0, -1)
    if newest > last:
        yield Gap(attester_id, last + 1 if before else newest, newest, after, None, newest=True)


def check_unlogged(connection: Connection, findings: Findings) -> None:
    """Verdicts that are in no log, as those from before it are, come before those of their attester that are in it."""
    logged = (
        select(attestation.c.attester_id, func.min(attestation.c.sequence).label("first"))
        .where(attestation.c.log_batch.is_not(None))
        .group_by(attestation.c.attester_id)
        .subquery()
    )
    query = (
        select(attestation.c.attester_id, attestation.c.sequence, attestation.c.judged_at)
        .join(logged, logged.c.attester_id == attestation.c.attester_id)
        .where(attestation.c.log_batch.is_(None), attestation.c.sequence > logged.c.first)
        .limit(MOST)
    )
    for attester_id, sequence, at in connection.execute(query):
        key = f"attester_id {attester_id}, sequence {sequence}"
        findings.add(
            Tampering("attestation", key, "is in no log, and comes after verdicts that are", None, at)
        )


def _index_of(connection: Connection, attester_id: str, sequence: int) -> int | None:
    query = (
        select(_INDEX)
        .select_from(attestation.outerjoin(log_batch, log_batch.c.id == attestation.c.log_batch))
        .where(attestation.c.attester_id == attester_id, attestation.c.sequence == sequence)
    )
    found: int | None = connection.execute(query).scalar()
    return found


def check_judgements(
    connection: Connection, findings: Findings, step: Callable[[int], object] = lambda _: None
) -> None:
    """What verdicts say has to hash to the digest that they name, which is in the log."""
    problems: dict[bytes, str] = {}
    query = select(*(stored(judgement.c[name]) for name in ("digest", "codec", "size", "content")))
    for row in streamed(connection, query, step):
        try:
            blobs.unpack(PackedBlob(*row))
        except (StoredDataDamaged, TypeError) as error:
            if len(problems) < MOST and isinstance(row[0], bytes):
                problems[row[0]] = (
                    "no longer matches its digest" if isinstance(error, TypeError) else str(error)
                )
    missing = (
        select(attestation.c.judgement)
        .outerjoin(judgement, judgement.c.digest == attestation.c.judgement)
        .where(judgement.c.digest.is_(None))
        .distinct()
        .limit(MOST)
    )
    problems |= {digest: "is missing" for (digest,) in connection.execute(missing) if digest not in problems}
    if problems:
        for one in _said_by(connection, problems):
            findings.add(one)


def _said_by(connection: Connection, problems: dict[bytes, str]) -> Iterator[Tampering]:
    """Each judgement with the first verdict that it is said by."""
    query = (
        select(
            attestation.c.judgement,
            attestation.c.attester_id,
            attestation.c.sequence,
            attestation.c.judged_at,
            _INDEX,
        )
        .select_from(attestation.outerjoin(log_batch, log_batch.c.id == attestation.c.log_batch))
        .where(attestation.c.judgement.in_(problems))
    )
    first: dict[bytes, Any] = {}
    counts = dict.fromkeys(problems, 0)
    for row in streamed(connection, query):
        counts[row.judgement] += 1
        known = first.get(row.judgement)
        if known is None or (row.leaf is not None and (known.leaf is None or row.leaf < known.leaf)):
            first[row.judgement] = row
    for digest, problem in problems.items():
        row = first.get(digest)
        key = f"digest {_text(digest)}"
        if row is None:
            yield Tampering("judgement", key, f"{problem}; no verdict says it")
            continue
        said = f"{problem}; said by {counts[digest]} verdicts, first by {row.attester_id}, sequence {row.sequence}"
        yield Tampering("judgement", key, said, row.leaf, row.judged_at)
