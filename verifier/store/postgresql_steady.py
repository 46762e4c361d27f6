"""What nearly every attestation writes, in one statement that is a transaction by itself.

A batch that first asks who is known waits for the server three times and more, and the worker with it, since the guests whose
turn is next are judged in one go. Here the rows say what they expect their attesters to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, column, literal_column, select, table
from sqlalchemy.dialects import postgresql

from verifier.store import recording, statements
from verifier.store.held import Held
from verifier.store.leaves import LogBatch
from verifier.store.log_batches import new_id
from verifier.store.postgresql_hot import MANY, STEADY, HotConnection, verdicts
from verifier.store.prepared import POSTGRESQL, Common, Together, places_for, prepared, several
from verifier.store.recording import Plan, PreparedRecording, Step
from verifier.store.schema import attester, latest, nonce
from verifier.store.statements import insert_all

_BASIS: Final = {f"basis{number}": stored for number, stored in enumerate(statements.BASIS)}
"""What each recording was judged by, sent with its rows."""
_common: Final = table("common", *map(column, ("attester_id", "tenant", "sequence", *_BASIS)))
_AS_JUDGED: Final = (
    select(latest.c.attester_id)
    .select_from(statements.WITH_BASIS.join(_common, latest.c.attester_id == _common.c.attester_id))
    .where(
        latest.c.tenant == _common.c.tenant,
        latest.c.sequence == _common.c.sequence - literal_column("1", BigInteger),
        *(stored.is_not_distinct_from(_common.c[name]) for name, stored in _BASIS.items()),
    )
    .order_by(latest.c.attester_id)
    .with_for_update(key_share=True, of=(latest, attester))
)
_STATEMENT: Final = Together(
    (several(insert_all(postgresql.insert, nonce)), MANY[Step.BLOBS]),
    MANY[Step.LOG_BATCHES],
    Common(
        MANY[Step.ATTESTATIONS],
        MANY[Step.LATEST],
        {name: stored.type.compile(POSTGRESQL) for name, stored in _BASIS.items()},
    ),
    prepared(_AS_JUDGED, POSTGRESQL).text,
)


async def write_steady(
    connection: HotConnection, batch: Sequence[PreparedRecording], held: Held
) -> Plan | None:
    """Store a batch of recordings; None: some attester is not what it was judged by, or more is to be written. Nothing is stored then.

    Args:
        connection: not in a transaction.
        batch: at most `postgresql_hot.MOST`.
        held: what needs no statement.

    Raises:
        asyncpg.UniqueViolationError: of a nonce that was spent before, too; nothing is stored.
    """
    plan = recording.plan_steady(batch, held, LogBatch(new_id()))
    planned = {} if plan is None else dict(plan.rows())
    if plan is None or planned.keys() != set(STEADY):
        return None
    common = [(*row, item.basis or ()) for row, item in zip(verdicts(plan), batch, strict=True)]
    nonces = sorted((item.nonce for item in batch), key=lambda one: one["hash"])
    places = places_for(len(batch))
    values = _STATEMENT.values((nonces, planned[Step.BLOBS]), planned[Step.LOG_BATCHES], common, places)
    done = await connection.execute(_STATEMENT.text(places), *values)
    return plan if done == f"INSERT 0 {len(batch)}" else None
