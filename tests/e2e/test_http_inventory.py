"""An inventory decides whose TPM is whose: from a file to an enrolment, over HTTP with a real store."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.harness import Guest, b64, running, settings_for
from verifier.crypto.keys import fingerprint, load_key
from verifier.errors import VerifierFault
from verifier.inventory.errors import InventoryFileError
from verifier.ports import Scope

VM = "4c4c4544-0042-3510-8052-b4c04f4b3132"
NOBODY = "4c4c4544-0042-3510-8052-000000000000"
OTHER_VM = "4c4c4544-0042-3510-8052-b4c04f4b9999"


def ek_of(guest: Guest) -> str:
    return fingerprint(load_key(guest.tpm.ek_public).public).hex()


def toml(path: Path, name: str = "hw") -> str:
    return f'[[inventory]]\nkind = "file"\nname = "{name}"\npath = "{path}"\ninterval = "1h"\n'


class File:
    """A list of machines, as an operator keeps it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "machines.json"
        self.machines: dict[str, dict[str, object]] = {}
        self.save()

    def put(self, name: str, uuid: str | None, *guests: Guest, **more: object) -> None:
        keys = [ek_of(guest) for guest in guests]
        uuids = {} if uuid is None else {"smbios_uuid": uuid}
        self.machines[name] = {"name": name, "ek_sha256": keys} | uuids | more
        self.save()

    def save(self) -> None:
        self.path.write_text(json.dumps(list(self.machines.values()), indent=1))


@asynccontextmanager
async def verifier_with(folder, clock, methods: str = "inventory"):
    file = File(folder)
    settings = settings_for(folder, toml(file.path), ENROLLMENT_METHODS=methods)
    async with running(settings, clock) as verifier:
        yield verifier, file


async def begin(guest: Guest, uuid: str | None = VM, token: str | None = None):
    identity = {"hostname": "web-1"} | ({} if uuid is None else {"smbios_uuid": uuid})
    guest.identity = identity
    return await guest.harness.post("/v1/enrollments", guest.enrollment(token, identity=identity))


async def prove(guest: Guest, uuid: str | None = VM, token: str | None = None):
    begun = await begin(guest, uuid, token)
    assert begun.status == 201, begun.content
    path = f"/v1/enrollments/{begun.json['enrollment_id']}/activation"
    return await guest.harness.post(path, {"proof": b64(guest.proof(begun.json))})


async def sync(verifier):
    answer = await verifier.post("/v1/inventory/sync", {}, scope=Scope.OPERATOR)
    assert answer.status == 200, answer.content
    return answer.json


