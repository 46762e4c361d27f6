"""Policies: immutable revisions, numbered as they come."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from verifier.errors import StoreUnavailable
from verifier.ports import PolicyRecord
from verifier.store import rows, statements
from verifier.store.backend import StorePart
from verifier.store.schema import policy

_ATTEMPTS: Final = 8


class Policies(StorePart):
    """The policy methods of the `Store` port."""

    async def add_policy(self, record: PolicyRecord) -> None:
        """Keep a revision; one that is kept already stays where it is in the order."""
        same_id = (policy.c.tenant == record.tenant, policy.c.id == record.id)
        position = select(func.coalesce(func.max(policy.c.position), 0) + 1).where(*same_id).scalar_subquery()
        new = (
            self._backend.insert(policy)
            .values({**rows.policy_values(record), "position": position})
            .on_conflict_do_nothing(index_elements=["tenant", "id", "revision"])
        )
        for _ in range(_ATTEMPTS):
            try:
                await self._change(new)
            except IntegrityError:
                # Another replica took the position meanwhile: count again.
                continue
            return
        raise StoreUnavailable(f"policy {record.id!r} is being changed from too many sides; try again")

    async def current_policy(self, tenant: str, policy_id: str) -> PolicyRecord | None:
        """The revision added last."""
        row = await self._first(statements.CURRENT_POLICY, {"tenant": tenant, "policy_id": policy_id})
        return None if row is None else rows.policy_record(row)

    async def list_policies(self, tenant: str) -> tuple[PolicyRecord, ...]:
        """Every revision: by id, the current one of each first."""
        query = (
            select(*rows.POLICY_COLUMNS)
            .where(policy.c.tenant == tenant)
            .order_by(policy.c.id, policy.c.position.desc())
        )
        return tuple(rows.policy_record(row) for row in await self._backend.rows(query))
