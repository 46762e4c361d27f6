"""The policy part of a store, in memory."""

from __future__ import annotations

from verifier.policy.assignment import Assignment
from verifier.ports import PolicyRecord


class PolicyStore:
    """The policy part of a store, in memory; counts its reads."""

    def __init__(self) -> None:
        self.current: dict[tuple[str, str], PolicyRecord] = {}
        self.revisions: dict[tuple[str, str, str], PolicyRecord] = {}
        self.assignments: dict[tuple[str, str], Assignment] = {}
        self.reads = 0

    async def add_policy(self, policy: PolicyRecord, audit=None, *, current: bool = True) -> None:
        self.revisions[policy.tenant, policy.id, policy.revision] = policy
        if current or (policy.tenant, policy.id) not in self.current:
            self.current[policy.tenant, policy.id] = policy

    async def policy_revision(self, tenant: str, policy_id: str, revision: str) -> PolicyRecord | None:
        return self.revisions.get((tenant, policy_id, revision))

    async def list_assignments(self, tenant: str) -> tuple[Assignment, ...]:
        self.reads += 1
        return tuple(each for (owner, _), each in self.assignments.items() if owner == tenant)

    async def put_assignment(self, tenant: str, record: Assignment, audit, *, replacing=()) -> None:
        for each in replacing:
            self.assignments.pop((tenant, each), None)
        self.assignments[tenant, record.id] = record

    async def remove_assignment(self, tenant: str, assignment_id: str, audit) -> bool:
        return self.assignments.pop((tenant, assignment_id), None) is not None

    async def current_policy(self, tenant: str, policy_id: str) -> PolicyRecord | None:
        self.reads += 1
        return self.current.get((tenant, policy_id))

    async def policy_revisions(self, tenant: str, policy_id: str) -> tuple[PolicyRecord, ...]:
        return tuple(each for key, each in self.revisions.items() if key[:2] == (tenant, policy_id))

    async def assign_policy(
        self, tenant: str, attester_id: str, policy_id: str | None, audit: object = None
    ) -> bool:
        return attester_id == "att-a"
