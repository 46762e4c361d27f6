"""A page of stale attesters, as PostgreSQL finds it without a look at the rows of all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, Select, func, select, union

from verifier.ports import FleetFilter, Lifecycle
from verifier.store import statements
from verifier.store.schema import latest

_WHERE: Final = FleetFilter(lifecycle=Lifecycle.STALE)


def alone(where: FleetFilter) -> bool:
    """Whether nothing else is asked for."""
    return replace(where, search=where.search or None) == _WHERE


def first(tenant: str, at: int, after: str | None, most: int) -> Select[str]:
    """The ids of the first `most` that are stale at `at` (microseconds) and come after one, in no order.

    Nearly every row was written since the last VACUUM, so that no index vouches for it. A condition on one column is
    decided by the entry of the index; one that is left to be filtered by, as two columns with OR between them are, is decided
    after the row was fetched: for all of the fleet, to find none. So there are two scans of the index, one for each of the
    reasons of `statements.holds_at`. The second goes no further than where the first has filled the page.
    """
    silent = _in_order(tenant, latest.c.valid_until < at, after, most).cte("silent")
    filled = select(silent.c.attester_id).order_by(silent.c.attester_id).offset(most - 1).limit(1)
    last = select(func.max(latest.c.attester_id)).where(latest.c.tenant == tenant)
    until = func.coalesce(filled.scalar_subquery(), last.scalar_subquery())
    ahead = _in_order(tenant, latest.c.judged_at > statements.latest_judged(at), after, most)
    ahead_too = ahead.where(latest.c.attester_id <= until).cte("ahead")
    both = union(select(silent.c.attester_id), select(ahead_too.c.attester_id)).subquery("stale")
    return select(both.c.attester_id)


def _in_order(tenant: str, condition: ColumnElement[bool], after: str | None, most: int) -> Select[str]:
    # Not a condition of the index: to compare text with each entry costs more than to look at those that are found.
    enrolled = latest.c.lifecycle.concat("") == Lifecycle.ENROLLED.value
    query = select(latest.c.attester_id).where(latest.c.tenant == tenant, condition, enrolled)
    if after is not None:
        query = query.where(latest.c.attester_id > after)
    return query.order_by(latest.c.attester_id).limit(most)
