"""What an import would change: which anchors and revocation lists come, go and stay. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from verifier.crypto.anchors import AnchorCollection, Rejected, TrustAnchors
from verifier.crypto.certificate import Certificate
from verifier.errors import RefusedError
from verifier.ports_trust import AnchorAssignment, AnchorPurpose
from verifier.reasons import Reason
from verifier.service.anchor_sets import AnchorSet

NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
FINGERPRINT: Final = re.compile(r"^[0-9a-f]{16,64}$")


_MAX_SOURCE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSet:
    """One set as it is trusted now. `assignment` None: the settings name it, and only they can change it."""

    name: str
    digest: bytes
    purposes: frozenset[AnchorPurpose]
    content: AnchorSet
    assignment: AnchorAssignment | None
    source: str


class ImportMode(enum.StrEnum):
    """What becomes of a set that has the name already."""

    CREATE = "create"
    """There must be none; one with the same content is no obstacle."""
    ADD = "add"
    """It keeps what it has; made where there is none."""
    REPLACE = "replace"
    """It is exchanged; made where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """Where anchors shall go. `purposes` None: those of the set that is there, else endorsement keys."""

    name: str
    purposes: frozenset[AnchorPurpose] | None = None
    mode: ImportMode = ImportMode.CREATE
    source: str
    """The files they come from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What an import does, or would do.

    `rejected` looked like an anchor or a list and cannot be used; `ignored` is something else.
    """

    name: str
    purposes: frozenset[AnchorPurpose]
    content: AnchorSet
    source: str
    replaced: bytes | None
    """Digest of the set that had this name."""
    added: tuple[Certificate, ...]
    dropped: tuple[Certificate, ...]
    kept: tuple[Certificate, ...]
    crls_added: int
    crls_dropped: int
    rejected: tuple[Rejected, ...]
    ignored: tuple[str, ...]


def plan_import(
    request: ImportRequest,
    found: AnchorCollection,
    before: TrustedSet | None,
) -> ImportPlan:
    """Hold what was found against the set of that name; None where there is none.

    Raises:
        RefusedError: `anchors-refused`: a name that cannot be one, no purpose, nothing usable; `conflict`: the
            name is taken by another set and the mode does not say what to do with it.
    """
    check_name(request.name)
    old = AnchorSet() if before is None else before.content
    purposes = request.purposes
    if purposes is None:
        purposes = frozenset({AnchorPurpose.EK}) if before is None else before.purposes
    if not purposes:
        raise RefusedError(Reason.ANCHORS_REFUSED, "say what the anchors may vouch for: ek, ak or device")
    new = AnchorSet(found.anchors, found.crls)
    if not new:
        raise RefusedError(Reason.ANCHORS_REFUSED, f"nothing to trust: {_why_nothing(found)}")
    if request.mode is ImportMode.ADD:
        new = AnchorSet(old.anchors | new.anchors, tuple(dict.fromkeys((*old.crls, *new.crls))))
    elif request.mode is ImportMode.CREATE and before is not None and new.encode()[0] != before.digest:
        raise RefusedError(
            Reason.CONFLICT,
            f"there is a set {request.name!r} already, with {len(old.anchors)} anchors;"
            " choose another name, or `add` to it, or `replace` it",
        )
    return ImportPlan(
        name=request.name,
        purposes=purposes,
        content=new,
        source=_source(request, before),
        replaced=None if before is None else before.digest,
        added=_without(new.anchors, old.anchors),
        dropped=_without(old.anchors, new.anchors),
        kept=tuple(anchor for anchor in new.anchors if anchor in old.anchors),
        crls_added=len(set(new.crls) - set(old.crls)),
        crls_dropped=len(set(old.crls) - set(new.crls)),
        rejected=found.rejected,
        ignored=found.ignored,
    )


def _source(request: ImportRequest, before: TrustedSet | None) -> str:
    if request.mode is not ImportMode.ADD or before is None:
        return request.source[:_MAX_SOURCE]
    several = dict.fromkeys((*before.source.split(", "), *request.source.split(", ")))
    return ", ".join(several)[-_MAX_SOURCE:]


def _without(these: TrustAnchors, others: TrustAnchors) -> tuple[Certificate, ...]:
    return tuple(anchor for anchor in these if anchor not in others)


def _why_nothing(found: AnchorCollection) -> str:
    problems = [f"{one.source}: {one.problem}" for one in found.rejected[:3]]
    return "; ".join(problems) or "neither CA certificates nor revocation lists are in there"


def check_name(name: str) -> None:
    """Raises `RefusedError` for what cannot name a set."""
    if not NAME.match(name) or FINGERPRINT.match(name.lower()):
        raise RefusedError(
            Reason.ANCHORS_REFUSED,
            f"{name!r} cannot name a set: up to 64 letters, digits, dots, dashes and underscores, no fingerprint",
        )
