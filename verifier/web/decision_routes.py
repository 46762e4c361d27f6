"""What operators decide: enrolments that wait, clones and rollbacks; and what was decided."""

from __future__ import annotations

from typing import Final

from verifier.ports_enrollment import EnrollmentStatus
from verifier.reasons import Reason
from verifier.service.approvals import Approval
from verifier.service.incidents import Resolution
from verifier.service.verdicts import view_attester
from verifier.web import decision_messages as d
from verifier.web.messages import Attester, attester_message
from verifier.web.routing import AUDITORS, OPERATORS, WATCHERS, Call, Reply, Route


async def enrollments(call: Call) -> Reply:
    """One page of enrolments."""
    query: d.EnrollmentsQuery = call.query
    page = await call.services.approvals.list(
        call.tenant, EnrollmentStatus(query.status), query.cursor, query.limit
    )
    return Reply(
        body=d.EnrollmentsReply(
            enrollments=[d.enrollment_message(view) for view in page.items], cursor=page.cursor
        )
    )


async def enrollment(call: Call) -> Reply:
    """One enrolment."""
    return Reply(body=d.enrollment_message(await call.services.approvals.get(call.tenant, _id(call))))


async def approve(call: Call) -> Reply:
    """Let a machine in."""
    body: d.ApproveEnrollment = call.body
    approval = Approval(
        reason=body.reason, replaces=body.replaces, as_new=body.as_new, overrule=body.overrule
    )
    view = await call.services.approvals.approve(call.tenant, _id(call), approval, call.caller.id)
    return Reply(body=d.enrollment_message(view))


async def refuse(call: Call) -> Reply:
    """Keep a machine out."""
    body: d.RefuseEnrollment = call.body
    view = await call.services.approvals.refuse(call.tenant, _id(call), body.reason, call.caller.id)
    return Reply(body=d.enrollment_message(view))


async def incidents(call: Call) -> Reply:
    """One page of open incidents."""
    query: d.IncidentsQuery = call.query
    page = await call.services.incidents.list(call.tenant, query.cursor, query.limit)
    return Reply(
        body=d.IncidentsReply(incidents=[d.incident_message(view) for view in page.items], cursor=page.cursor)
    )


async def incident(call: Call) -> Reply:
    """One open incident."""
    return Reply(body=d.incident_message(await call.services.incidents.get(call.tenant, _id(call))))


async def resolve(call: Call) -> Reply:
    """Settle an incident."""
    body: d.ResolveIncident = call.body
    resolution = Resolution(reason=body.reason, keep=body.keep, reenroll=body.reenroll)
    state = await call.services.incidents.resolve(call.tenant, _id(call), resolution, call.caller.id)
    return Reply(body=attester_message(view_attester(state, call.services.clock.now())))


async def audit(call: Call) -> Reply:
    """What people decided."""
    query: d.AuditQuery = call.query
    entries = await call.services.approvals.audit(call.tenant, query.subject, query.before, query.limit)
    more = entries[-1].sequence if len(entries) == query.limit else None
    return Reply(body=d.AuditReply(entries=[d.audit_message(entry) for entry in entries], before=more))


def _id(call: Call) -> str:
    return call.request.match_info["id"]


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/enrollments",
        access=WATCHERS,
        handler=enrollments,
        summary="Enrolments whose keys are proven and that a person decides, oldest first",
        query=d.EnrollmentsQuery,
        response=d.EnrollmentsReply,
    ),
    Route(
        method="GET",
        path="/v1/enrollments/{id}",
        access=WATCHERS,
        handler=enrollment,
        summary="One enrolment, with what speaks for and against it now",
        response=d.Enrollment,
    ),
    Route(
        method="POST",
        path="/v1/enrollments/{id}/approve",
        access=OPERATORS,
        handler=approve,
        summary="Let a machine in, with exactly the keys it has proven; once",
        request=d.ApproveEnrollment,
        response=d.Enrollment,
        reasons=(Reason.CONFLICT, Reason.ATTESTER_REVOKED, Reason.REENROLLMENT_REQUIRED),
    ),
    Route(
        method="POST",
        path="/v1/enrollments/{id}/refuse",
        access=OPERATORS,
        handler=refuse,
        summary="Keep a machine out; once",
        request=d.RefuseEnrollment,
        response=d.Enrollment,
        reasons=(Reason.CONFLICT,),
    ),
    Route(
        method="GET",
        path="/v1/incidents",
        access=WATCHERS,
        handler=incidents,
        summary="Clones and rollbacks nobody has resolved, with every guest concerned",
        query=d.IncidentsQuery,
        response=d.IncidentsReply,
    ),
    Route(
        method="GET",
        path="/v1/incidents/{id}",
        access=WATCHERS,
        handler=incident,
        summary="One open incident",
        response=d.OpenIncident,
    ),
    Route(
        method="POST",
        path="/v1/incidents/{id}/resolve",
        access=OPERATORS,
        handler=resolve,
        summary="Say which guest of an incident goes on, and which has to enrol anew; once",
        request=d.ResolveIncident,
        response=Attester,
        reasons=(Reason.CONFLICT,),
    ),
    Route(
        method="GET",
        path="/v1/audit",
        access=AUDITORS,
        handler=audit,
        summary="What people decided, newest first",
        query=d.AuditQuery,
        response=d.AuditReply,
    ),
)
