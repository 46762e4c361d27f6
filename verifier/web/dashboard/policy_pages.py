"""Pages about policies: what judges whom, and what another policy would make of the fleet."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from verifier.errors import EvidenceError, NotFoundError, PolicyError
from verifier.policy.assignment import parse_selector
from verifier.ports import PolicyRecord
from verifier.reasons import Reason
from verifier.service.dry_run import Selection
from verifier.web.dashboard.pages import Page, PageCall
from verifier.web.dashboard.preview import SHOWN, Preview, preview
from verifier.web.problems import status_of
from verifier.web.routing import OPERATORS, WATCHERS

_REVISIONS: Final = 50
_MAX_FORM: Final = 1024 * 1024
"""A policy of the largest size, percent-encoded."""
_ASSIGNED: Final = "assigned"
_ALL: Final = "all"


async def policies(call: PageCall) -> web.StreamResponse:
    """What judges."""
    return call.render(
        "policies.html",
        policies=await call.services.policies.list(call.tenant),
        assignments=await call.services.assignments.list(call.tenant),
    )


async def policy(call: PageCall) -> web.StreamResponse:
    """One policy as it was written, and its revisions."""
    revisions = await call.services.policies.revisions(call.tenant, call.request.match_info["id"])
    shown = _revision(revisions, call.request.query.get("revision", ""))
    return call.render(
        "policy.html",
        policy=shown,
        current=revisions[0],
        revisions=revisions[:_REVISIONS],
        total=len(revisions),
        rejudging=await call.services.rejudgings.find(call.tenant, revisions[0].id),
    )


async def preview_form(call: PageCall) -> web.StreamResponse:
    """A policy to try: a stored revision, to be changed at will."""
    revisions = await call.services.policies.revisions(call.tenant, call.request.match_info["id"])
    shown = _revision(revisions, call.request.query.get("revision", ""))
    return _page(call, revisions, {"source": shown.source, "whose": _ASSIGNED, "label": ""})


async def preview_result(call: PageCall) -> web.StreamResponse:
    """What it would change. Nothing is stored or changed by asking."""
    policy_id = call.request.match_info["id"]
    revisions = await call.services.policies.revisions(call.tenant, policy_id)
    # Browsers send lines of a text area with CR LF, which would make another revision of the same text.
    source = call.form.get("source", "").replace("\r\n", "\n")
    chosen = {
        "source": source,
        "whose": call.form.get("whose", _ASSIGNED),
        "label": call.form.get("label", "").strip(),
    }
    try:
        selection = _selection(policy_id, chosen["whose"], chosen["label"])
        found = await preview(
            call.services.dry_runs, call.tenant, policy_id, source, selection, call.form.get("cursor") or None
        )
    except (PolicyError, EvidenceError) as error:
        return _page(call, revisions, chosen, problem=error, status=status_of(error.reason))
    return _page(call, revisions, chosen, found=found)


def _revision(revisions: tuple[PolicyRecord, ...], wanted: str) -> PolicyRecord:
    """That one; the current one where none is named."""
    if not wanted:
        return revisions[0]
    found = next((one for one in revisions if one.revision == wanted), None)
    if found is None:
        raise NotFoundError("revision of policy", f"{revisions[0].id}@{wanted[:64]}")
    return found


def _selection(policy_id: str, whose: str, label: str) -> Selection:
    pairs = list(parse_selector([label]).items())
    if len(pairs) > 1:
        raise EvidenceError(Reason.MALFORMED_REQUEST, "one label can be asked for", structure="label")
    if whose not in (_ASSIGNED, _ALL):
        raise EvidenceError(Reason.MALFORMED_REQUEST, "choose whose verdicts to try it on", structure="form")
    return Selection(label=pairs[0] if pairs else None, assigned=policy_id if whose == _ASSIGNED else None)


def _page(
    call: PageCall,
    revisions: tuple[PolicyRecord, ...],
    chosen: dict[str, str],
    *,
    found: Preview | None = None,
    problem: EvidenceError | None = None,
    status: int = 200,
) -> web.Response:
    return call.render(
        "preview.html",
        status=status,
        current=revisions[0],
        revisions=revisions[:_REVISIONS],
        chosen=chosen,
        found=found,
        problem=problem,
        shown=SHOWN,
    )


PAGES: Final = (
    Page(method="GET", path="/dashboard/policies", handler=policies, scopes=WATCHERS),
    Page(method="GET", path="/dashboard/policies/{id}", handler=policy, scopes=WATCHERS),
    Page(method="GET", path="/dashboard/policies/{id}/preview", handler=preview_form, scopes=OPERATORS),
    Page(
        method="POST",
        path="/dashboard/policies/{id}/preview",
        handler=preview_result,
        scopes=OPERATORS,
        max_form=_MAX_FORM,
    ),
)
