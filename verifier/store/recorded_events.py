"""Which events a recording makes: a changed tier, an incident that was opened. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from verifier.appraisal.lineage import IncidentKind
from verifier.findings import Status
from verifier.ports_events import EventKind, NewEvent
from verifier.reasons import Tier
from verifier.store import event_log, values
from verifier.store.rows import Values

_MOST_REASONS: Final = 32


def reasons(findings: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Codes of the checks that did not pass, each once, in the order of the findings."""
    found = (str(one.get("code")) for one in findings if one.get("status") != Status.PASSED)
    return tuple(dict.fromkeys(found))[:_MOST_REASONS]


def changed_tier(
    verdict: Values, sequence: int, why: tuple[str, ...], previous: int | None, labels: str
) -> list[Values]:
    """The row of `verdict.changed`, if the tier is another than before.

    Args:
        verdict: columns of the attestation.
        sequence: of the attestation.
        why: codes of its findings.
        previous: the tier before; None where there was no verdict.
        labels: of the attester, as stored.
    """
    tier = verdict["tier"]
    if tier == previous:
        return []
    data: dict[str, object] = {
        "sequence": sequence,
        "status": Tier(tier).label,
        "previous": None if previous is None else Tier(previous).label,
        "reasons": list(why),
        "policy": verdict["policy_id"],
        "policy_revision": verdict["policy_revision"],
        "valid_until": values.moment(verdict["valid_until"]).isoformat().replace("+00:00", "Z"),
    }
    if verdict["rejudged_at"] is not None:
        data["rejudged"] = True
    return [_row(verdict, EventKind.VERDICT_CHANGED, data, labels, tier)]


def opened_incident(
    verdict: Values, sequence: int, lineage: Mapping[str, Any], previous: str | None, labels: str
) -> list[Values]:
    """The row of `incident.opened`, if the line of states now has an incident of another kind than before."""
    kind = lineage["incident"]
    if kind is None or kind == previous:
        return []
    data = {"sequence": sequence, "kind": IncidentKind(kind).value}
    return [_row(verdict, EventKind.INCIDENT_OPENED, data, labels, None)]


def _row(
    verdict: Values, kind: EventKind, data: Mapping[str, object], labels: str, tier: int | None
) -> Values:
    attester_id = str(verdict["attester_id"])
    new = NewEvent(
        tenant=str(verdict["tenant"]),
        kind=kind,
        subject=attester_id,
        at=values.moment(verdict["rejudged_at"] or verdict["judged_at"]),
        attester_id=attester_id,
        data=data,
    )
    return event_log.row(new, labels=labels, tier=tier)