async def test_a_machine_whose_ek_is_pinned_enrols_and_every_other_is_refused(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        guest, stranger = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        refused = await begin(guest)
        assert (refused.status, refused.code) == (403, "inventory-disagrees")
        file.put("web-1", VM, guest)
        await sync(verifier)
        for who, uuid, words in (
            (guest, OTHER_VM, f"but the guest says {OTHER_VM}"),
            (stranger, VM, "has this SMBIOS UUID and another endorsement key"),
            (stranger, OTHER_VM, "no inventory lists this endorsement key"),
        ):
            refused = await begin(who, uuid)
            assert (refused.status, refused.code) == (403, "inventory-disagrees")
            assert words in refused.json["detail"]
        assert (await prove(guest)).json["status"] == "enrolled"
        (shown,) = (await verifier.get("/v1/attesters")).json["attesters"]
        attester = (await verifier.get(f"/v1/attesters/{shown['id']}")).json
        assert attester["endorsement"]["method"] == "inventory"
        assert attester["endorsement"]["profile"]["inventory"]["machine"] == "web-1 (hw/web-1)"
        assert attester["inventory"]["outcome"] == "match"
        guest.attester_id = shown["id"]
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"


async def test_an_inventory_that_can_no_longer_be_read_lets_nobody_in(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        guest = Guest.booted(verifier, 1)
        file.put("web-1", VM, guest)
        await sync(verifier)
        file.path.write_text("[broken")
        clock.advance(minutes=14)
        await sync(verifier)
        assert (await begin(guest)).status == 201
        clock.advance(minutes=2)
        refused = await begin(guest)
        assert (refused.status, refused.code) == (403, "inventory-disagrees")
        assert refused.json["detail"].startswith("not current: hw. When last read: ")
        file.save()
        await sync(verifier)
        assert (await prove(guest)).json["status"] == "enrolled"


async def test_a_replaced_vtpm_waits_until_the_inventory_lists_it(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        old, new = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        token = await verifier.token(Scope.JOIN)
        file.put("web-1", VM, old)
        await sync(verifier)
        first = (await prove(old, token=token)).json["attester_id"]
        waits = (await prove(new, token=token)).json
        assert (waits["status"], waits["code"]) == ("pending", "identity-replaced")
        file.put("web-1", VM, new)
        await sync(verifier)
        second = (await prove(new, token=token)).json["attester_id"]
        gone = (await verifier.get(f"/v1/attesters/{first}")).json
        assert (gone["lifecycle"], gone["replaced_by"]) == ("retired", second)
        assert gone["inventory"]["outcome"] == "uuid-known-ek-unknown"
        # What the inventory says of itself about this machine is kept beside it, at a time of its own.
        decided = [one for one in await verifier.decisions(first) if one["action"] == "identity.replaced"]
        assert [one["actor"] for one in decided] == ["inventory"]


async def test_an_ek_that_two_machines_list_is_told_and_enrols_nobody(tmp_path, clock):
    async with verifier_with(tmp_path, clock) as (verifier, file):
        guest = Guest.booted(verifier, 1)
        file.put("web-1", VM, guest)
        file.put("copy", OTHER_VM, guest)
        await sync(verifier)
        refused = await begin(guest)
        assert (refused.status, refused.code) == (403, "inventory-disagrees")
        assert "2 machines carry this endorsement key" in refused.json["detail"]


async def test_the_method_without_an_inventory_and_an_unusable_file_stop_the_start(tmp_path, clock):
    with pytest.raises(VerifierFault, match=r"no inventory is configured: add \[\[inventory\]\]"):
        async with running(settings_for(tmp_path, ENROLLMENT_METHODS="inventory"), clock):
            pass
    file = File(tmp_path)
    file.path.write_text("[{}]")
    with pytest.raises(InventoryFileError, match=r"machines\.json, line 1: name: the member is missing"):
        async with running(settings_for(tmp_path, toml(file.path)), clock):
            pass


# --- what people and monitoring see


async def test_the_state_of_every_source_is_told_over_the_api_in_metrics_and_by_the_command(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        file.put("web-1", VM, Guest.booted(verifier, 1))
        (source,) = (await sync(verifier))["sources"]
        assert (source["name"], source["machines"], source["stale"]) == ("hw", 1, False)
        file.path.write_text("{}")
        clock.advance(minutes=20)
        (source,) = (await sync(verifier))["sources"]
        assert (source["stale"], source["machines"]) == (True, 1)
        assert source["problem"].endswith("machines.json, line 1: not a JSON array of machines")
        assert (await verifier.get("/v1/inventory")).json["sources"] == [source]
        text = (await verifier.get("/metrics")).content.decode()
        for line in ("age_seconds", "machines", "failing", "stale"):
            value = {"age_seconds": "1200.0"}.get(line, "1.0")
            assert f'vtpm_attest_inventory_{line}{{source="hw"}} {value}' in text
        shown = await verifier.attestctl("inventory")
        assert (shown.code, shown.err) == (1, "")
        assert "stale" in shown.out
        assert "not a JSON array of machines" in shown.out
        file.save()
        synced = await verifier.attestctl("inventory", "sync", "--json")
        assert (synced.code, synced.json["sources"][0]["stale"]) == (0, False)


async def test_machines_are_searched_and_paged(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        guest = Guest.booted(verifier, 1)
        for number in range(7):
            file.put(f"db-{number}", None, Guest.booted(verifier, 10 + number), labels={"tier": "data"})
        file.put("Web/1 ü", VM, guest)
        await sync(verifier)
        seen, cursor = [], ""
        while cursor is not None:
            page = (await verifier.get(f"/v1/inventory/machines?limit=3{cursor}")).json
            assert len(page["machines"]) <= 3
            seen += [one["name"] for one in page["machines"]]
            cursor = f"&cursor={page['cursor']}" if "cursor" in page else None
        assert seen == sorted(["Web/1 ü", *(f"db-{number}" for number in range(7))])
        for search, names in (
            ("web", ["Web/1 ü"]),
            (VM.upper(), ["Web/1 ü"]),
            (ek_of(guest)[:20], ["Web/1 ü"]),
            ("TIER=data", [f"db-{number}" for number in range(7)]),
            ("nothing", []),
        ):
            found = (await verifier.get("/v1/inventory/machines", params={"search": search})).json
            assert [one["name"] for one in found["machines"]] == names
        for cursor in ("A", "____"):
            refused = await verifier.get(f"/v1/inventory/machines?cursor={cursor}")
            assert (refused.status, refused.code) == (400, "malformed-request")
        listed = await verifier.attestctl("inventory", "machines", "--search", "web")
        assert listed.code == 0
        assert ek_of(guest)[:16] in listed.out
        assert "hw/Web/1 ü" in listed.out


async def test_events_are_kept_and_listed_by_machine_and_kind(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        first, second = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        file.put("web-1", VM, first)
        await sync(verifier)
        file.put("web-1", VM, second)
        await sync(verifier)
        (event,) = await eventually(lambda: events_of(verifier, "kind=vtpm-replaced"))
        assert (event["kind"], event["machine"]) == ("vtpm-replaced", {"key": "hw/web-1", "name": "web-1"})
        assert (event["before"], event["after"]) == (ek_of(first), ek_of(second))
        for query, found in (
            ("kind=cloned", 0),
            (f"uuid={VM}", 2),
            (f"before={event['sequence']}", 1),
            ("limit=1", 1),
        ):
            assert len(await events_of(verifier, query)) == found, query
        for query, status in (("kind=born", 400), ("uuid=x", 400), (f"uuid={NOBODY}", 404)):
            assert (await verifier.get(f"/v1/inventory/events?{query}")).status == status, query
        shown = await verifier.attestctl("inventory", "events", "--uuid", VM)
        assert "vtpm-replaced" in shown.out


async def events_of(verifier, query: str = ""):
    return (await verifier.get(f"/v1/inventory/events?{query}")).json["events"]


async def test_a_machine_is_shown_with_who_speaks_for_it_and_guests_with_their_machines(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        listed, stranger = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        listed.identity["smbios_uuid"] = VM
        file.put("web-1", VM, listed)
        await sync(verifier)
        await listed.enroll()
        await stranger.enroll()
        (detail,) = (await verifier.get(f"/v1/inventory/machines/{VM.upper()}")).json["machines"]
        assert detail["machine"]["ek_sha256"] == [ek_of(listed)]
        assert detail["machine"]["ek_since"]
        assert [one["id"] for one in detail["attesters"]] == [listed.attester_id]
        for uuid, status in (("x", 400), (NOBODY, 404)):
            assert (await verifier.get(f"/v1/inventory/machines/{uuid}")).status == status
        shown = await verifier.attestctl("inventory", "vm", VM)
        assert listed.attester_id in shown.out
        assert ek_of(listed) in shown.out
        for query, names in (
            ("", {listed.attester_id: "match", stranger.attester_id: "unknown"}),
            ("matched=no", {stranger.attester_id: "unknown"}),
            ("outcome=match", {listed.attester_id: "match"}),
        ):
            guests = (await verifier.get(f"/v1/inventory/guests?{query}")).json["guests"]
            assert {one["attester"]["id"]: one["inventory"]["outcome"] for one in guests} == names
        unmatched = await verifier.attestctl("inventory", "guests", "--unmatched")
        assert stranger.attester_id in unmatched.out
        assert listed.attester_id not in unmatched.out


async def test_inventories_belong_to_the_default_tenant_and_not_to_relying_parties(tmp_path, clock):
    async with verifier_with(tmp_path, clock, "certificate,token") as (verifier, file):
        file.put("web-1", VM, Guest.booted(verifier, 1))
        await sync(verifier)
        other = await verifier.token(Scope.ADMIN, tenant="other")
        for path, member in (
            ("", "sources"),
            ("/machines", "machines"),
            ("/events", "events"),
            ("/guests", "guests"),
        ):
            answer = await verifier.call("GET", f"/v1/inventory{path}", token=other)
            assert (answer.status, answer.json[member]) == (200, [])
            assert (await verifier.get(f"/v1/inventory{path}", Scope.RELYING_PARTY)).code == "forbidden"
        assert (await verifier.post("/v1/inventory/sync", {}, scope=Scope.DASHBOARD)).code == "forbidden"


async def test_without_an_inventory_the_answers_are_empty_and_say_what_to_do(tmp_path, clock):
    async with running(settings_for(tmp_path), clock) as verifier:
        guest = await verifier.guest()
        assert (await verifier.get("/v1/inventory")).json["sources"] == []
        assert "inventory" not in (await verifier.get(f"/v1/attesters/{guest.attester_id}")).json
        shown = await verifier.attestctl("inventory")
        assert shown.code == 0
        assert "next: [[inventory]] in the verifier's settings" in shown.out
