"""Challenges: a nonce for an attester, what it shall quote, and what is held already."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from msgspec import Struct

from verifier.appraisal.lineage import Lineage
from verifier.appraisal.staged import PolicySet
from verifier.errors import NotFoundError, RefusedError, StoredDataDamaged
from verifier.ports import AttesterRecord, AttesterState, BootRecord, Clock, Lifecycle, Store
from verifier.ports_observe import about
from verifier.reasons import Reason
from verifier.service.assignments import AssignmentService
from verifier.service.ima_record import wanted
from verifier.service.lineage import NO_RATCHETS, RatchetRules, line_of, mark_of_state
from verifier.service.model import ImaWanted, IssuedChallenge
from verifier.service.nonces import Nonces

_log: Final = structlog.get_logger("vtpm_attest.attesters")


class Held(Struct, frozen=True):
    """What the verifier holds of an attester, which it need not send again: logs by SHA-256, the IMA list up to a byte."""

    boot_log: bytes | None
    userspace_log: bytes | None
    ima: ImaWanted = ImaWanted()


HELD_NOTHING: Final = Held(None, None)


def held_of(boot: BootRecord | None) -> Held:
    """What was held after that boot's last attestation."""
    if boot is None:
        return HELD_NOTHING
    return Held(boot.boot_log_sha256, boot.userspace_log_sha256, wanted(boot))


async def heard_attester(store: Store, attester_id: str) -> AttesterState:
    """What is known of an attester before its evidence is judged, also where what its latest verdict says is damaged.

    Raises:
        NotFoundError, RefusedError: as `known_attester`.
        StoredDataDamaged: more than that is.
    """
    try:
        state = await store.attester_state(attester_id)
    except StoredDataDamaged as error:
        state = await store.attester_past(attester_id)
        effect = "its next evidence is judged all the same, and mends that"
        _log.error("verdict.damaged", attester=attester_id, problem=str(error), effect=effect)
    return known_attester(state, attester_id)


def known_attester(state: AttesterState | None, attester_id: str) -> AttesterState:
    """The state, if the attester exists and may be heard; raises `NotFoundError` or `RefusedError`."""
    if state is None:
        raise NotFoundError("attester", attester_id)
    about(state.attester.tenant, attester_id)
    if state.attester.lifecycle is Lifecycle.REVOKED:
        raise RefusedError(Reason.ATTESTER_REVOKED, f"attester {attester_id} was revoked")
    if state.attester.lifecycle is Lifecycle.RETIRED:
        raise RefusedError(
            Reason.IDENTITY_REPLACED, f"attester {attester_id} was replaced: this machine has another TPM now"
        )
    if state.lineage is not None and state.lineage.must_enroll:
        raise RefusedError(
            Reason.REENROLLMENT_REQUIRED, f"attester {attester_id} has to enrol again before it is heard"
        )
    return state


class ChallengeService:
    """Issue challenges. Nothing is written: any number of half-open ones cost no memory and no row."""

    def __init__(
        self,
        *,
        store: Store,
        policies: AssignmentService,
        nonces: Nonces,
        clock: Clock,
        nonce_lifetime: timedelta,
        ratchets: RatchetRules = NO_RATCHETS,
        reads_ima: Callable[[PolicySet], bool] = lambda _: False,
    ) -> None:
        self._reads_ima = reads_ima
        self._store = store
        self._policies = policies
        self._nonces = nonces
        self._clock = clock
        self._lifetime = nonce_lifetime
        self._ratchets = ratchets

    async def issue(self, attester_id: str) -> IssuedChallenge:
        """A challenge for an enrolled attester; raises `NotFoundError`, `RefusedError` (revoked)."""
        state = await heard_attester(self._store, attester_id)
        policies = await self._policies.for_attester(state.attester)
        held = held_of(state.boot)
        return self.make(state.attester, policies, held, timedelta(0), mark_of_state(state), line_of(state))

    def make(
        self,
        attester: AttesterRecord,
        policies: PolicySet,
        held: Held,
        due_in: timedelta,
        past: bytes,
        line: Lineage | None,
    ) -> IssuedChallenge:
        """A challenge that will be answered in `due_in`; its nonce lives that much longer.

        `past` is the mark of the attester's past when it is given out, `line` what that past is; None brings no value
        for the ratchet.
        """
        lifetime, now = self._lifetime + due_in, self._clock.now()
        nonce, expires_at = self._nonces.issue(attester.id, now, lifetime, past)
        chain = self._ratchets.chain(attester.id)
        return IssuedChallenge(
            nonce=nonce,
            expires_at=expires_at,
            requests=policies.asked,
            boot_log_sha256=held.boot_log,
            userspace_log_sha256=held.userspace_log,
            ima=held.ima if self._reads_ima(policies) else None,
            ratchet_index=None if chain is None else chain.index,
            ratchet=None if line is None else self._ratchets.handed(attester, line, nonce, now + due_in),
        )
