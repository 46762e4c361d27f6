"""What relying parties ask about many attesters at once, always within one tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from verifier.appraisal.smbios import uuid_spellings
from verifier.errors import EvidenceError
from verifier.ports import Clock, Page
from verifier.ports_queries import QueryStore, Standing, StandingFilter
from verifier.reasons import Reason, Tier
from verifier.service.model import StandingView
from verifier.service.verdicts import lifecycle_at, tier_of, view

SLICE: Final = 32
"""Attesters looked at before others get their turn on the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """What is known of the attesters that were named, each once, and which of the names are nobody's."""

    found: tuple[StandingView, ...]
    unknown: tuple[str, ...]
    """Nobody's in this tenant, in the order of the question."""


class QueryService:
    """Reads of the latest verdicts."""

    def __init__(self, store: QueryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list(
        self, tenant: str, where: StandingFilter, cursor: str | None, limit: int
    ) -> Page[StandingView]:
        """One page of verdicts as they stand now, by attester id."""
        now = self._clock.now()
        page = await self._store.standings(tenant, where, now=now, cursor=cursor, limit=limit)
        return Page(items=await _views(page.items, now), cursor=page.cursor)

    async def bulk(self, tenant: str, attester_ids: Sequence[str]) -> Bulk:
        """The verdicts of these attesters as they stand now; another tenant's attester does not exist."""
        asked = tuple(dict.fromkeys(attester_ids))
        now = self._clock.now()
        found = await self._store.standings_of(tenant, asked)
        known = {each.attester_id for each in found}
        return Bulk(
            found=await _views(found, now),
            unknown=tuple(each for each in asked if each not in known),
        )


async def _views(standings: Iterable[Standing], now: datetime) -> tuple[StandingView, ...]:
    found: list[StandingView] = []
    for standing in standings:
        found.append(view_standing(standing, now))
        if len(found) % SLICE == 0:
            await asyncio.sleep(0)
    return tuple(found)


def standing_filter(
    *, label: tuple[str, str] | None, ek: bytes | None, uuid: str | None, least: Tier | None
) -> StandingFilter:
    """What to look for.

    Args:
        label: key and value.
        ek: SHA-256 of the EK's SubjectPublicKeyInfo.
        uuid: SMBIOS UUID in either spelling.
        least: only current verdicts of this tier or a better one.

    Raises:
        EvidenceError: the UUID is none, or one that names no machine.
    """
    spellings = None
    if uuid is not None:
        spellings = tuple(sorted(uuid_spellings(uuid)))
        if not spellings:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, f"{uuid!r} is no UUID that names a machine", structure="uuid"
            )
    return StandingFilter(label=label, ek_fingerprint=ek, smbios_uuids=spellings, least=least)


def view_standing(standing: Standing, now: datetime) -> StandingView:
    """One attester and its latest verdict at `now`."""
    latest = standing.latest
    verdict = None if latest is None else view(standing, latest, now)
    return StandingView(
        standing=standing,
        lifecycle=lifecycle_at(standing, latest, now),
        tier=tier_of(standing, verdict),
        verdict=verdict,
    )
