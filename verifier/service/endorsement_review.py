"""Whether the EK certificates of enrolled machines still hold: an anchor was removed, a list came in, a date went by.

Enrolment decides once. What changes afterwards is found here and told to people, who revoke the machine or bring back
the anchor; no machine is cut off by this alone, as a mistake in an import would cut off all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.ek import validate_ek
from verifier.errors import EvidenceError
from verifier.ports import AttesterRecord, Clock, FleetFilter, Lifecycle, Store
from verifier.ports_trust import AnchorPurpose, LostEndorsement
from verifier.reasons import Reason
from verifier.service.anchor_sets import TrustedAnchors
from verifier.service.recorder import Recorder
from verifier.service.trust import TrustService

_PAGE: Final = 200
_AT_LEAST_EVERY: Final = timedelta(days=1)
_STANDING: Final = frozenset({Lifecycle.ENROLLED, Lifecycle.STALE})


class EndorsementReview:
    """Looks at every machine whose EK a certificate vouches for."""

    def __init__(self, *, store: Store, trust: TrustService, recorder: Recorder, clock: Clock) -> None:
        self._store = store
        self._trust = trust
        self._recorder = recorder
        self._clock = clock
        self._last: dict[str, tuple[TrustedAnchors, datetime]] = {}
        self.lost: dict[str, tuple[LostEndorsement, ...]] = {}
        """What the last review of each tenant in this process found."""

    async def review(self, tenant: str) -> tuple[LostEndorsement, ...]:
        """Machines whose certificate would no longer be accepted, by attester id.

        Not found: a revocation or an end in a chain of which the machine itself brought the intermediates, which are
        not kept. Import them as anchors, or have the machine enrol again.
        """
        trusted = await self._trust.current(tenant)
        now = self._clock.now()
        lost: list[LostEndorsement] = []
        cursor: str | None = None
        while True:
            page = await self._store.list_attesters(
                tenant, FleetFilter(), now=now, cursor=cursor, limit=_PAGE
            )
            records = [state.attester for state in page.items]
            lost += await asyncio.to_thread(_lost, records, trusted, now)
            cursor = page.cursor
            if cursor is None:
                break
        self.lost[tenant] = tuple(lost)
        return self.lost[tenant]

    async def tell(self, tenant: str) -> None:
        """Review where trust has changed, or a day has passed; tell of each machine once, on whichever replica."""
        now = self._clock.now()
        trusted = await self._trust.current(tenant)
        last = self._last.get(tenant)
        if last is not None and last[0] is trusted and timedelta(0) <= now - last[1] < _AT_LEAST_EVERY:
            return
        for one in await self.review(tenant):
            await self._recorder.endorsement_lost(tenant, one, now)
        self._last[tenant] = (trusted, now)


def _lost(records: Sequence[AttesterRecord], trusted: TrustedAnchors, now: datetime) -> list[LostEndorsement]:
    anchors = {anchor.fingerprint.hex() for anchor in trusted.anchors(AnchorPurpose.EK)}
    found = []
    for record in records:
        if record.ek_certificate is None or record.lifecycle not in _STANDING:
            continue
        problem = _problem(record.ek_certificate, trusted, now)
        if problem is None:
            continue
        if (
            problem.reason is Reason.EK_CERTIFICATE_UNTRUSTED
            and record.ek_profile.get("anchor_sha256") in anchors
        ):
            continue  # the anchor is there; what is missing are intermediates, which only the machine has
        found.append(
            LostEndorsement(
                attester_id=record.id,
                hostname=record.identity.hostname,
                reason=problem.reason,
                detail=problem.detail,
            )
        )
    return found


def _problem(certificate: bytes, trusted: TrustedAnchors, now: datetime) -> EvidenceError | None:
    try:
        validate_ek(
            certificate,
            anchors=trusted.anchors(AnchorPurpose.EK),
            crls=trusted.crls,
            ek_public=None,
            now=now,
        )
    except EvidenceError as error:
        return error
    return None
