"""Messages of what relying parties ask about many attesters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from verifier.findings import Status
from verifier.ports_queries import MAX_BULK
from verifier.reasons import Tier
from verifier.service.model import StandingView
from verifier.service.queries import SLICE
from verifier.service.verdicts import satisfies
from verifier.web.messages import Body, Cursor, Id, Label, Limit, MinTier
from verifier.web.wire_codec import rfc3339, rfc3339_or_none

_TIERS: Final = {tier.label: tier for tier in Tier}


class VerdictsQuery(Body, frozen=True):
    """Whose verdicts; all that is given must hold."""

    label: Label | None = None
    """`key=value`."""
    ek: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """SHA-256 of the EK's SubjectPublicKeyInfo, hex."""
    uuid: Annotated[str, Meta(min_length=36, max_length=36)] | None = None
    """SMBIOS UUID, in either spelling. A guest's own word: several may have claimed it."""
    min_tier: MinTier | None = None
    """Only current verdicts of enrolled attesters of this tier or a better one."""
    cursor: Cursor | None = None
    limit: Limit = 100


class MinTierQuery(Body, frozen=True):
    """Say of each attester whether it is good enough."""

    min_tier: MinTier | None = None


class VerdictsRequest(Body, frozen=True):
    """Attesters to ask about."""

    ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_BULK)]


class VerdictLine(Body, frozen=True):
    """What is known of one attester now. Its findings in full: `GET /v1/attesters/{id}/verdict`."""

    attester_id: str
    status: Literal["affirming", "warning", "contraindicated", "none"]
    """Of its latest verdict as it stands now; none before the first."""
    lifecycle: Literal["pending", "enrolled", "stale", "revoked", "retired"]
    ek_sha256: str
    """SHA-256 of the EK's SubjectPublicKeyInfo, hex: which TPM it is."""
    satisfied: bool | None = None
    """Whether it is good enough; only where `min_tier` was asked for."""
    sequence: int | None = None
    """Absent, like all below, before its first verdict."""
    vector: dict[str, int] = msgspec.field(default_factory=dict)
    """AR4SI claim to value."""
    reasons: list[str] = msgspec.field(default_factory=list)
    """Codes of the findings that did not pass."""
    policy: str | None = None
    """Id of the policy that judged it."""
    judged_at: str | None = None
    """When its evidence came and was judged."""
    rejudged_at: str | None = None
    """When that evidence was judged again, by a later policy; absent where it was not."""
    valid_until: str | None = None
    replaced_by: str | None = None
    """Attester of the TPM that this machine has now; only of a retired one."""


class VerdictsReply(Body, frozen=True):
    """One page, by attester id; `cursor` leads to the next and is absent on the last."""

    verdicts: list[VerdictLine]
    cursor: str | None = None


class BulkReply(Body, frozen=True):
    """What is known of the attesters that were named, by id, and which of them nobody knows."""

    verdicts: list[VerdictLine]
    unknown: list[str] = msgspec.field(default_factory=list)
    """Not known, or another tenant's. They satisfy nothing."""


def least_of(name: str | None) -> Tier | None:
    """The tier that was asked for."""
    return None if name is None else _TIERS[name]


async def verdict_lines(views: Sequence[StandingView], least: Tier | None) -> list[VerdictLine]:
    """All of them, with turns for others on the event loop."""
    lines: list[VerdictLine] = []
    for view in views:
        lines.append(verdict_line(view, least))
        if len(lines) % SLICE == 0:
            await asyncio.sleep(0)
    return lines


def verdict_line(view: StandingView, least: Tier | None) -> VerdictLine:
    """An attester as a relying party sees it among others."""
    standing, verdict = view.standing, view.verdict
    line = VerdictLine(
        attester_id=standing.attester_id,
        status=view.tier.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
        lifecycle=view.lifecycle.value,
        ek_sha256=standing.ek_fingerprint.hex(),
        satisfied=None if least is None else satisfies(view.lifecycle, view.tier, least),
        replaced_by=standing.replaced_by,
    )
    if verdict is None:
        return line
    return msgspec.structs.replace(
        line,
        sequence=verdict.record.sequence,
        vector=dict(verdict.vector),
        reasons=sorted({str(f["code"]) for f in verdict.findings if f["status"] != Status.PASSED}),
        policy=verdict.record.policy_id,
        judged_at=rfc3339(verdict.record.judged_at),
        rejudged_at=rfc3339_or_none(verdict.record.rejudged_at),
        valid_until=rfc3339(verdict.record.valid_until),
    )
