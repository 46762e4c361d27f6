"""Messages of the API that agents never see: fleet, policies, tokens. The same rules as on the agent's wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from verifier.findings import Status
from verifier.ports import AttesterRecord, PolicyRecord, Scope, TokenRecord
from verifier.service.model import AttesterView
from verifier.web.wire_codec import (
    Identity,
    Verdict,
    identity_message,
    rfc3339,
    rfc3339_or_none,
    verdict_message,
)

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
PolicyId = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[A-Za-z0-9._-]+$")]
Revision = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 of a policy, hex."""
Cursor = Annotated[str, Meta(min_length=1, max_length=512)]
Label = Annotated[str, Meta(min_length=3, max_length=256, pattern="^[^=]+=.*$")]
Limit = Annotated[int, Meta(ge=1, le=500)]
Before = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""A sequence to page back from, as far as a database counts."""
ProfileName = Literal["ietf", "veraison", "tag:ietf.org,2026:rats/ear#03", "tag:github.com,2023:veraison/ear"]
"""Profile of an EAR."""
MinTier = Literal["affirming", "warning"]
"""The least that satisfies. `none` and `contraindicated` are none: everybody would satisfy them."""
ScopeName = Literal["join", "relying-party", "dashboard", "operator", "auditor", "admin"]


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of every message and query."""


class StatusReply(Body, frozen=True):
    """The fleet in numbers: attesters by what is known of them now."""

    counts: dict[str, int]
    """affirming, warning, contraindicated, none, stale, revoked, retired (replaced), enrolled (never attested)."""
    total: int


class AttestersQuery(Body, frozen=True):
    """Filter and page of a listing."""

    status: (
        Literal[
            "affirming",
            "warning",
            "contraindicated",
            "none",
            "enrolled",
            "stale",
            "revoked",
            "retired",
            "pending",
        ]
        | None
    ) = None
    """A tier of the current verdict, or a lifecycle."""
    label: Label | None = None
    """`key=value`."""
    search: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """Part of a hostname, SMBIOS UUID or id."""
    cursor: Cursor | None = None
    limit: Limit = 100


class Endorsement(Body, frozen=True):
    """How the EK is trusted."""

    method: str
    ek_sha256: str
    """SHA-256 of the EK's SubjectPublicKeyInfo, hex."""
    issuer: str | None = None
    profile: dict[str, Any] = {}


class InventoryOpinion(Body, frozen=True):
    """What the inventories say now of a machine: unproven, and judged by them alone, not by its evidence."""

    outcome: str
    """`match`, `ek-only`, `ek-of-another-machine`, `ek-on-several-machines`, `uuid-known-ek-unknown`, `ek-not-listed`,
    `unknown`, or `inventory-stale`."""
    explanation: str
    machine: str | None = None
    """Key of the machine it is taken to be."""
    others: list[str] = []
    """Keys of further machines concerned."""
    last_known: str | None = None
    """With `inventory-stale`: the outcome when the sources were last read."""
    stale_sources: list[str] = []


class Attester(Body, frozen=True):
    """One machine: who it is, how it is trusted, and its latest verdict."""

    id: str
    lifecycle: Literal["pending", "enrolled", "stale", "revoked", "retired"]
    identity: Identity
    smbios_uuids: list[str]
    labels: dict[str, str]
    endorsement: Endorsement
    ak_name: str
    enrolled_at: str
    revoked_at: str | None = None
    policy: str | None = None
    """Assigned policy; absent: the default."""
    replaces: list[str] = []
    """Attesters of the TPMs that this machine had before; their history stays with them."""
    replaced_by: str | None = None
    """Attester of the TPM that this machine has now."""
    inventory: InventoryOpinion | None = None
    """Absent where no inventory is configured."""
    verdict: Verdict | None = None


class AttesterSummary(Body, frozen=True):
    """One line of a listing."""

    id: str
    lifecycle: Literal["pending", "enrolled", "stale", "revoked", "retired"]
    status: Literal["affirming", "warning", "contraindicated", "none"]
    """What the latest verdict says now; none when there is none."""
    labels: dict[str, str]
    hostname: str | None = None
    smbios_uuid: str | None = None
    policy: str | None = None
    """Assigned policy; absent: the default."""
    sequence: int | None = None
    reasons: list[str] = []
    """Codes of the findings that did not pass."""
    judged_at: str | None = None
    rejudged_at: str | None = None
    """When the evidence of `judged_at` was judged again, by a later policy; absent where it was not."""
    valid_until: str | None = None


class AttestersReply(Body, frozen=True):
    """One page; `cursor` leads to the next and is absent on the last."""

    attesters: list[AttesterSummary]
    cursor: str | None = None


class VerdictQuery(Body, frozen=True):
    """For an EAR: a nonce of the relying party, echoed as `eat_nonce`; for whom it is (`aud`); its profile."""

    nonce: Annotated[str, Meta(min_length=8, max_length=88, pattern="^[A-Za-z0-9+/=_-]+$")] | None = None
    audience: Annotated[str, Meta(min_length=1, max_length=256, pattern="^[!-~]+$")] | None = None
    profile: ProfileName | None = None
    min_tier: MinTier | None = None
    """403 `tier-not-met` unless the verdict is current and of this tier or a better one: for gates."""
    wait: Annotated[int, Meta(ge=0, le=60)] = 0
    """Seconds to wait for another verdict than that of `If-None-Match` (or for a first one, or one that is enough)."""


