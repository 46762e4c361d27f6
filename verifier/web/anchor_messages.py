"""Messages about trust anchors. The command line shows the same documents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from verifier.crypto.certificate import Certificate
from verifier.crypto.profile import key_text
from verifier.crypto.revocation import RevocationList, parse_crl
from verifier.service.anchor_import import ImportPlan, TrustedSet
from verifier.service.expiry import threshold
from verifier.service.trust import Removed
from verifier.web.messages import Body
from verifier.web.wire_codec import rfc3339

PurposeName = Literal["ek", "ak", "device"]
SetName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class TrustAnchor(Body, frozen=True):
    """A CA certificate that is trusted."""

    sha256: str
    """Of the certificate, hex: its name in every call."""
    subject: str
    issuer: str
    key: str
    not_before: str
    not_after: str
    alarm_days: int | None = None
    """It ends within that many days (90, 30 or 7); 0: it has ended. Absent: later."""


class RevocationListInfo(Body, frozen=True):
    """A revocation list that is honoured."""

    sha256: str
    issuer: str
    revoked: int
    """Certificates in it."""
    this_update: str
    overdue: bool
    """A newer one was due before now."""
    next_update: str | None = None
    unusable: str | None = None
    """Why it is not used; absent where it is."""


class AnchorSetSummary(Body, frozen=True):
    """One managed set, or what the settings name (`settings:ek` and so on), which only they can change."""

    name: str
    purposes: list[PurposeName]
    """What its anchors may vouch for: endorsement keys, attestation keys, device identities."""
    digest: str
    """SHA-256 of the set, hex."""
    anchors: int
    crls: int
    alarms: int
    """Anchors that end within 90 days or have ended, and lists that are overdue."""
    source: str
    next_expiry: str | None = None
    """When the first anchor that still holds ends."""
    assigned_at: str | None = None
    assigned_by: str | None = None


class AnchorSetsReply(Body, frozen=True):
    """Everything that is trusted."""

    sets: list[AnchorSetSummary]


class AnchorSetReply(Body, frozen=True):
    """One set with its certificates and revocation lists."""

    set: AnchorSetSummary
    anchors: list[TrustAnchor]
    crls: list[RevocationListInfo]


class AnchorImportQuery(Body, frozen=True):
    """Where the anchors of the body go."""

    set: SetName
    purposes: Annotated[str, Meta(pattern="^(ek|ak|device)(,(ek|ak|device))*$")] | None = None
    """Separated by commas; absent: those of the set of this name, or `ek`."""
    mode: Literal["create", "add", "replace"] = "create"
    """What becomes of a set that has the name already."""
    dry_run: bool = False
    """Only say what would change."""


class RejectedFile(Body, frozen=True):
    """Something that looked like an anchor or a list and cannot be used."""

    source: str
    problem: str
    subject: str | None = None


class AnchorImportReply(Body, frozen=True):
    """What the import changed, or would change."""

    set: str
    purposes: list[PurposeName]
    digest: str
    dry_run: bool
    added: list[TrustAnchor]
    dropped: list[TrustAnchor]
    kept: int
    crls_added: int
    crls_dropped: int
    rejected: list[RejectedFile]
    ignored: list[str]
    """Files that hold neither certificates nor revocation lists."""
    replaced: str | None = None
    """Digest of the set that had this name."""


class RemovedAnchor(Body, frozen=True):
    """A set that is trusted no longer, or, with `sha256`, one anchor of it."""

    set: str
    digest: str
    """Of the set before."""
    sha256: str | None = None


class AnchorsRemovedReply(Body, frozen=True):
    """What is trusted no longer. Machines that were enrolled under it stay enrolled until they are revoked."""

    removed: list[RemovedAnchor]


def anchor_message(anchor: Certificate, now: datetime) -> TrustAnchor:
    """One anchor."""
    return TrustAnchor(
        sha256=anchor.fingerprint.hex(),
        subject=anchor.subject_text,
        issuer=anchor.issuer_text,
        key="" if anchor.key is None else key_text(anchor.key),
        not_before=rfc3339(anchor.not_before),
        not_after=rfc3339(anchor.not_after),
        alarm_days=threshold(anchor.not_after - now),
    )


def crl_message(crl: RevocationList, now: datetime) -> RevocationListInfo:
    """One revocation list."""
    return RevocationListInfo(
        sha256=crl.sha256.hex(),
        issuer=crl.issuer_text,
        revoked=len(crl.serials),
        this_update=rfc3339(crl.this_update),
        next_update=None if crl.next_update is None else rfc3339(crl.next_update),
        overdue=crl.overdue(now),
        unusable=crl.unusable,
    )


def set_summary(one: TrustedSet, now: datetime) -> AnchorSetSummary:
    """One set in a line."""
    lists = [parse_crl(crl) for crl in one.content.crls]
    anchors = tuple(one.content.anchors)
    ending = sum(threshold(anchor.not_after - now) is not None for anchor in anchors)
    holding = [anchor.not_after for anchor in anchors if anchor.not_after >= now]
    assignment = one.assignment
    return AnchorSetSummary(
        name=one.name,
        purposes=sorted(purpose.value for purpose in one.purposes),
        digest=one.digest.hex(),
        anchors=len(anchors),
        crls=len(lists),
        alarms=ending + sum(crl.overdue(now) for crl in lists),
        source=one.source,
        next_expiry=rfc3339(min(holding)) if holding else None,
        assigned_at=None if assignment is None else rfc3339(assignment.assigned_at),
        assigned_by=None if assignment is None else assignment.assigned_by,
    )


def set_message(one: TrustedSet, now: datetime) -> AnchorSetReply:
    """One set, whole; what ends first comes first."""
    return AnchorSetReply(
        set=set_summary(one, now),
        anchors=[
            anchor_message(anchor, now) for anchor in sorted(one.content.anchors, key=lambda a: a.not_after)
        ],
        crls=[crl_message(parse_crl(crl), now) for crl in one.content.crls],
    )


def import_message(plan: ImportPlan, now: datetime, *, dry_run: bool) -> AnchorImportReply:
    """What an import did, or would do."""
    return AnchorImportReply(
        set=plan.name,
        purposes=sorted(purpose.value for purpose in plan.purposes),
        digest=plan.content.encode()[0].hex(),
        dry_run=dry_run,
        added=[anchor_message(anchor, now) for anchor in plan.added],
        dropped=[anchor_message(anchor, now) for anchor in plan.dropped],
        kept=len(plan.kept),
        crls_added=plan.crls_added,
        crls_dropped=plan.crls_dropped,
        rejected=[
            RejectedFile(source=one.source, problem=one.problem, subject=one.subject or None)
            for one in plan.rejected
        ],
        ignored=list(plan.ignored),
        replaced=None if plan.replaced is None else plan.replaced.hex(),
    )


def removed_message(removed: tuple[Removed, ...]) -> AnchorsRemovedReply:
    """What is trusted no longer."""
    return AnchorsRemovedReply(
        removed=[
            RemovedAnchor(set=one.set_name, digest=one.digest.hex(), sha256=one.sha256) for one in removed
        ]
    )
