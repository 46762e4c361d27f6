"""Messages of assignments: which policies judge which attesters."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from verifier.policy.assignment import Assignment as Assigned
from verifier.policy.assignment import Resolution
from verifier.ports import AttesterRecord
from verifier.web.messages import Body, Policy, PolicyId
from verifier.web.wire_codec import rfc3339

ModeName = Literal["enforce", "warn", "observe"]
Revision = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Labels = Annotated[dict[str, str], Meta(max_length=64)]
PRIORITY: Final = 2**31 - 1


class PutAssignment(Body, frozen=True, kw_only=True):
    """A policy for every attester that has all labels of `selector`; an empty selector is everyone."""

    policy: PolicyId
    revision: Revision | None = None
    """Pinned to this revision; absent: whichever is current."""
    mode: ModeName
    """`enforce`: its findings are the verdict. `warn`: the worst they make of it is a warning. `observe`: they are
    only shown."""
    priority: Annotated[int, Meta(ge=-PRIORITY, le=PRIORITY)] = 0
    """Of several enforced assignments that match, the highest decides."""
    selector: Labels = field(default_factory=dict)


class Assignment(PutAssignment, frozen=True, kw_only=True):
    """An assignment as it holds; its id follows from policy, selector, and whether it is enforced."""

    id: str
    changed_at: str


class AssignmentsReply(Body, frozen=True, kw_only=True):
    """Every assignment of the tenant, the highest priority first."""

    assignments: list[Assignment]


class PolicyName(Body, frozen=True, kw_only=True):
    """A policy; without a revision, whichever is current."""

    id: str
    revision: str | None = None


class TriedPolicy(Body, frozen=True, kw_only=True):
    """A policy that is tried beside the one that decides."""

    id: str
    revision: str | None = None
    mode: Literal["warn", "observe"]
    assignment: str


class AttesterPolicies(Body, frozen=True, kw_only=True):
    """What judges an attester from its next attestation on, and why."""

    attester: str
    labels: dict[str, str]
    policy: PolicyName | None = None
    """The one that decides; absent: its verdicts are `none`."""
    origin: Literal["attester", "assignment", "default"] | None = None
    """Assigned to the attester itself, by its labels, or nothing else was."""
    assignment: str | None = None
    """By which assignment, if by one."""
    tried: list[TriedPolicy] = field(default_factory=list)


class PutLabels(Body, frozen=True, kw_only=True):
    """All labels of an attester; those it had and that are not here go."""

    labels: Labels


class NewPolicyQuery(Body, frozen=True, kw_only=True):
    """How to keep a revision."""

    current: bool = True
    """False: beside the current one; it judges only where an assignment names it. The first revision of an id is
    current anyway."""


class RevisionsReply(Body, frozen=True, kw_only=True):
    """Every revision of a policy, the current one first."""

    revisions: list[Policy]


def assignment_message(record: Assigned) -> Assignment:
    """An assignment as the API shows it."""
    return Assignment(
        id=record.id,
        policy=record.policy_id,
        revision=record.revision,
        mode=record.mode.value,
        priority=record.priority,
        selector=dict(record.selector),
        changed_at=rfc3339(record.changed_at),
    )


def resolution_message(attester: AttesterRecord, found: Resolution) -> AttesterPolicies:
    """What judges an attester, for people and for scripts."""
    return AttesterPolicies(
        attester=attester.id,
        labels=dict(attester.labels),
        policy=None
        if found.primary is None
        else PolicyName(id=found.primary.id, revision=found.primary.revision),
        origin=None if found.origin is None else found.origin.value,
        assignment=found.assignment_id,
        tried=[
            TriedPolicy(
                id=each.policy.id,
                revision=each.policy.revision,
                mode=each.mode.value,  # type: ignore[arg-type]  # never `enforce`
                assignment=each.assignment_id,
            )
            for each in found.staged
        ],
    )
