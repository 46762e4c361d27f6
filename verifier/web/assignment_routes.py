"""Assignments over the API: which policies judge which attesters, decided by labels and tried before they count."""

from __future__ import annotations

from typing import Final

from verifier.policy.assignment import Mode
from verifier.reasons import Reason
from verifier.service.assignments import AssignCommand
from verifier.web import assignment_messages as m
from verifier.web.messages import Attester, attester_message, policy_message
from verifier.web.routing import OPERATORS, WATCHERS, Call, Reply, Route


async def assignments(call: Call) -> Reply:
    """All of them."""
    found = await call.services.assignments.list(call.tenant)
    return Reply(body=m.AssignmentsReply(assignments=[m.assignment_message(each) for each in found]))


async def put_assignment(call: Call) -> Reply:
    """Assign, or change what was assigned."""
    body: m.PutAssignment = call.body
    command = AssignCommand(
        policy_id=body.policy,
        revision=body.revision,
        mode=Mode(body.mode),
        priority=body.priority,
        selector=body.selector,
    )
    made = await call.services.assignments.put(call.tenant, command, call.caller.id)
    return Reply(body=m.assignment_message(made))


async def remove_assignment(call: Call) -> Reply:
    """Take one back."""
    await call.services.assignments.remove(call.tenant, call.request.match_info["id"], call.caller.id)
    return Reply(status=204, body=None)


async def attester_policies(call: Call) -> Reply:
    """What judges one attester."""
    view = await call.services.fleet.attester(call.tenant, call.request.match_info["id"])
    found = await call.services.assignments.resolution(view.attester)
    return Reply(body=m.resolution_message(view.attester, found))


async def put_labels(call: Call) -> Reply:
    """Label an attester."""
    attester_id = call.request.match_info["id"]
    await call.services.assignments.label(call.tenant, attester_id, call.body.labels, call.caller.id)
    return Reply(body=attester_message(await call.services.fleet.attester(call.tenant, attester_id)))


async def revisions(call: Call) -> Reply:
    """Every revision of a policy."""
    found = await call.services.policies.revisions(call.tenant, call.request.match_info["id"])
    return Reply(body=m.RevisionsReply(revisions=[policy_message(each, with_source=False) for each in found]))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/assignments",
        access=WATCHERS,
        handler=assignments,
        summary="Which policies are assigned to which labels, the highest priority first",
        response=m.AssignmentsReply,
        conditional=True,
    ),
    Route(
        method="PUT",
        path="/v1/assignments",
        access=OPERATORS,
        handler=put_assignment,
        summary="Assign a policy to labels, or change its revision, mode or priority there",
        request=m.PutAssignment,
        response=m.Assignment,
        reasons=(Reason.MALFORMED_REQUEST, Reason.NOT_FOUND),
    ),
    Route(
        method="DELETE",
        path="/v1/assignments/{id}",
        access=OPERATORS,
        handler=remove_assignment,
        summary="Take an assignment back",
        response=None,
        status=204,
    ),
    Route(
        method="GET",
        path="/v1/attesters/{id}/policies",
        access=WATCHERS,
        handler=attester_policies,
        summary="Which policies judge this attester, and why",
        response=m.AttesterPolicies,
    ),
    Route(
        method="PUT",
        path="/v1/attesters/{id}/labels",
        access=OPERATORS,
        handler=put_labels,
        summary="Replace the labels of this attester, which choose its policies",
        request=m.PutLabels,
        response=Attester,
        reasons=(Reason.MALFORMED_REQUEST,),
    ),
    Route(
        method="GET",
        path="/v1/policies/{id}/revisions",
        access=WATCHERS,
        handler=revisions,
        summary="Every revision of one policy, the current one first",
        response=m.RevisionsReply,
    ),
)