class HistoryQuery(Body, frozen=True):
    """Page through verdicts, newest first."""

    before: Before | None = None
    """Only verdicts with a lower sequence."""
    limit: Limit = 50


class HistoryReply(Body, frozen=True):
    """Verdicts as they were judged; `before` leads to older ones and is absent at the end."""

    verdicts: list[Verdict]
    before: int | None = None


class NoQuery(Body, frozen=True):
    """A call without query parameters."""


class AssignPolicy(Body, frozen=True):
    """Which policy judges an attester from its next attestation on; null: the default."""

    policy: PolicyId | None


class Policy(Body, frozen=True):
    """One policy revision."""

    id: str
    revision: str
    """SHA-256 of the source, hex."""
    created_at: str
    source: str | None = None
    """The YAML as given; left out in listings."""


class PolicyQuery(Body, frozen=True):
    """Which revision of a policy."""

    revision: Revision | None = None
    """Absent: the current one."""


class PoliciesReply(Body, frozen=True):
    """The current revision of every policy."""

    policies: list[Policy]


class TokenRequest(Body, frozen=True):
    """Ask for a token. `join` stands alone; the others may be combined."""

    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=6)]
    label: Annotated[str, Meta(max_length=128)] = ""
    expires_in: Annotated[int, Meta(ge=1, le=10 * 365 * 86400)] | None = None
    """Seconds; absent: does not expire."""
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Join tokens only; absent: unlimited."""


class Token(Body, frozen=True):
    """A token without its secret."""

    id: str
    scopes: list[ScopeName]
    label: str
    created_at: str
    expires_at: str | None = None
    uses_left: int | None = None
    revoked_at: str | None = None


class TokenReply(Body, frozen=True):
    """A new token; `token` is its secret text, shown this once and stored nowhere."""

    token: str
    info: Token


class TokensReply(Body, frozen=True):
    """Every token of the tenant."""

    tokens: list[Token]


class Health(Body, frozen=True):
    """The process answers; `ready` that it can do its work."""

    status: Literal["ok", "ready"]


def split_label(label: str) -> tuple[str, str]:
    """Key and value of a `Label`."""
    key, _, value = label.partition("=")
    return key, value


def summary_message(view: AttesterView) -> AttesterSummary:
    """An attester as a line of a listing."""
    record, verdict = view.attester, view.verdict
    summary = AttesterSummary(
        id=record.id,
        lifecycle=view.lifecycle.value,
        status=view.tier.label,  # type: ignore[arg-type]  # the labels are these literals, kept by a test
        labels=dict(record.labels),
        hostname=record.identity.hostname,
        smbios_uuid=record.identity.smbios_uuid,
        policy=record.policy_id,
    )
    if verdict is None:
        return summary
    return msgspec.structs.replace(
        summary,
        sequence=verdict.record.sequence,
        reasons=sorted({str(f["code"]) for f in verdict.findings if f["status"] != Status.PASSED}),
        judged_at=rfc3339(verdict.record.judged_at),
        rejudged_at=rfc3339_or_none(verdict.record.rejudged_at),
        valid_until=rfc3339(verdict.record.valid_until),
    )


def attester_message(view: AttesterView, replaces: Sequence[str] = ()) -> Attester:
    """An attester as the API shows it."""
    record = view.attester
    return Attester(
        id=record.id,
        lifecycle=view.lifecycle.value,
        identity=identity_message(record.identity),
        smbios_uuids=sorted(record.smbios_uuids),
        labels=dict(record.labels),
        endorsement=_endorsement(record),
        ak_name=record.ak_name.hex(),
        enrolled_at=rfc3339(record.enrolled_at),
        revoked_at=None if record.revoked_at is None else rfc3339(record.revoked_at),
        policy=record.policy_id,
        replaces=list(replaces),
        replaced_by=record.replaced_by,
        verdict=None if view.verdict is None else verdict_message(view.verdict),
    )


def _endorsement(record: AttesterRecord) -> Endorsement:
    return Endorsement(
        method=record.endorsed_by,
        ek_sha256=record.ek_fingerprint.hex(),
        issuer=record.ek_issuer,
        profile=dict(record.ek_profile),
    )


def policy_message(record: PolicyRecord, *, with_source: bool) -> Policy:
    """A policy revision as the API shows it."""
    return Policy(
        id=record.id,
        revision=record.revision,
        created_at=rfc3339(record.created_at),
        source=record.source if with_source else None,
    )


def token_message(record: TokenRecord) -> Token:
    """A token as the API shows it: never its secret, nor the hash of it."""
    return Token(
        id=record.id,
        scopes=[scope.value for scope in Scope if scope in record.scopes],
        label=record.label,
        created_at=rfc3339(record.created_at),
        expires_at=None if record.expires_at is None else rfc3339(record.expires_at),
        uses_left=record.uses_left,
        revoked_at=None if record.revoked_at is None else rfc3339(record.revoked_at),
    )
