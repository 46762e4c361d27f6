"""Enrolments that wait for a person, on each database: decided once, together with all that follows, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from msgspec import structs

from tests.contract.records import MINUTE, NOW, audit_entry, enrol, enrollment, recording, sha256, token
from verifier.appraisal.lineage import Incident, IncidentKind, Lineage
from verifier.errors import EvidenceError, StateMovedError
from verifier.ports import GuestIdentity, Lifecycle
from verifier.ports_enrollment import (
    AuditEntry,
    Decision,
    EnrollmentBounds,
    EnrollmentStatus,
    Filed,
)

DAY = 24 * 60 * MINUTE
VM = "4c4c4544-0042-3510-8052-b4c04f4b3132"


def decision(number: str, *, approved: bool = True, **changes) -> Decision:
    made = Decision(
        enrollment_id=number,
        approved=approved,
        at=NOW,
        keep_until=NOW + DAY,
        actor="tok-1",
        reason="ticket 7\x00",
        attester_id=f"att-{number}",
    )
    return dataclasses.replace(made, **changes)


async def pending(store, **changes):
    """An enrolment whose keys are proven."""
    record = enrollment(waits_for="enrollment-pending", source="192.0.2.1", **changes)
    await store.add_enrollment(record)
    waiting = await store.await_approval(record.id, "enrollment-pending", NOW, NOW + DAY)
    assert waiting is not None
    return waiting


async def test_what_waits_is_kept_as_it_came_and_lives_as_long_as_told(store):
    record = enrollment(waits_for="enrollment-pending", source="192.0.2.1")
    await store.add_enrollment(record)
    waiting = await store.await_approval(record.id, "identity-replaced", NOW + MINUTE, NOW + DAY)
    assert waiting == dataclasses.replace(
        record,
        status=EnrollmentStatus.PENDING,
        waits_for="identity-replaced",
        activated_at=NOW + MINUTE,
        expires_at=NOW + DAY,
    )
    assert await store.enrollment(record.id) == waiting
    await store.purge_expired(NOW + DAY)
    assert await store.enrollment(record.id) == waiting
    assert await store.purge_expired(NOW + DAY + MINUTE) == 1


async def test_what_waits_is_not_completed_without_a_decision(store):
    offered = enrollment(waits_for="enrollment-pending")
    await store.add_enrollment(offered)
    assert await store.complete_enrollment(offered.id, "att-1", NOW) is None
    assert await store.await_approval(offered.id, "enrollment-pending", NOW, NOW + DAY) is not None
    assert await store.complete_enrollment(offered.id, "att-1", NOW) is None
    assert await store.attester_state("att-1") is None


async def test_an_expired_challenge_does_not_become_pending(store):
    offered = enrollment()
    await store.add_enrollment(offered)
    assert await store.await_approval(offered.id, "enrollment-pending", offered.expires_at, NOW + DAY) is None


async def test_the_same_keys_are_pending_once_with_what_was_said_last(store):
    first = await pending(store)
    keys = {name: getattr(first, name) for name in ("ek_fingerprint", "ek_public", "ak_name", "ak_public")}
    second = enrollment(**keys, expected_proof=sha256(b"new"), identity=GuestIdentity(hostname="renamed"))
    await store.add_enrollment(second)
    waiting = await store.await_approval(second.id, "enrollment-pending", NOW + MINUTE, NOW + 2 * DAY)
    assert (waiting.id, waiting.created_at) == (first.id, first.created_at)
    assert (waiting.expected_proof, waiting.identity.hostname) == (sha256(b"new"), "renamed")
    assert waiting.expires_at == NOW + 2 * DAY
    assert await store.enrollment(second.id) is None
    other = await pending(
        store, **{**keys, "ak_name": b"\x00\x0b" + sha256(b"other"), "ak_public": b"\x00\x01o"}
    )
    found = await store.enrollments_of_ek("default", first.ek_fingerprint, NOW)
    assert {one.id for one in found} == {first.id, other.id}


async def test_challenges_that_nobody_answers_are_a_few_for_each_ek(store):
    waiting, other = await pending(store), enrollment()
    await store.add_enrollment(other)
    keys = {"ek_fingerprint": waiting.ek_fingerprint, "ek_public": waiting.ek_public}
    offers = [enrollment(**keys, created_at=NOW + number * MINUTE / 60) for number in range(30)]
    for offer in offers:
        await store.add_enrollment(offer)
    kept = [offer.id for offer in offers if await store.enrollment(offer.id) is not None]
    assert kept == [offer.id for offer in offers[-8:]]
    assert await store.enrollment(waiting.id) == waiting
    assert await store.enrollment(other.id) is not None
    assert await store.complete_enrollment(offers[-8].id, "att-1", NOW) is not None


async def test_many_proofs_of_the_same_keys_at_once_are_one_question(database):
    stores = [await database.open() for _ in range(2)]
    first = enrollment()
    keys = {name: getattr(first, name) for name in ("ek_fingerprint", "ek_public", "ak_name", "ak_public")}
    offers = [enrollment(**keys) for _ in range(8)]
    for offer in offers:
        await stores[0].add_enrollment(offer)
    await asyncio.gather(
        *(
            stores[number % 2].await_approval(offer.id, "enrollment-pending", NOW, NOW + DAY)
            for number, offer in enumerate(offers)
        )
    )
    page = await stores[0].list_enrollments(
        "default", EnrollmentStatus.PENDING, now=NOW, cursor=None, limit=10
    )
    assert len(page.items) == 1


async def test_an_approval_binds_the_keys_and_is_audited(store):
    waiting = await pending(store)
    decided = await store.decide_enrollment("default", decision(waiting.id))
    assert (decided.status, decided.attester_id) == (EnrollmentStatus.APPROVED, f"att-{waiting.id}")
    assert (decided.decided_at, decided.decided_by, decided.decision_reason) == (
        NOW,
        "tok-1",
        "ticket 7\ufffd",
    )
    assert decided.expires_at == NOW + DAY
    state = await store.attester_state(decided.attester_id)
    assert (state.attester.ek_fingerprint, state.attester.ak_name) == (
        waiting.ek_fingerprint,
        waiting.ak_name,
    )
    assert state.attester.lifecycle is Lifecycle.ENROLLED
    (entry,) = await store.list_audit("default", subject=waiting.id, before=None, limit=10)
    assert (entry.action, entry.actor, entry.reason) == ("enrollment.approved", "tok-1", "ticket 7\ufffd")
    assert entry.detail["attester"] == decided.attester_id
    assert entry.sequence > 0


async def test_a_refusal_binds_nothing_and_can_only_be_overruled_in_so_many_words(store):
    waiting = await pending(store)
    refused = await store.decide_enrollment("default", decision(waiting.id, approved=False))
    assert refused.status is EnrollmentStatus.REFUSED
    assert await store.attester_of_ek("default", waiting.ek_fingerprint) is None
    assert await store.decide_enrollment("default", decision(waiting.id)) is None
    assert (
        await store.decide_enrollment("default", decision(waiting.id, approved=False, overrule=True)) is None
    )
    overruled = await store.decide_enrollment("default", decision(waiting.id, overrule=True))
    assert overruled.status is EnrollmentStatus.APPROVED
    assert await store.decide_enrollment("default", decision(waiting.id, overrule=True)) is None
    actions = [one.action for one in await store.list_audit("default", subject=None, before=None, limit=10)]
    assert actions == ["enrollment.approved", "enrollment.refused"]


@pytest.mark.parametrize("case", ["unknown", "another tenant", "not proven", "expired"])
async def test_nothing_to_decide_changes_nothing(store, case):
    waiting = await pending(store)
    offered = enrollment()
    await store.add_enrollment(offered)
    tenant = "other" if case == "another tenant" else "default"
    number = {"unknown": "enr-none", "not proven": offered.id}.get(case, waiting.id)
    at = NOW + DAY if case == "expired" else NOW
    assert await store.decide_enrollment(tenant, decision(number, at=at)) is None
    assert await store.list_audit("default", subject=None, before=None, limit=10) == ()
    assert await store.attester_of_ek("default", waiting.ek_fingerprint) is None


async def test_of_many_decisions_from_several_replicas_one_counts(database):
    stores = [await database.open() for _ in range(3)]
    waiting = await pending(stores[0])
    answers = await asyncio.gather(
        *(
            store.decide_enrollment(
                "default", decision(waiting.id, approved=number % 2 == 0, attester_id=f"att-{number}")
            )
            for number, store in enumerate(stores * 6)
        )
    )
    assert sum(answer is not None for answer in answers) == 1
    assert len(await stores[1].list_audit("default", subject=None, before=None, limit=50)) == 1


async def test_bounds_count_what_waits_and_nothing_else(store):
    bounds = EnrollmentBounds(per_tenant=3, per_source=2)
    await store.add_enrollment(enrollment(source="192.0.2.1"))  # waits for nobody

    async def file(source, **changes):
        return await store.add_enrollment(
            enrollment(waits_for="enrollment-pending", source=source, **changes), bounds
        )

    assert await file("192.0.2.1", created_at=NOW - DAY, expires_at=NOW - MINUTE) is Filed.KEPT
    assert await file("192.0.2.1") is Filed.KEPT
    assert await file("192.0.2.1") is Filed.KEPT
    assert await file("192.0.2.1") is Filed.SOURCE_FULL
    assert await file("192.0.2.2") is Filed.KEPT
    assert await file("192.0.2.3") is Filed.TENANT_FULL
    assert await file("192.0.2.3", tenant="other") is Filed.KEPT


async def test_listings_are_by_age_in_pages_of_one_status(store):
    made = [await pending(store, created_at=NOW + number * MINUTE) for number in (2, 0, 0, 1)]
    await store.decide_enrollment("default", decision(made[3].id, approved=False))
    await pending(store, tenant="other")
    expected = sorted((one for one in made if one is not made[3]), key=lambda one: (one.created_at, one.id))
    seen, cursor = [], None
    for _ in range(3):
        page = await store.list_enrollments(
            "default", EnrollmentStatus.PENDING, now=NOW, cursor=cursor, limit=1
        )
        seen += [one.id for one in page.items]
        cursor = page.cursor
    assert seen == [one.id for one in expected]
    assert cursor is None
    first = await store.list_enrollments("default", EnrollmentStatus.PENDING, now=NOW, cursor=None, limit=1)
    for tenant, status in (("default", EnrollmentStatus.REFUSED), ("other", EnrollmentStatus.PENDING)):
        with pytest.raises(EvidenceError, match="listing"):
            await store.list_enrollments(tenant, status, now=NOW, cursor=first.cursor, limit=1)
    late = await store.list_enrollments(
        "default", EnrollmentStatus.PENDING, now=NOW + DAY, cursor=None, limit=9
    )
    assert late.items == ()


# --- replaced


async def known_machine(store):
    old = await enrol(store, "att-old", identity=GuestIdentity(smbios_uuid=VM, hostname="web"))
    await store.set_labels("default", "att-old", {"tier": "web"}, audit_entry())
    await store.assign_policy("default", "att-old", "strict")
    await store.record(recording("att-old"))
    return old


async def test_a_replacement_retires_the_old_attester_with_its_keys_and_inherits(store):
    await known_machine(store)
    waiting = await pending(store, identity=GuestIdentity(smbios_uuid=VM))
    await store.decide_enrollment("default", decision(waiting.id, replaces="att-old", attester_id="att-new"))
    old, new = await store.attester_state("att-old"), await store.attester_state("att-new")
    assert (old.attester.lifecycle, old.attester.replaced_by) == (Lifecycle.RETIRED, "att-new")
    assert (new.attester.labels, new.attester.policy_id) == ({"tier": "web"}, "strict")
    assert new.latest is None
    assert new.boot is None
    assert len(await store.history("default", "att-old", before=None, limit=5)) == 1
    assert await store.predecessors_of("default", "att-new") == ("att-old",)
    assert await store.predecessors_of("other", "att-new") == ()
    found = await store.attesters_of_uuid("default", {VM})
    assert [one.attester.id for one in found] == ["att-new", "att-old"], "enrolled ones first"
    actions = [one.action for one in await store.list_audit("default", subject=None, before=None, limit=2)]
    assert actions == ["enrollment.approved", "identity.replaced"]


async def test_evidence_judged_before_the_replacement_is_not_stored_after_it(store):
    await known_machine(store)
    position = (await store.attester_state("att-old")).position
    waiting = await pending(store)
    await store.decide_enrollment("default", decision(waiting.id, replaces="att-old"))
    late = structs.replace(recording("att-old"), lineage=Lineage(), position=position)
    with pytest.raises(StateMovedError):
        await store.record(late)


async def test_nobody_is_replaced_twice_and_the_second_changes_nothing(database):
    stores = [await database.open() for _ in range(2)]
    await known_machine(stores[0])
    both = [await pending(stores[0]) for _ in range(2)]
    answers = await asyncio.gather(
        *(
            store.decide_enrollment("default", decision(one.id, replaces="att-old"))
            for store, one in zip(stores, both, strict=True)
        ),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["EnrollmentRecord", "StateMovedError"]
    lost = both[next(number for number, one in enumerate(answers) if isinstance(one, StateMovedError))]
    assert (await stores[0].enrollment(lost.id)).status is EnrollmentStatus.PENDING
    assert await stores[0].attester_of_ek("default", lost.ek_fingerprint) is None
    actions = [
        one.action for one in await stores[0].list_audit("default", subject=None, before=None, limit=9)
    ]
    assert actions.count("enrollment.approved") == actions.count("identity.replaced") == 1


async def test_an_agreed_replacement_needs_no_decision(store):
    await known_machine(store)
    agreed = enrollment(replaces="att-old")
    await store.add_enrollment(agreed)
    assert (await store.complete_enrollment(agreed.id, "att-new", NOW)).id == "att-new"
    assert (await store.attester_state("att-old")).attester.replaced_by == "att-new"
    entry, _ = await store.list_audit("default", subject="att-old", before=None, limit=9)
    assert (entry.actor, entry.detail["replaced_by"]) == ("inventory", "att-new")


async def test_a_retired_attester_comes_back_only_by_decision(store):
    old = await known_machine(store)
    waiting = await pending(store)
    await store.decide_enrollment("default", decision(waiting.id, replaces="att-old", attester_id="att-new"))
    keys = {"ek_fingerprint": old.ek_fingerprint, "ek_public": old.ek_public, "token_id": None}
    again = enrollment(**keys)
    await store.add_enrollment(again)
    with pytest.raises(StateMovedError):
        await store.complete_enrollment(again.id, "att-x", NOW)
    assert (await store.attester_state("att-old")).attester.ak_name == old.ak_name, "nothing was bound"

    back = await store.await_approval(again.id, "identity-replaced", NOW, NOW + DAY)
    await store.decide_enrollment("default", decision(back.id, replaces="att-new"))
    states = [(await store.attester_state(one)).attester for one in ("att-old", "att-new")]
    assert [one.lifecycle for one in states] == [Lifecycle.ENROLLED, Lifecycle.RETIRED]
    assert [one.replaced_by for one in states] == [None, "att-old"]


@pytest.mark.parametrize("case", ["revoked and replaced", "another tenant's", "nobody"])
async def test_whom_nobody_can_replace_nobody_replaces(store, case):
    await known_machine(store)
    await store.revoke_attester("default", "att-old", NOW)
    first, second = [await pending(store) for _ in range(2)]
    if case == "revoked and replaced":
        await store.decide_enrollment("default", decision(first.id, replaces="att-old"))
    elif case == "another tenant's":
        second = await pending(store, tenant="other")
    old = "att-none" if case == "nobody" else "att-old"
    with pytest.raises(StateMovedError):
        await store.decide_enrollment(second.tenant, decision(second.id, replaces=old))
    assert (await store.enrollment(second.id)).status is EnrollmentStatus.PENDING


async def test_a_revoked_predecessor_stays_revoked(store):
    await known_machine(store)
    await store.revoke_attester("default", "att-old", NOW)
    waiting = await pending(store)
    await store.decide_enrollment("default", decision(waiting.id, replaces="att-old", attester_id="att-new"))
    old = (await store.attester_state("att-old")).attester
    assert (old.lifecycle, old.replaced_by) == (Lifecycle.REVOKED, "att-new")


# --- the audit log


async def test_the_audit_log_goes_back_in_pages_of_one_tenant(store):
    for _ in range(5):
        waiting = await pending(store)
        await store.decide_enrollment("default", decision(waiting.id, approved=False))
    foreign = await pending(store, tenant="other")
    await store.decide_enrollment("other", decision(foreign.id, approved=False))
    seen, before = [], None
    for _ in range(3):
        page = await store.list_audit("default", subject=None, before=before, limit=2)
        seen += [one.sequence for one in page]
        before = page[-1].sequence
    assert len(seen) == 5
    assert seen == sorted(seen, reverse=True)


async def test_a_resolution_and_its_entry_are_stored_together_or_not(store):
    await enrol(store, "att-1", token_id=None)
    line = Lineage(incident=Incident(kind=IncidentKind.CLONE_PROVEN, since=NOW))
    entry = AuditEntry(
        tenant="default",
        at=NOW,
        actor="tok-1",
        action="incident.resolved",
        subject="inc-1",
        reason="",
        detail={},
    )
    position = (await store.attester_state("att-1")).position
    assert not await store.resolve_lineage("default", "att-1", position + 1, line, entry)
    assert not await store.resolve_lineage("other", "att-1", position, line, entry)
    assert await store.list_audit("default", subject="inc-1", before=None, limit=9) == ()
    assert await store.resolve_lineage("default", "att-1", position, line, entry)
    assert (await store.attester_state("att-1")).lineage == line
    (kept,) = await store.list_audit("default", subject="inc-1", before=None, limit=9)
    assert dataclasses.replace(kept, sequence=0) == entry


async def test_a_token_that_let_a_machine_in_clears_its_past_and_so_does_a_person(store):
    line = Lineage(must_enroll=True)
    for number, changes in enumerate(({"token_id": "tok-1"}, {"token_id": None})):
        await store.add_token(token(id=f"tok-{number}-{id(changes)}"))
        first = await enrol(store, f"att-{number}")
        position = (await store.attester_state(f"att-{number}")).position
        entry = AuditEntry(tenant="default", at=NOW, actor="", action="", subject="", reason="")
        await store.resolve_lineage("default", f"att-{number}", position, line, entry)
        keys = {"ek_fingerprint": first.ek_fingerprint, "ek_public": first.ek_public}
        if changes["token_id"] is None:
            waiting = await pending(store, **keys, **changes)
            await store.decide_enrollment("default", decision(waiting.id))
        else:
            await enrol(store, "att-unused", **keys, **changes)
        assert (await store.attester_state(f"att-{number}")).lineage.must_enroll is False


async def test_what_waits_for_a_person_is_counted_per_tenant(store):
    first, second = await pending(store), await pending(store)
    await store.decide_enrollment("default", decision(first.id))
    for number, kind in enumerate((None, IncidentKind.ROLLBACK, IncidentKind.ROLLBACK), start=1):
        await enrol(store, f"att-{number}")
        line = Lineage(incident=None if kind is None else Incident(kind=kind, since=NOW))
        await store.record(structs.replace(recording(f"att-{number}"), lineage=line))
    found = await store.open_counts("default", NOW)
    assert found.pending_enrollments == 1
    assert found.incidents == {kind.value: 2 * (kind is IncidentKind.ROLLBACK) for kind in IncidentKind}
    assert (await store.open_counts("default", second.expires_at)).pending_enrollments == 0
    nothing = await store.open_counts("other", NOW)
    assert (nothing.pending_enrollments, sum(nothing.incidents.values())) == (0, 0)
