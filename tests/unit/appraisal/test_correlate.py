"""A guest and the inventories: whose key it is, whom it says it is, and what cannot be said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from verifier.appraisal.correlate import Correlation, GuestKeys, Outcome, correlate
from verifier.appraisal.inventory import InventoryMachine, MachineKey, SourceStatus
from verifier.appraisal.smbios import canonical_uuid, same_uuid, swapped_uuid, uuid_spellings

NOW = datetime(2026, 11, 24, tzinfo=UTC)
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
UUID = "00112233-4455-6677-8899-aabbccddeeff"
SWAPPED = "33221100-5544-7766-8899-aabbccddeeff"
ELSE = "11111111-2222-3333-4444-555555555555"


def machine(
    name: str, *, source: str = "dc1", keys: tuple[bytes, ...] = (KEY,), **changes: object
) -> InventoryMachine:
    given = {"smbios_uuid": UUID, "vcenter": source if source.startswith("dc") else None} | changes
    return InventoryMachine(
        key=MachineKey(source=source, id=name), name=name, ek_fingerprints=frozenset(keys), **given
    )


def source(name: str = "dc1", *, age: timedelta | None = timedelta(0)) -> SourceStatus:
    return SourceStatus(name=name, synced_at=None if age is None else NOW - age, machines=1)


def judge(
    *machines: InventoryMachine, uuid: str | None = UUID, sources: tuple[SourceStatus, ...] = (source(),)
) -> Correlation:
    return correlate(
        GuestKeys(ek_fingerprint=KEY, smbios_uuid=uuid),
        by_ek=[one for one in machines if KEY in one.ek_fingerprints],
        by_uuid=[one for one in machines if same_uuid(uuid, one.smbios_uuid)],
        sources=sources,
        now=NOW,
        max_age=timedelta(hours=1),
    )


@pytest.mark.parametrize("told", [UUID, UUID.upper(), SWAPPED])
def test_key_and_uuid_of_one_machine_match_in_either_spelling(told: str) -> None:
    found = judge(machine("web"), uuid=told)
    assert (found.outcome, found.machine.name if found.machine else None) == (Outcome.MATCH, "web")


@pytest.mark.parametrize(
    ("uuid", "listed", "says"), [(None, UUID, "the guest says none"), (UUID, None, "lists none for it")]
)
def test_without_two_uuids_only_the_key_speaks(uuid: str | None, listed: str | None, says: str) -> None:
    found = judge(machine("web", smbios_uuid=listed), uuid=uuid)
    assert found.outcome is Outcome.EK_ONLY
    assert says in found.explanation


def test_a_guest_with_the_key_of_another_machine_names_both() -> None:
    found = judge(machine("victim", smbios_uuid=ELSE), machine("copy", keys=(OTHER_KEY,)))
    assert found.outcome is Outcome.EK_OF_ANOTHER_MACHINE
    assert [one.name for one in found.machines] == ["copy", "victim"]
    alone = judge(machine("victim", smbios_uuid=ELSE))
    assert (alone.outcome, alone.machine) == (Outcome.EK_OF_ANOTHER_MACHINE, None)
    assert "which no inventory knows" in alone.explanation


def test_copies_of_one_vtpm_are_all_named_and_the_guests_own_is_told() -> None:
    found = judge(machine("web"), machine("clone", smbios_uuid=ELSE, template=True))
    assert found.outcome is Outcome.EK_ON_SEVERAL_MACHINES
    assert found.machine is not None
    assert found.machine.name == "web"
    assert "clone (dc1/clone) (a template)" in found.explanation
    nobody = judge(machine("a", smbios_uuid=ELSE), machine("b", smbios_uuid=ELSE))
    assert (nobody.machine, len(nobody.others)) == (None, 2)


def test_a_known_machine_with_another_key_had_its_vtpm_replaced() -> None:
    found = judge(machine("web", keys=(OTHER_KEY,)))
    assert found.outcome is Outcome.UUID_KNOWN_EK_UNKNOWN
    assert "replaced" in found.explanation


@pytest.mark.parametrize(
    ("has_vtpm", "says"), [(False, "(it has no vTPM)"), (None, "lists no endorsement key")]
)
def test_a_machine_whose_source_lists_no_key_says_nothing_of_it(has_vtpm: bool | None, says: str) -> None:
    found = judge(machine("web", keys=(), has_vtpm=has_vtpm))
    assert found.outcome is Outcome.EK_NOT_LISTED
    assert found.explanation.endswith(says)


def test_two_machines_of_one_uuid_are_not_told_apart() -> None:
    found = judge(machine("a", keys=(OTHER_KEY,)), machine("b", keys=(OTHER_KEY,)))
    assert (found.machine, len(found.others)) == (None, 2)


@pytest.mark.parametrize(("uuid", "says"), [(UUID, UUID), (None, "no SMBIOS UUID")])
def test_a_guest_nobody_lists_is_unknown(uuid: str | None, says: str) -> None:
    found = judge(uuid=uuid)
    assert (found.outcome, found.machines) == (Outcome.UNKNOWN, ())
    assert says in found.explanation


@pytest.mark.parametrize("age", [None, timedelta(hours=2)])
def test_nothing_found_means_nothing_while_a_source_is_not_current(age: timedelta | None) -> None:
    found = judge(sources=(source(), source("dc2", age=age)))
    assert (found.outcome, found.last_known, found.stale_sources) == (
        Outcome.INVENTORY_STALE,
        Outcome.UNKNOWN,
        ("dc2",),
    )


def test_a_machine_speaks_for_itself_while_its_own_source_is_current() -> None:
    other_down = judge(machine("web"), sources=(source(), source("dc2", age=None)))
    assert (other_down.outcome, other_down.stale_sources) == (Outcome.MATCH, ("dc2",))
    own_down = judge(machine("web"), sources=(source(age=None),))
    assert (own_down.outcome, own_down.last_known) == (Outcome.INVENTORY_STALE, Outcome.MATCH)


@pytest.mark.parametrize(
    "listed",
    [
        {"smbios_uuid": SWAPPED},
        {"smbios_uuid": None},
        {"smbios_uuid": ELSE, "instance_uuid": "i"},
    ],
)
def test_a_file_and_a_vcenter_that_list_one_machine_are_no_clone(listed: dict[str, object]) -> None:
    found = judge(machine("file", source="list", **listed), machine("web", instance_uuid="i"))
    assert found.outcome is Outcome.MATCH
    assert found.machine is not None
    assert found.machine.vcenter == "dc1"


def test_two_vcenters_with_one_machine_are_a_clone() -> None:
    found = judge(machine("web", instance_uuid="i"), machine("web", source="dc2", instance_uuid="i"))
    assert found.outcome is Outcome.EK_ON_SEVERAL_MACHINES


def test_a_vcenter_that_gives_a_machine_another_key_overrules_a_file() -> None:
    found = judge(machine("file", source="list"), machine("web", keys=(OTHER_KEY,)))
    assert found.outcome is Outcome.UUID_KNOWN_EK_UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0" * 32,
        f"{{{UUID}}}",
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "g" * 36,
    ],
)
def test_what_names_no_machine_agrees_with_nothing(text: str) -> None:
    assert canonical_uuid(text) is None
    assert uuid_spellings(text) == frozenset()
    assert not same_uuid(text, text)


def test_the_two_spellings_are_each_others_inverse() -> None:
    assert swapped_uuid(UUID) == SWAPPED
    assert swapped_uuid(SWAPPED) == UUID
    assert not same_uuid(UUID, None)
    assert not same_uuid(UUID, ELSE)
