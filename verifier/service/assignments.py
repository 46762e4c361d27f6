"""Which policies judge an attester: assigned to it, to its labels, or to everyone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from verifier.appraisal.staged import PolicySet, StagedPolicy
from verifier.errors import EvidenceError, NotFoundError
from verifier.policy.assignment import (
    MAX_SELECTOR,
    Assignment,
    Mode,
    PolicyRef,
    Resolution,
    StagedRef,
    check_labels,
    resolve,
)
from verifier.policy.model import Policy
from verifier.ports import AttesterRecord, Clock, Store
from verifier.reasons import Reason
from verifier.service.policies import PolicyService
from verifier.service.recorder import Recorder
from verifier.service.together import Together

_LIFE: Final = timedelta(seconds=2)
_TENANTS: Final = 1024
_SETS: Final = 256
_RESOLVED: Final = 4096
_ID_BYTES: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignCommand:
    """Assign a policy to every attester with these labels; `revision` None follows the current one."""

    policy_id: str
    revision: str | None
    mode: Mode
    priority: int
    selector: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """The assignments of a tenant as they were read, and what they came to for attesters so far."""

    read_at: datetime
    assignments: tuple[Assignment, ...]
    resolved: dict[tuple[str | None, tuple[tuple[str, str], ...]], Resolution]
    """By the attester's own policy and its labels, all that it depends on."""


