"""What the inventory says becomes a finding: a contradiction counts, silence and age only inform, nothing improves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from tests.unit.appraisal.test_correlate import ELSE, NOW, OTHER_KEY, UUID, judge, machine, source
from verifier.appraisal.checks.inventory import MAX_NEWS, check_inventory
from verifier.appraisal.correlate import Correlation, InventoryView
from verifier.appraisal.evidence import INVENTORY_REASONS, Expectation, JudgedHistory
from verifier.appraisal.inventory import EventKind, InventoryEvent
from verifier.findings import Finding, Severity, Status
from verifier.reasons import Reason, Tier

OLD = (source(age=timedelta(days=1)),)


def event(kind: EventKind, name: str = "web", *, minutes: int = 1, **changes) -> InventoryEvent:
    at = NOW - timedelta(minutes=minutes)
    made = InventoryEvent(id=f"{kind}-{minutes}", kind=kind, at=at, machine=machine(name).ref)
    return replace(made, **changes)


def checked(found: Correlation, *events: InventoryEvent, claimed: str | None = UUID, **changes):
    view = InventoryView(correlation=found, events=events, news_since=NOW - timedelta(hours=1))
    expected = Expectation(
        ak_public=b"", ak_activated=True, nonce=b"", request=(), inventory=replace(view, **changes)
    )
    return check_inventory(expected, claimed)


def first(*arguments, **options) -> Finding:
    finding, *_ = checked(*arguments, **options)
    return finding


WEB, TEMPLATE = machine("web"), machine("golden", template=True)
VECTORS = {
    "match": (judge(WEB), Reason.INVENTORY_MATCHES, Tier.AFFIRMING),
    "without a UUID": (judge(WEB, uuid=None), Reason.INVENTORY_MATCHES, Tier.AFFIRMING),
    "another machine's": (judge(WEB, uuid=ELSE), Reason.INVENTORY_MISMATCH, Tier.CONTRAINDICATED),
    "a copy is listed": (
        judge(WEB, machine("copy", smbios_uuid=ELSE)),
        Reason.INVENTORY_SHARED_KEY,
        Tier.WARNING,
    ),
    "from a template": (judge(WEB, TEMPLATE), Reason.INVENTORY_SHARED_KEY, Tier.WARNING),
    "replaced": (
        judge(machine("web", keys=(OTHER_KEY,))),
        Reason.INVENTORY_KEY_REPLACED,
        Tier.CONTRAINDICATED,
    ),
    "no keys listed": (judge(machine("web", keys=())), Reason.INVENTORY_SILENT, Tier.AFFIRMING),
    "not listed": (judge(), Reason.INVENTORY_SILENT, Tier.AFFIRMING),
    "old and well": (judge(WEB, sources=OLD), Reason.INVENTORY_STALE, Tier.AFFIRMING),
    "old and bad": (
        judge(machine("web", keys=(OTHER_KEY,)), sources=OLD),
        Reason.INVENTORY_STALE,
        Tier.WARNING,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_every_outcome_has_a_finding_that_says_how_bad_it_is(name):
    found, reason, tier = VECTORS[name]
    claimed = ELSE if name == "another machine's" else UUID
    (finding,) = checked(found, claimed=claimed)
    assert (finding.reason, finding.tier) == (reason, tier)
    assert finding.reason in INVENTORY_REASONS
    assert (finding.status is Status.PASSED) == (reason is Reason.INVENTORY_MATCHES)


def test_nothing_is_said_without_inventories_or_without_an_activation():
    expected = Expectation(ak_public=b"", ak_activated=True, nonce=b"", request=())
    assert check_inventory(expected, UUID) == ()
    unbound = structs.replace(expected, ak_activated=False, inventory=InventoryView(correlation=judge(WEB)))
    assert check_inventory(unbound, UUID) == ()


def test_a_guest_that_was_not_started_since_its_uuid_was_changed_is_no_copy():
    found = judge(WEB, uuid=ELSE)
    changed = event(EventKind.UUID_CHANGED, before=ELSE, after=UUID)
    finding = first(found, changed, claimed=ELSE)
    assert (finding.reason, finding.tier) == (Reason.INVENTORY_MISMATCH, Tier.WARNING)
    assert "that was its UUID until 2026-11-23 23:59:00 UTC" in finding.message
    others = (
        event(EventKind.UUID_CHANGED, before=UUID, after=ELSE),
        event(EventKind.UUID_CHANGED, "other", before=ELSE),
        event(EventKind.SNAPSHOT_REVERTED, before=ELSE),
    )
    for other in others:
        assert first(found, other, claimed=ELSE).tier is Tier.CONTRAINDICATED


COMING_AND_GOING = {EventKind.ADDED, EventKind.REMOVED}


@pytest.mark.parametrize("kind", sorted(COMING_AND_GOING))
def test_that_a_machine_was_listed_or_not_explains_nothing(kind):
    assert [one.reason for one in checked(judge(WEB), event(kind))] == [Reason.INVENTORY_MATCHES]


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind not in COMING_AND_GOING])
def test_what_happened_is_told_and_moves_nothing(kind):
    told = event(kind, origin=machine("origin").ref if kind is EventKind.CLONED else None, after="monday")
    _, news = checked(judge(WEB), told)
    assert (news.reason, news.severity, news.tier) == (
        Reason.INVENTORY_EVENT,
        Severity.INFO,
        Tier.AFFIRMING,
    )
    assert news.message.startswith("web (dc1/web) ")
    assert "2026-11-23 23:59:00 UTC" in news.message


def test_a_revert_names_its_snapshot_and_a_clone_whether_its_vtpm_was_copied():
    _, revert = checked(judge(WEB), event(EventKind.SNAPSHOT_REVERTED, after="monday"))
    assert "was reverted to snapshot 'monday'" in revert.message
    clone = event(EventKind.CLONED, "copy", origin=WEB.ref)
    copy = machine("copy", smbios_uuid=ELSE)
    _, copied = checked(judge(WEB, copy), clone)
    assert copied.message.startswith("copy (dc1/copy) was made as a copy of web (dc1/web)")
    assert copied.message.endswith("and its vTPM was copied")
    _, replaced = checked(judge(WEB), clone)
    assert replaced.message.endswith("not listed with the same key now")


def test_only_news_are_told_and_not_too_many():
    events = [event(EventKind.SNAPSHOT_REVERTED, minutes=minutes) for minutes in (1, 59, 61)]
    assert [one.message[-10:] for one in checked(judge(WEB), *events)[1:]] == [
        one.message[-10:] for one in checked(judge(WEB), *events[:2])[1:]
    ]
    assert len(checked(judge(WEB), *events)) == 3
    many = [event(EventKind.SNAPSHOT_REVERTED, minutes=minutes) for minutes in range(20)]
    assert len(checked(judge(WEB), *many)) == 1 + MAX_NEWS


def test_what_was_said_then_is_kept_apart_when_evidence_is_judged_again():
    findings = checked(judge(WEB), event(EventKind.SNAPSHOT_REVERTED))
    again = JudgedHistory.among(findings)
    assert again.inventory == findings
    assert again.findings == ()
