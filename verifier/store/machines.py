"""Who is known already: attesters by what an enrolment brings, and by whose place they took."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import bindparam, select

from verifier.ports import AttesterState, Lifecycle
from verifier.store import identities, statements
from verifier.store.attestations import Attestations
from verifier.store.schema import attester, attester_uuid, latest

_MOST: Final = 32
"""Attesters with one UUID that are looked at. More is no fleet, but somebody's game."""

# Made once: every enrolment asks both, and making a statement of so many columns costs more than running it.
_OF_EK: Final = statements.attester_states().where(
    attester.c.tenant == bindparam("tenant"), attester.c.ek_fingerprint == bindparam("ek")
)
_CLAIMED: Final = (
    select(attester_uuid.c.attester_id)
    .where(
        attester_uuid.c.tenant == bindparam("tenant"),
        attester_uuid.c.smbios_uuid.in_(bindparam("keys", expanding=True)),
    )
    .distinct()
    .cte("claimed")
    # First of all: on a database so new that it has no statistics, PostgreSQL went through the whole tenant instead.
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_OF_UUID: Final = (
    statements.attester_states(source=_CLAIMED.join(latest, latest.c.attester_id == _CLAIMED.c.attester_id))
    .order_by(latest.c.lifecycle != Lifecycle.ENROLLED.value, latest.c.attester_id)
    .limit(_MOST)
)


class Machines(Attestations):
    """The methods of the `Store` port that find attesters by key or UUID."""

    async def attester_of_ek(self, tenant: str, ek_fingerprint: bytes) -> AttesterState | None:
        """The attester with this EK."""
        row = await self._first(_OF_EK, {"tenant": tenant, "ek": ek_fingerprint})
        return None if row is None else self._state(row)

    async def attesters_of_uuid(self, tenant: str, spellings: Collection[str]) -> Sequence[AttesterState]:
        """Attesters that ever claimed one of these UUIDs, enrolled ones first."""
        keys = sorted({identities.uuid_key(spelling) for spelling in spellings})
        if not keys:
            return ()
        found = await self._backend.rows(_OF_UUID, {"tenant": tenant, "keys": keys})
        return tuple(map(self._state, found))

    async def predecessors_of(self, tenant: str, attester_id: str) -> Sequence[str]:
        """Ids of attesters whose place this one took, by id."""
        query = select(attester.c.id).where(
            attester.c.tenant == tenant, attester.c.replaced_by == attester_id
        )
        return tuple(row[0] for row in await self._backend.rows(query.order_by(attester.c.id).limit(_MOST)))
