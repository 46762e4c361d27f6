"""Whether the certificates that vouched for enrolled machines still hold: an anchor was removed, a list came in, a date went by.

Enrolment decides once. What changes afterwards is found here and told to people, who revoke the machine or bring back
the anchor; no machine is cut off by this alone, as a mistake in an import would cut off all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.device_keys import KeyKind
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
    """Looks at every machine whose EK or AK a certificate vouches for."""

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
        not kept. Import them as anchors, or have the machine enrol again. Of certificates of AKs nothing is kept but
        their anchor and when their path ends: a revocation is not found.
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
    anchors = {
        purpose: frozenset(anchor.fingerprint.hex() for anchor in trusted.anchors(purpose))
        for purpose in AnchorPurpose
    }
    found = []
    for record in records:
        if record.lifecycle not in _STANDING:
            continue
        if record.ek_certificate is None:
            problem = _problem_of_ak(record, anchors, now)
        else:
            problem = _problem_of_ek(record.ek_certificate, record, trusted, anchors[AnchorPurpose.EK], now)
        if problem is not None:
            reason, detail = problem
            found.append(
                LostEndorsement(
                    attester_id=record.id, hostname=record.identity.hostname, reason=reason, detail=detail
                )
            )
    return found


def _problem_of_ek(
    certificate: bytes,
    record: AttesterRecord,
    trusted: TrustedAnchors,
    anchors: frozenset[str],
    now: datetime,
) -> tuple[Reason, str] | None:
    try:
        validate_ek(
            certificate,
            anchors=trusted.anchors(AnchorPurpose.EK),
            crls=trusted.crls,
            ek_public=None,
            now=now,
        )
    except EvidenceError as error:
        untrusted = error.reason is Reason.EK_CERTIFICATE_UNTRUSTED
        if untrusted and record.ek_profile.get("anchor_sha256") in anchors:
            return None  # the anchor is there; what is missing are intermediates, which only the machine has
        return error.reason, error.detail
    return None


def _problem_of_ak(
    record: AttesterRecord, anchors: Mapping[AnchorPurpose, frozenset[str]], now: datetime
) -> tuple[Reason, str] | None:
    """By what enrolment kept of the certificate of the AK; None too where none vouched for it."""
    ak = record.ek_profile.get("ak")
    if not isinstance(ak, Mapping):
        return None
    purpose = AnchorPurpose.AK if ak.get("kind") == KeyKind.AK.value else AnchorPurpose.DEVICE
    if ak.get("anchor_sha256") not in anchors[purpose]:
        return Reason.EK_CERTIFICATE_UNTRUSTED, "the anchor above its AK's certificate is trusted no more"
    ends = ak.get("expires_at")
    if isinstance(ends, str) and datetime.fromisoformat(ends) < now:
        return Reason.EK_CERTIFICATE_EXPIRED, f"its AK's certificate, or a CA above it, expired at {ends}"
    return None