class AssignmentService:
    """Assignments as they are stored, read again once another replica tells of a change, or after 2 s."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        policies: PolicyService,
        clock: Clock,
        default_policy: str | None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._policies = policies
        self._clock = clock
        self._default = default_policy
        self._changes = 0
        self._reading: Together[tuple[str, int], _Known] = Together()
        self._sets: dict[int, PolicySet] = {}
        """By the identity of their one policy, which each of them holds."""
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def list(self, tenant: str) -> tuple[Assignment, ...]:
        """All of a tenant, the highest priority first."""
        return await self._store.list_assignments(tenant)

    async def put(self, tenant: str, command: AssignCommand, actor: str) -> Assignment:
        """Assign, or change what was assigned.

        There is one enforced and one tried (`warn` or `observe`) assignment of a policy to a selector: putting
        another revision, mode or priority changes it. Where the other of the two is of the same revision, it goes:
        a revision is either enforced or tried.

        Raises:
            NotFoundError: no such policy or revision; nothing was changed.
            EvidenceError: a label no selector can name, or too many assignments.
        """
        if len(command.selector) > MAX_SELECTOR:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST,
                f"a selector has at most {MAX_SELECTOR} labels",
                structure="selector",
            )
        check_labels(command.selector)
        await self._policies.exists(tenant, PolicyRef(command.policy_id, command.revision))
        made = Assignment(
            id=assignment_id(command.policy_id, command.selector, enforced=command.mode is Mode.ENFORCE),
            policy_id=command.policy_id,
            revision=command.revision,
            mode=command.mode,
            priority=command.priority,
            selector=dict(sorted(command.selector.items())),
            changed_at=self._clock.now(),
        )
        twin = assignment_id(command.policy_id, command.selector, enforced=command.mode is not Mode.ENFORCE)
        replacing = [
            each.id for each in await self.list(tenant) if each.id == twin and each.policy == made.policy
        ]
        await self._recorder.assignment_put(tenant, made, replacing, actor)
        self.forget(tenant)
        return made

    async def remove(self, tenant: str, assignment_id: str, actor: str) -> None:
        """Take an assignment back; raises `NotFoundError`."""
        found = next((each for each in await self.list(tenant) if each.id == assignment_id), None)
        now = self._clock.now()
        if found is None or not await self._recorder.assignment_removed(tenant, found, actor, now):
            raise NotFoundError("assignment", assignment_id)
        self.forget(tenant)

    async def label(self, tenant: str, attester_id: str, labels: Mapping[str, str], actor: str) -> None:
        """Give an attester exactly these labels; they choose its policies from its next attestation on.

        Raises:
            NotFoundError: no such attester.
            EvidenceError: a label no selector could name, or too many of them.
        """
        check_labels(labels)
        if not await self._recorder.labelled(tenant, attester_id, labels, actor, self._clock.now()):
            raise NotFoundError("attester", attester_id)

    async def resolution(self, attester: AttesterRecord) -> Resolution:
        """Which policies judge this attester now, and why."""
        known = self._fresh(attester.tenant) or await self._read_again(attester.tenant)
        asked = attester.policy_id, tuple(attester.labels.items())
        found = known.resolved.get(asked)
        if found is None:
            found = resolve(attester.labels, attester.policy_id, known.assignments, self._default)
            if len(known.resolved) < _RESOLVED:
                known.resolved[asked] = found
        return found

    async def for_attester(self, attester: AttesterRecord) -> PolicySet:
        """The policies themselves. Without one that decides, the verdict is `none`.

        Raises:
            StoredDataDamaged: a stored revision cannot be read, be it only tried. That is our fault and never a
                verdict.
        """
        found = await self.resolution(attester)
        primary = None
        if found.primary is not None:
            primary = await self._policies.load(attester.tenant, found.primary)
        if not found.staged:
            return self._alone(primary)
        tried: dict[tuple[str, str], StagedPolicy] = {}
        for each in found.staged:
            staged = await self._staged(attester.tenant, each)
            if staged is None or (primary is not None and _name(staged.policy) == _name(primary)):
                continue
            before = tried.get(_name(staged.policy))
            if before is None or before.mode is Mode.OBSERVE:
                tried[_name(staged.policy)] = staged
        return PolicySet(primary=primary, staged=tuple(tried.values()))

    def forget(self, tenant: str) -> None:
        """Look again what is assigned: another replica's change counts at once."""
        self._changes += 1
        self._known.pop(tenant, None)

    def forget_all(self) -> None:
        """The same, of every tenant."""
        self._changes += 1
        self._known.clear()

    def _alone(self, primary: Policy | None) -> PolicySet:
        """The set of this one policy, the same one every time: what it asks for is worked out once."""
        known = self._sets.get(id(primary))
        if known is None or known.primary is not primary:
            if len(self._sets) >= _SETS:
                self._sets.clear()
            known = self._sets[id(primary)] = PolicySet(primary=primary)
        return known

    async def _staged(self, tenant: str, each: StagedRef) -> StagedPolicy | None:
        policy = await self._policies.load(tenant, each.policy)
        return None if policy is None else StagedPolicy(policy=policy, mode=each.mode)

    def _fresh(self, tenant: str) -> _Known | None:
        """What was read lately enough."""
        known = self._known.get(tenant)
        return (
            known if known is not None and timedelta(0) <= self._clock.now() - known.read_at < _LIFE else None
        )

    async def _read_again(self, tenant: str) -> _Known:
        now, known = self._clock.now(), self._known.get(tenant)
        return await self._reading.read((tenant, self._changes), lambda: self._read(tenant, known, now))

    async def _read(self, tenant: str, known: _Known | None, now: datetime) -> _Known:
        changes = self._changes
        assignments = await self._store.list_assignments(tenant)
        same = known is not None and known.assignments == assignments
        read = replace(known, read_at=now) if known is not None and same else _Known(now, assignments, {})
        if changes != self._changes:
            return read  # changed while they were read: not to be kept
        self._known[tenant] = read
        self._known.move_to_end(tenant)
        if len(self._known) > _TENANTS:
            self._known.popitem(last=False)
        return read


def assignment_id(policy_id: str, selector: Mapping[str, str], *, enforced: bool) -> str:
    """Follows from what the assignment is about, so that whoever puts the same again changes it."""
    about = json.dumps([policy_id, sorted(selector.items()), enforced]).encode()
    digest = hashlib.sha256(about).digest()[:_ID_BYTES]
    return f"asg-{base64.b32encode(digest).decode().lower()}"


def _name(policy: Policy) -> tuple[str, str]:
    return policy.id, policy.revision
