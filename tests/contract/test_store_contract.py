"""What every Store must do, whatever database is below (verifier.ports.Store)."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs
from sqlalchemy import select

from tests.contract.records import (
    CLOCK,
    FINDINGS,
    MINUTE,
    NOW,
    audit_entry,
    enrol,
    enrollment,
    policy,
    recording,
    sha256,
    token,
)
from verifier.errors import EvidenceError, NotFoundError, StoreUnavailable
from verifier.ports import FleetFilter, GuestIdentity, Lifecycle, Scope
from verifier.ports_enrollment import EnrollmentBounds, Filed
from verifier.reasons import Reason, Tier
from verifier.store.fleet import MAX_LABEL, MAX_LABELS, MAX_PAGE
from verifier.store.schema import attestation_key, blob, judgement
from verifier.store.values import micros, moment
from verifier.tcg.attest import ClockInfo

OTHER = "other-tenant"


class TestTokens:
    async def test_a_token_is_found_by_its_hash_as_it_was_added(self, store):
        added = token(
            scopes=frozenset({Scope.OPERATOR, Scope.AUDITOR}), expires_at=None, uses_left=7, last_used_at=NOW
        )
        await store.add_token(added)
        assert await store.token_by_hash(added.secret_hash) == added
        assert await store.token_by_hash(sha256(b"guess")) is None

    async def test_each_tenant_lists_its_own_oldest_first(self, store):
        second, first = token(created_at=NOW + MINUTE), token()
        await store.add_token(second)
        await store.add_token(first)
        await store.add_token(token(tenant=OTHER))
        assert await store.list_tokens("default") == (first, second)

    async def test_tokens_of_sessions_go_once_they_are_long_over_and_no_others(self, store):
        over = {"expires_at": NOW - MINUTE}
        gone, kept = token(id="ses-1", **over), [token(**over), token(id="ses-2", expires_at=NOW)]
        kept += [token(id="ses-3", expires_at=None), token(id="sessile", **over)]
        for one in (gone, *kept):
            await store.add_token(one)
        assert await store.purge_sessions(NOW) == 1
        assert set(await store.list_tokens("default")) == set(kept)

    async def test_every_use_of_a_join_token_is_counted_down(self, store):
        added = token(uses_left=2)
        await store.add_token(added)
        later = NOW + MINUTE
        assert await spending(store, added, created_at=later) is Filed.KEPT
        assert await store.token_by_hash(added.secret_hash) == dataclasses.replace(
            added, uses_left=1, last_used_at=later
        )
        assert await spending(store, added) is Filed.KEPT
        assert await spending(store, added) is Filed.UNPAID
        record = await store.token_by_hash(added.secret_hash)
        assert record is not None
        assert record.uses_left == 0

    async def test_an_unlimited_join_token_stays_unlimited(self, store):
        added = token()
        await store.add_token(added)
        for _ in range(3):
            assert await spending(store, added) is Filed.KEPT
        record = await store.token_by_hash(added.secret_hash)
        assert record is not None
        assert (record.uses_left, record.last_used_at) == (None, NOW)

    async def test_of_a_token_that_is_not_good_no_use_is_taken_and_no_enrolment_kept(self, store):
        revoked, expired, foreign = token(uses_left=1), token(uses_left=1, expires_at=NOW), token(uses_left=1)
        foreign = dataclasses.replace(foreign, scopes=frozenset({Scope.ADMIN}))
        for added in (revoked, expired, foreign):
            await store.add_token(added)
        assert await store.revoke_token("default", revoked.id, NOW)
        for added in (revoked, expired, foreign, token()):
            offered = enrollment(token_id=added.id)
            assert await store.add_enrollment(offered, spends=True) is Filed.UNPAID
            assert await store.enrollment(offered.id) is None
        for added in (revoked, expired, foreign):
            record = await store.token_by_hash(added.secret_hash)
            assert record is not None
            assert (record.uses_left, record.last_used_at) == (1, None)

    async def test_an_enrolment_that_may_not_be_kept_takes_no_use(self, store):
        added = token(uses_left=1)
        await store.add_token(added)
        full = EnrollmentBounds(per_tenant=0, per_source=0)
        offered = enrollment(token_id=added.id, waits_for="enrollment-pending")
        assert await store.add_enrollment(offered, full, spends=True) is Filed.TENANT_FULL
        assert await spending(store, added) is Filed.KEPT

    async def test_of_many_who_spend_the_last_use_one_is_kept(self, database):
        one, two = await database.open(), await database.open()
        added = token(uses_left=1)
        await one.add_token(added)
        answers = await asyncio.gather(*(spending((one, two)[n % 2], added) for n in range(20)))
        assert Counter(answers) == {Filed.KEPT: 1, Filed.UNPAID: 19}

    async def test_what_a_use_was_spent_on_is_known_until_it_is_over(self, store):
        added, other = token(uses_left=1), token(uses_left=1)
        await store.add_token(added)
        offered = enrollment(token_id=added.id)
        keys = ("default", offered.ek_fingerprint, offered.ak_name)
        assert not await store.has_offer(*keys, added.id, NOW)
        await store.add_enrollment(offered, spends=True)
        assert await store.has_offer(*keys, added.id, NOW)
        assert not await store.has_offer(*keys, other.id, NOW)
        assert not await store.has_offer(OTHER, *keys[1:], added.id, NOW)
        assert not await store.has_offer(*keys[:2], b"another AK", added.id, NOW)
        assert not await store.has_offer("default", sha256(b"another EK"), keys[2], added.id, NOW)
        assert not await store.has_offer(*keys, added.id, offered.expires_at)
        assert await store.complete_enrollment(offered.id, "att-1", NOW) is not None
        assert not await store.has_offer(*keys, added.id, NOW)

    async def test_revoking_keeps_the_first_time_and_spares_other_tenants(self, store):
        added = token()
        await store.add_token(added)
        assert not await store.revoke_token(OTHER, added.id, NOW)
        assert not await store.revoke_token("default", "tok-unknown", NOW)
        assert await store.revoke_token("default", added.id, NOW)
        assert await store.revoke_token("default", added.id, NOW + MINUTE)
        record = await store.token_by_hash(added.secret_hash)
        assert record is not None
        assert record.revoked_at == NOW


async def spending(store, added, **changes) -> Filed:
    """A new enrolment with a use of this token."""
    return await store.add_enrollment(enrollment(token_id=added.id, **changes), spends=True)


class TestEnrolment:
    async def test_a_pending_enrolment_is_read_as_it_was_added(self, store):
        pending = enrollment(ek_certificate=None, ek_issuer=None, token_id="tok-1")
        await store.add_enrollment(pending)
        assert await store.enrollment(pending.id) == pending
        assert await store.enrollment("enr-unknown") is None

    async def test_completion_makes_the_attester_and_consumes_the_enrolment(self, store):
        pending = enrollment()
        await store.add_enrollment(pending)
        attester = await store.complete_enrollment(pending.id, "att-1", NOW)
        assert attester is not None
        assert (attester.id, attester.tenant, attester.lifecycle) == ("att-1", "default", Lifecycle.ENROLLED)
        for name in ("ek_fingerprint", "ek_public", "ek_certificate", "ek_issuer", "ek_profile", "endorsed_by",
                     "ak_name", "ak_public", "identity"):  # fmt: skip
            assert getattr(attester, name) == getattr(pending, name), name
        assert attester.smbios_uuids == {pending.identity.smbios_uuid}
        assert attester.enrolled_at == NOW
        assert await store.enrollment(pending.id) is None
        assert await store.complete_enrollment(pending.id, "att-2", NOW) is None
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester == attester
        assert state.boot is None
        assert state.latest is None
        assert await store.attester_state("att-2") is None

    async def test_of_many_who_complete_one_enrolment_one_succeeds(self, database):
        one, two = await database.open(), await database.open()
        pending = enrollment()
        await one.add_enrollment(pending)
        answers = await asyncio.gather(
            *((one, two)[n % 2].complete_enrollment(pending.id, f"att-{n}", NOW) for n in range(10))
        )
        made = [attester for attester in answers if attester is not None]
        assert len(made) == 1
        assert await one.attester_state(made[0].id) is not None

    async def test_the_same_ek_keeps_its_id_and_history_and_rebinds_the_ak(self, store):
        before = await enrol(store, "att-1")
        await store.record(recording("att-1"))
        moved = GuestIdentity(smbios_uuid="a-clone", hostname="elsewhere")
        after = await enrol(
            store, "att-2", ek_fingerprint=before.ek_fingerprint, identity=moved, ek_certificate=None
        )
        assert after.id == "att-1"
        assert after.ak_name != before.ak_name
        assert after.identity == moved
        assert after.smbios_uuids == {before.identity.smbios_uuid, "a-clone"}
        assert after.enrolled_at == before.enrolled_at
        assert after.ek_certificate == before.ek_certificate, "a certificate once seen is not forgotten"
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.latest is not None
        assert state.latest.sequence == 1
        assert await store.attester_state("att-2") is None

    async def test_one_ek_enrolled_from_many_sides_at_once_is_one_attester(self, database):
        one, two = await database.open(), await database.open()
        fingerprint = sha256(b"one tpm")
        pending = [enrollment(ek_fingerprint=fingerprint) for _ in range(8)]
        for record in pending:
            await one.add_enrollment(record)
        made = await asyncio.gather(
            *(
                (one, two)[n % 2].complete_enrollment(record.id, f"att-{n}", NOW)
                for n, record in enumerate(pending)
            )
        )
        assert len({attester.id for attester in made if attester is not None}) == 1
        assert None not in made
        state = await one.attester_state(made[0].id)
        assert state is not None
        assert state.attester.smbios_uuids == {record.identity.smbios_uuid for record in pending}

    async def test_the_same_ek_in_two_tenants_is_two_attesters(self, store):
        mine = await enrol(store, "att-1")
        theirs = await enrol(store, "att-2", tenant=OTHER, ek_fingerprint=mine.ek_fingerprint)
        assert theirs.id == "att-2"

    async def test_an_ak_that_comes_back_is_bound_again(self, store):
        first = await enrol(store, "att-1")
        await enrol(store, "att-1", ek_fingerprint=first.ek_fingerprint)
        again = await enrol(
            store, "x", ek_fingerprint=first.ek_fingerprint, ak_name=first.ak_name, ak_public=first.ak_public
        )
        assert again.ak_name == first.ak_name

    async def test_a_revoked_attester_stays_revoked_when_it_enrols_again(self, store):
        attester = await enrol(store, "att-1")
        await store.revoke_attester("default", "att-1", NOW)
        again = await enrol(store, "att-2", ek_fingerprint=attester.ek_fingerprint)
        assert (again.id, again.lifecycle, again.revoked_at) == ("att-1", Lifecycle.REVOKED, NOW)

    async def test_an_expired_enrolment_completes_nothing(self, store):
        pending = enrollment(expires_at=NOW)
        await store.add_enrollment(pending)
        assert await store.complete_enrollment(pending.id, "att-1", NOW) is None
        assert await store.attester_state("att-1") is None

    async def test_text_from_guests_may_hold_anything(self, store):
        said = GuestIdentity(hostname="nul\x00 % _ ' \u202e \U0001f4a5", smbios_uuid="x" * 1024, os="\x00")
        attester = await enrol(store, "att-1", identity=said, ek_issuer="CN=\x00")
        assert attester.identity == said
        assert attester.smbios_uuids == {"x" * 1024}
        found = await store.list_attesters(
            "default", FleetFilter(search="% _ '"), now=NOW, cursor=None, limit=10
        )
        assert [state.attester.id for state in found.items] == ["att-1"]

    async def test_purging_drops_what_has_expired_and_nothing_else(self, store):
        old, new = enrollment(expires_at=NOW - MINUTE), enrollment(expires_at=NOW)
        await store.add_enrollment(old)
        await store.add_enrollment(new)
        await enrol(store, "att-1")
        spent = recording("att-1", at=NOW - 6 * MINUTE)
        await store.record(spent)
        kept = recording("att-1")
        await store.record(kept)
        assert await store.purge_expired(NOW) == 2
        assert await store.enrollment(old.id) is None
        assert await store.enrollment(new.id) == new
        assert await store.record(recording("att-1", nonce_hash=kept.nonce_hash)) is None
        assert await store.purge_expired(NOW) == 0
        assert len(await store.history("default", "att-1", before=None, limit=10)) == 2


class TestRecording:
    async def test_what_was_recorded_is_what_is_read(self, store):
        await enrol(store, "att-1")
        item = recording("att-1")
        stored = await store.record(item)
        assert stored == structs.replace(item.verdict, sequence=1)
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.latest == stored
        assert state.boot == item.boot
        assert await store.history("default", "att-1", before=None, limit=10) == (stored,)
        assert await store.evidence_of("default", "att-1", 1) == item.evidence
        for digest, content in item.blobs.items():
            assert await store.has_blob(digest)
            assert await store.blob(digest) == content

    async def test_a_spent_nonce_stores_nothing_at_all(self, store):
        await enrol(store, "att-1")
        first = recording("att-1")
        await store.record(first)
        again = recording(
            "att-1", nonce_hash=first.nonce_hash, tier=Tier.WARNING, boot_log=b"another",
            identity=GuestIdentity(hostname="renamed"),
        )  # fmt: skip
        assert await store.record(again) is None
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.latest is not None
        assert (state.latest.sequence, state.latest.tier) == (1, Tier.AFFIRMING)
        assert state.attester.identity.hostname != "renamed"
        assert not any([await store.has_blob(digest) for digest in again.blobs if digest not in first.blobs])

    async def test_a_nonce_spent_by_one_attester_is_spent_for_all(self, store):
        await enrol(store, "att-1")
        await enrol(store, "att-2")
        first = recording("att-1")
        await store.record(first)
        assert await store.record(recording("att-2", nonce_hash=first.nonce_hash)) is None

    async def test_of_many_with_one_nonce_one_is_recorded(self, database):
        one, two = await database.open(), await database.open()
        await enrol(one, "att-1")
        nonce = os.urandom(32)
        answers = await asyncio.gather(
            *((one, two)[n % 2].record(recording("att-1", nonce_hash=nonce)) for n in range(24))
        )
        assert sum(answer is not None for answer in answers) == 1
        assert len(await one.history("default", "att-1", before=None, limit=50)) == 1

    async def test_sequences_have_no_gap_and_no_double_from_two_stores(self, database):
        one, two = await database.open(), await database.open()
        for number in range(3):
            await enrol(one, f"att-{number}")
        answers = await asyncio.gather(
            *((one, two)[n % 2].record(recording(f"att-{n % 3}")) for n in range(60))
        )
        for number in range(3):
            mine = sorted(answer.sequence for answer in answers if answer.attester_id == f"att-{number}")
            assert mine == list(range(1, 21))
            state = await two.attester_state(f"att-{number}")
            assert state is not None
            assert state.latest is not None
            assert state.latest.sequence == 20

    async def test_one_bad_recording_among_many_harms_only_its_own(self, store):
        await enrol(store, "att-1")
        spent = os.urandom(32)
        await store.record(recording("att-1", nonce_hash=spent))
        good = [recording("att-1") for _ in range(10)]
        bad_blob = structs.replace(recording("att-1"), blobs={sha256(b"said"): b"is not"})
        no_text = structs.replace(recording("att-1"), nonce_expires_at=NOW.replace(tzinfo=None))
        batch = [
            *good[:5],
            recording("att-1", nonce_hash=spent),
            recording("att-unknown"),
            bad_blob,
            no_text,
            *good[5:],
        ]
        answers = await asyncio.gather(*map(store.record, batch), return_exceptions=True)
        stored = [
            answer for answer in answers if not isinstance(answer, BaseException) and answer is not None
        ]
        assert len(stored) == 10
        assert answers[5] is None
        assert isinstance(answers[6], NotFoundError)
        assert isinstance(answers[7], ValueError)
        assert isinstance(answers[8], ValueError)
        assert len(await store.history("default", "att-1", before=None, limit=50)) == 11

    async def test_an_unknown_attester_or_tenant_spends_no_nonce(self, store):
        await enrol(store, "att-1")
        item = recording("att-1")
        foreign = structs.replace(item, verdict=structs.replace(item.verdict, tenant=OTHER))
        with pytest.raises(NotFoundError):
            await store.record(foreign)
        with pytest.raises(NotFoundError):
            await store.record(recording("att-none", nonce_hash=item.nonce_hash))
        assert await store.record(item) is not None

    async def test_the_latest_boot_is_the_one_recorded_last(self, store):
        await enrol(store, "att-1")
        first = recording("att-1")
        rebooted = recording(
            "att-1", at=NOW + MINUTE, clock=ClockInfo(9, 8, 0, safe=False), boot_log=b"a newer kernel"
        )
        later = recording(
            "att-1", at=NOW + 2 * MINUTE, clock=ClockInfo(99, 8, 0, safe=True), boot_log=b"a newer kernel"
        )
        for item in (first, rebooted, later):
            await store.record(item)
            state = await store.attester_state("att-1")
            assert state is not None
            assert state.boot == item.boot

    async def test_a_boot_without_a_log_is_a_boot(self, store):
        await enrol(store, "att-1")
        item = recording("att-1")
        item = structs.replace(item, boot=structs.replace(item.boot, boot_log_sha256=None, boot_id=None))
        await store.record(item)
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.boot == item.boot

    async def test_the_log_of_systemd_that_is_held_is_the_one_sent_last(self, store):
        """It grows while a boot goes on; the boot stays the same one."""
        await enrol(store, "att-1")
        for minutes, held in enumerate((sha256(b"a log"), sha256(b"a longer log"), None)):
            item = recording("att-1", at=NOW + minutes * MINUTE)
            boot = structs.replace(item.boot, userspace_log_sha256=held)
            await store.record(structs.replace(item, boot=boot))
            state = await store.attester_state("att-1")
            assert state is not None
            assert state.boot == boot

    async def test_a_guest_that_says_another_uuid_is_remembered_under_both(self, store):
        before = await enrol(store, "att-1")
        await store.record(recording("att-1", identity=GuestIdentity(smbios_uuid="b", os_release="13")))
        await store.record(
            recording("att-1", identity=GuestIdentity(smbios_uuid=before.identity.smbios_uuid))
        )
        await store.record(recording("att-1", identity=GuestIdentity()))
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester.smbios_uuids == {before.identity.smbios_uuid, "b"}
        assert state.attester.identity == structs.replace(before.identity, os_release="13")

    async def test_a_guest_cannot_fill_the_store_with_uuids(self, store):
        await enrol(store, "att-1")
        await asyncio.gather(
            *(
                store.record(recording("att-1", identity=GuestIdentity(smbios_uuid=f"u{n}")))
                for n in range(100)
            )
        )
        state = await store.attester_state("att-1")
        assert state is not None
        assert len(state.attester.smbios_uuids) == 64

    async def test_a_blob_held_already_is_kept_once_and_may_be_named_alone(self, store):
        await enrol(store, "att-1")
        first = recording("att-1", boot_log=b"the same log")
        await store.record(first)
        again = recording("att-1", boot_log=b"the same log")
        again = structs.replace(
            again, blobs={key: value for key, value in again.blobs.items() if value != b"the same log"}
        )
        await store.record(again)
        await store.record(recording("att-1", boot_log=b"the same log"))
        assert await store.blob(sha256(b"the same log")) == b"the same log"

    async def test_what_is_named_again_counts_as_used_that_day(self, store):
        """What retention will go by: neither the log nor the judgement of a live machine may ever look old."""
        await enrol(store, "att-1")
        await store.record(recording("att-1"))
        later = recording("att-1", at=NOW + timedelta(days=3))
        await store.record(structs.replace(later, blobs={}))
        log = bytes.fromhex(later.evidence["boot-log"])
        day = datetime(2026, 3, 4, tzinfo=UTC)
        ((used,),) = await store._backend.rows(select(blob.c.last_used_at).where(blob.c.digest == log))
        assert moment(used) == day
        assert [moment(row[0]) for row in await store._backend.rows(select(judgement.c.last_used_at))] == [
            day
        ]

    async def test_keys_that_spoke_before_stay_on_record(self, store):
        first = await enrol(store, "att-1")
        second = await enrol(store, "x", ek_fingerprint=first.ek_fingerprint, now=NOW + MINUTE)
        kept = await store._backend.rows(select(attestation_key.c.name, attestation_key.c.retired_at))
        assert dict(map(tuple, kept)) == {first.ak_name: micros(NOW + MINUTE), second.ak_name: None}

    @pytest.mark.parametrize("content", [b"", b"x", os.urandom(5_000), b"A" * 4_000_000])
    async def test_blobs_of_every_size_come_back(self, store, content):
        await enrol(store, "att-1")
        await store.record(recording("att-1", boot_log=content))
        assert await store.blob(sha256(content)) == content
        assert await store.blob(sha256(b"never seen")) is None


class TestTogether:
    async def test_everything_at_once_from_two_replicas_leaves_a_consistent_fleet(self, database):
        """Recordings that change identities, re-enrolments, revocations and purges, all on the same attesters."""
        replicas = await database.open(), await database.open()
        names = [f"att-{n}" for n in range(4)]
        enrolled = {name: await enrol(replicas[0], name) for name in names}
        stored: Counter[str] = Counter()

        async def attest(store, turn):
            name = names[turn % 4]
            said = GuestIdentity(smbios_uuid=f"uuid-{turn % 7}", hostname=f"host-{turn}")
            assert (
                await store.record(recording(name, boot_log=b"log %d" % (turn % 3), identity=said))
                is not None
            )
            stored[name] += 1

        async def operate(store, turn):
            name = names[turn % 4]
            again = await enrol(store, f"new-{turn}", ek_fingerprint=enrolled[name].ek_fingerprint)
            assert again.id == name
            assert await store.revoke_attester("default", name, NOW)
            assert await store.assign_policy("default", name, "strict")
            await store.purge_expired(NOW - MINUTE)

        work = [(attest, operate)[turn % 5 == 4](replicas[turn % 2], turn) for turn in range(80)]
        await asyncio.wait_for(asyncio.gather(*work), 30)
        assert stored.total() == 64
        for name in names:
            state = await replicas[0].attester_state(name)
            assert state is not None
            assert state.attester.lifecycle is Lifecycle.REVOKED
            assert state.latest is not None
            assert state.latest.sequence == stored[name]
            history = await replicas[1].history("default", name, before=None, limit=100)
            assert [verdict.sequence for verdict in history] == list(range(stored[name], 0, -1))
            claimed = {f"uuid-{turn % 7}" for turn in range(80) if turn % 5 != 4 and names[turn % 4] == name}
            assert claimed < state.attester.smbios_uuids, (
                "no claim is lost when two change an attester at once"
            )


class TestHistory:
    async def test_newest_first_and_paged_by_sequence(self, store):
        await enrol(store, "att-1")
        for number in range(7):
            await store.record(recording("att-1", at=NOW + number * MINUTE, tier=Tier(number % 4)))
        page = await store.history("default", "att-1", before=None, limit=3)
        assert [verdict.sequence for verdict in page] == [7, 6, 5]
        assert page[0].judged_at == NOW + 6 * MINUTE
        assert page[0].tier is Tier.NONE
        rest = await store.history("default", "att-1", before=5, limit=100)
        assert [verdict.sequence for verdict in rest] == [4, 3, 2, 1]
        assert list(rest[0].findings) == list(FINDINGS)
        assert rest[0].clock == CLOCK
        assert await store.history("default", "att-1", before=1, limit=5) == ()

    async def test_it_is_the_tenants_own(self, store):
        await enrol(store, "att-1")
        await store.record(recording("att-1"))
        assert await store.history(OTHER, "att-1", before=None, limit=10) == ()
        assert await store.evidence_of(OTHER, "att-1", 1) is None
        assert await store.evidence_of("default", "att-1", 2) is None


async def _fleet(store):
    """One attester in each situation."""
    later = NOW + 60 * MINUTE
    for name in ("affirming", "warning", "none", "contraindicated"):
        await enrol(store, f"att-{name}")
        await store.record(recording(f"att-{name}", at=later - MINUTE, tier=Tier[name.upper()]))
    await enrol(store, "att-new")
    await enrol(store, "att-stale")
    await store.record(recording("att-stale", at=NOW))
    await enrol(store, "att-revoked")
    await store.record(recording("att-revoked", at=later - MINUTE))
    await store.revoke_attester("default", "att-revoked", later)
    await enrol(store, "att-foreign", tenant=OTHER)
    await store.record(recording("att-foreign", at=later - MINUTE, tenant=OTHER))
    return later


async def _ids(store, where, now, tenant="default"):
    page = await store.list_attesters(tenant, where, now=now, cursor=None, limit=100)
    return {state.attester.id.removeprefix("att-") for state in page.items}


class TestFleet:
    async def test_every_attester_is_counted_once(self, store):
        now = await _fleet(store)
        assert await store.status_counts("default", now) == {
            "affirming": 1, "warning": 1, "none": 1, "contraindicated": 1, "stale": 1, "revoked": 1, "enrolled": 1, "retired": 0,
        }  # fmt: skip
        assert (await store.status_counts(OTHER, now))["affirming"] == 1
        assert sum((await store.status_counts("nobody", now)).values()) == 0

    async def test_a_verdict_is_stale_the_moment_after_it_runs_out(self, store):
        await enrol(store, "att-1")
        item = recording("att-1")
        await store.record(item)
        end = item.verdict.valid_until
        assert (await store.status_counts("default", end))["affirming"] == 1
        assert await _ids(store, FleetFilter(lifecycle=Lifecycle.ENROLLED), end) == {"1"}
        just_after = end + timedelta(microseconds=1)
        assert (await store.status_counts("default", just_after))["stale"] == 1
        assert await _ids(store, FleetFilter(lifecycle=Lifecycle.STALE), just_after) == {"1"}
        page = await store.list_attesters("default", FleetFilter(), now=just_after, cursor=None, limit=1)
        assert page.items[0].attester.lifecycle is Lifecycle.STALE

    async def test_filters(self, store):
        now = await _fleet(store)
        everyone = {"affirming", "warning", "none", "contraindicated", "new", "stale", "revoked"}
        for where, expected in (
            (FleetFilter(), everyone),
            (FleetFilter(tier=Tier.AFFIRMING), {"affirming"}),
            (FleetFilter(tier=Tier.NONE), {"none"}),
            (FleetFilter(lifecycle=Lifecycle.STALE), {"stale"}),
            (FleetFilter(lifecycle=Lifecycle.REVOKED), {"revoked"}),
            (FleetFilter(lifecycle=Lifecycle.PENDING), set()),
            (FleetFilter(lifecycle=Lifecycle.ENROLLED), everyone - {"stale", "revoked"}),
            (FleetFilter(lifecycle=Lifecycle.STALE, tier=Tier.AFFIRMING), {"stale"}),
            (FleetFilter(lifecycle=Lifecycle.STALE, tier=Tier.WARNING), set()),
            (FleetFilter(search="WARN"), {"warning"}),
            (FleetFilter(search="%"), set()),
            (FleetFilter(search="\x00"), set()),
            (FleetFilter(label=("site", "fra")), set()),
        ):
            assert await _ids(store, where, now) == expected, where
        assert await _ids(store, FleetFilter(), now, OTHER) == {"foreign"}

    async def test_search_finds_host_names_and_every_uuid_ever_claimed(self, store):
        await enrol(
            store, "att-1", identity=GuestIdentity(hostname="Web-07.example", smbios_uuid="4C4C4544-AA")
        )
        await enrol(store, "att-2")
        await store.record(recording("att-1", identity=GuestIdentity(hostname="db_1", smbios_uuid="ffff")))
        assert await _ids(store, FleetFilter(search="web-07"), NOW) == set()
        for text in ("db_1", "4c4c4544-aa", "FFFF", "att-1"):
            assert await _ids(store, FleetFilter(search=text), NOW) == {"1"}, text
        assert await _ids(store, FleetFilter(search="db-1"), NOW) == set(), "_ is no wildcard"

    async def test_labels(self, store):
        await enrol(store, "att-1")
        await enrol(store, "att-2")
        assert not await store.set_labels(OTHER, "att-1", {"a": "b"}, audit_entry())
        assert await store.set_labels("default", "att-1", {"site": "fra", "role": "db"}, audit_entry())
        assert await store.set_labels("default", "att-2", {"site": "muc"}, audit_entry())
        assert await _ids(store, FleetFilter(label=("site", "fra")), NOW) == {"1"}
        assert await store.set_labels("default", "att-1", {"site": "muc"}, audit_entry())
        assert await _ids(store, FleetFilter(label=("site", "muc")), NOW) == {"1", "2"}
        assert await _ids(store, FleetFilter(label=("role", "db")), NOW) == set()
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester.labels == {"site": "muc"}
        assert len(await store.list_audit("default", subject="x-1", before=None, limit=9)) == 3

    @pytest.mark.parametrize(
        "labels",
        [
            {"": "x"},
            {"k" * (MAX_LABEL + 1): "x"},
            {"k": "v" * (MAX_LABEL + 1)},
            {f"k{n}": "" for n in range(MAX_LABELS + 1)},
        ],
    )
    async def test_labels_have_limits(self, store, labels):
        await enrol(store, "att-1")
        with pytest.raises(EvidenceError) as refused:
            await store.set_labels("default", "att-1", labels, audit_entry())
        assert refused.value.reason is Reason.MALFORMED_REQUEST

    async def test_the_longest_labels_are_kept(self, store):
        await enrol(store, "att-1")
        labels = {
            f"{n:03}{chr(0x10FFFF) * (MAX_LABEL - 3)}": "\U0001f4a5" * MAX_LABEL for n in range(MAX_LABELS)
        }
        assert await store.set_labels("default", "att-1", labels, audit_entry())
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester.labels == labels

    async def test_everything_a_guest_may_claim_fits_into_the_indexes(self, store):
        await enrol(store, "att-1", identity=GuestIdentity(hostname=os.urandom(512).hex()))
        said = [GuestIdentity(smbios_uuid=os.urandom(512).hex()) for _ in range(20)]
        for identity in said:
            assert await store.record(recording("att-1", identity=identity)) is not None
        state = await store.attester_state("att-1")
        assert state is not None
        assert state.attester.smbios_uuids >= {identity.smbios_uuid for identity in said}

    async def test_pages_show_everyone_once_while_others_come(self, store):
        ids = [f"att-{n:02}" for n in range(0, 20, 2)]
        for attester_id in ids:
            await enrol(store, attester_id)
        seen, cursor = [], None
        for newcomer in (1, 5, 9, 13, 17, 19, None):
            page = await store.list_attesters("default", FleetFilter(), now=NOW, cursor=cursor, limit=3)
            seen += [state.attester.id for state in page.items]
            cursor = page.cursor
            if cursor is None:
                break
            await enrol(store, f"att-{newcomer:02}")
        assert cursor is None
        assert len(seen) == len(set(seen))
        assert set(ids) <= set(seen)
        assert seen == sorted(seen)

    async def test_the_last_page_has_no_cursor(self, store):
        for number in range(4):
            await enrol(store, f"att-{number}")
        page = await store.list_attesters("default", FleetFilter(), now=NOW, cursor=None, limit=4)
        assert (len(page.items), page.cursor) == (4, None)

    @pytest.mark.parametrize("cursor", ["", "garbage", "AAAA", "%%%", "\u00fc", "A" * 10_000, "eyJhIjoxfQ"])
    async def test_a_cursor_nobody_gave_out_is_refused(self, store, cursor):
        with pytest.raises(EvidenceError) as refused:
            await store.list_attesters("default", FleetFilter(), now=NOW, cursor=cursor, limit=3)
        assert refused.value.reason is Reason.MALFORMED_REQUEST

    async def test_a_cursor_belongs_to_its_listing(self, store):
        for number in range(3):
            await enrol(store, f"att-{number}")
        page = await store.list_attesters("default", FleetFilter(), now=NOW, cursor=None, limit=1)
        assert page.cursor is not None
        for tenant, where in ((OTHER, FleetFilter()), ("default", FleetFilter(search="att"))):
            with pytest.raises(EvidenceError):
                await store.list_attesters(tenant, where, now=NOW, cursor=page.cursor, limit=1)
        flipped = page.cursor[:-1] + ("A" if page.cursor[-1] != "A" else "Q")
        with pytest.raises(EvidenceError):
            await store.list_attesters("default", FleetFilter(), now=NOW, cursor=flipped, limit=1)

    @pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
    async def test_a_page_has_a_sensible_size(self, store, limit):
        with pytest.raises(EvidenceError) as refused:
            await store.list_attesters("default", FleetFilter(), now=NOW, cursor=None, limit=limit)
        assert refused.value.reason is Reason.MALFORMED_REQUEST

    async def test_revoking_an_attester(self, store):
        await enrol(store, "att-1")
        assert not await store.revoke_attester(OTHER, "att-1", NOW)
        assert not await store.revoke_attester("default", "att-unknown", NOW)
        assert await store.revoke_attester("default", "att-1", NOW)
        assert await store.revoke_attester("default", "att-1", NOW + MINUTE)
        state = await store.attester_state("att-1")
        assert state is not None
        assert (state.attester.lifecycle, state.attester.revoked_at) == (Lifecycle.REVOKED, NOW)

    async def test_assigning_a_policy(self, store):
        await enrol(store, "att-1")
        assert not await store.assign_policy(OTHER, "att-1", "strict")
        assert not await store.assign_policy("default", "att-unknown", "strict")
        for policy_id in ("strict", None):
            assert await store.assign_policy("default", "att-1", policy_id)
            state = await store.attester_state("att-1")
            assert state is not None
            assert state.attester.policy_id == policy_id


class TestPolicies:
    async def test_the_revision_added_last_is_current(self, store):
        first, second = policy(), policy(revision=sha256(b"2").hex(), source="id: strict # 2\n")
        await store.add_policy(first)
        for _ in range(2):
            await store.add_policy(second)
            assert await store.current_policy("default", "strict") == second
        other = policy(id="lax")
        await store.add_policy(other)
        assert await store.list_policies("default") == (other, second)

    async def test_going_back_to_an_earlier_revision(self, store):
        first, second = policy(), policy(revision=sha256(b"2").hex(), source="id: strict # 2\n")
        for record in (first, second, dataclasses.replace(first, created_at=NOW + MINUTE)):
            await store.add_policy(record)
        assert await store.current_policy("default", "strict") == first
        assert await store.list_policies("default") == (first,)

    @pytest.mark.parametrize("current", [True, False])
    async def test_a_revision_that_is_submitted_again_is_kept_as_it_came_last(self, store, current):
        """Signatures may have been added around the same bytes."""
        signed = policy(source='{"payloadType": "signed"}')
        await store.add_policy(policy())
        await store.add_policy(signed, current=current)
        assert await store.current_policy("default", "strict") == signed

    async def test_tenants_do_not_see_each_others(self, store):
        await store.add_policy(policy())
        await store.add_policy(policy(tenant=OTHER, source="theirs"))
        mine = await store.current_policy("default", "strict")
        assert mine is not None
        assert mine.source == "id: strict\n"
        assert len(await store.list_policies(OTHER)) == 1
        assert await store.current_policy("default", "unknown") is None

    async def test_revisions_added_from_two_sides_agree_on_one_that_is_current(self, database):
        one, two = await database.open(), await database.open()
        revisions = [policy(revision=sha256(b"%d" % n).hex()) for n in range(12)]
        await asyncio.gather(*((one, two)[n % 2].add_policy(made) for n, made in enumerate(revisions * 2)))
        (current,) = await one.list_policies("default")
        assert current in revisions
        assert await two.current_policy("default", "strict") == current


class TestLifetime:
    async def test_a_store_that_answers_is_well(self, store):
        await store.ping()

    async def test_what_is_asked_of_a_closed_store_is_unavailable(self, store):
        await enrol(store, "att-1")
        await store.close()
        await store.close()
        for call in (
            store.ping(),
            store.attester_state("att-1"),
            store.record(recording("att-1")),
            store.add_token(token()),
            store.list_policies("default"),
            store.status_counts("default", NOW),
        ):
            with pytest.raises(StoreUnavailable):
                await call

    async def test_recordings_under_way_are_finished_before_closing(self, database):
        store = await database.open()
        await enrol(store, "att-1")
        under_way = [asyncio.ensure_future(store.record(recording("att-1"))) for _ in range(300)]
        await asyncio.sleep(0)
        await store.close()
        assert all(verdict is not None for verdict in await asyncio.gather(*under_way))
        again = await database.open()
        assert len(await again.history("default", "att-1", before=None, limit=500)) == 300

    async def test_everything_outlives_the_process_that_stored_it(self, database):
        first = await database.open()
        await enrol(first, "att-1")
        item = recording("att-1")
        stored = await first.record(item)
        await first.close()
        second = await database.open()
        state = await second.attester_state("att-1")
        assert state is not None
        assert state.latest == stored
        assert await second.record(item) is None, "the nonce stays spent"

    @pytest.mark.parametrize("name", ["att-\x00", "\x00", "' OR 1=1 --", "\U0001f4a5" * 1000])
    async def test_names_nobody_could_have_are_not_found_or_refused(self, store, name):
        for call in (
            store.attester_state(name),
            store.enrollment(name),
            store.current_policy("default", name),
            store.history("default", name, before=None, limit=1),
            store.revoke_attester("default", name, NOW),
            store.complete_enrollment(name, "att-1", NOW),
        ):
            try:
                found = await call
            except EvidenceError as refused:
                found = None if refused.reason is Reason.MALFORMED_REQUEST else refused
            assert not found
