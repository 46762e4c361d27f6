"""From a vCenter to an enrolment: an endpoint that speaks the vSphere API, and the service over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.e2e.test_http_inventory import begin, ek_of, prove, sync
from tests.harness import Guest, running, settings_for
from tests.vsphere_endpoint import Endpoint, make_tls
from tests.vsphere_endpoint.estate import vtpm
from verifier.ports import Scope

PASSWORD = "correct horse battery"
USER = "reader@vsphere.local"


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def vcenter(tls):
    with Endpoint(tls, login=(USER, PASSWORD)) as endpoint:
        yield endpoint


def toml(folder, *vcenters: Endpoint) -> str:
    """Settings that reach them."""
    (folder / "password").write_text(PASSWORD)
    return "\n".join(
        f'[[inventory]]\nkind = "vsphere"\nname = "dc{number}"\nhost = "127.0.0.1"\nport = {one.port}\n'
        f'user = "{USER}"\npassword_file = "{folder / "password"}"\nca_file = "{one.tls.ca}"\nwait = "1s"\nretry = "1s"\n'
        for number, one in enumerate(vcenters, 1)
    )


@asynccontextmanager
async def following(folder, clock, *vcenters: Endpoint, methods: str = "inventory"):
    settings = settings_for(folder, toml(folder, *vcenters), ENROLLMENT_METHODS=methods)
    async with running(settings, clock) as verifier:
        await eventually(lambda: current(verifier))
        yield verifier


async def eventually(found):
    async with asyncio.timeout(30):
        while not (answer := await found()):
            await asyncio.sleep(0.05)
        return answer


async def current(verifier) -> bool:
    sources = (await verifier.get("/v1/inventory")).json["sources"]
    return all("synced_at" in one and "problem" not in one for one in sources)


def machine_of(vcenter: Endpoint, guest: Guest, name: str = "web-1"):
    """A virtual machine with the guest's TPM; its EK is the second of those that are listed."""
    machine = vcenter.estate.add(name, tpm=False)
    machine.config.hardware.device = [vtpm(vcenter.estate.ek_certificate(), guest.tpm.ek_certificate)]
    vcenter.estate.touch(machine)
    return machine


async def listed(verifier, guest: Guest, name: str):
    found = (await verifier.get(f"/v1/inventory/machines?search={ek_of(guest)}")).json["machines"]
    return any(one["name"] == name for one in found)


async def test_a_vtpm_enrols_as_the_machine_it_is_in_and_as_no_other(tmp_path, clock, vcenter):
    async with following(tmp_path, clock, vcenter) as verifier:
        guest, stranger = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        web, other = machine_of(vcenter, guest), vcenter.estate.add("other")
        await eventually(lambda: listed(verifier, guest, "web-1"))
        for who, machine in ((guest, other), (stranger, web)):
            refused = await begin(who, machine.config.uuid)
            assert (refused.status, refused.code) == (403, "inventory-disagrees")
        enrolled = (await prove(guest, web.config.uuid)).json
        assert enrolled["status"] == "enrolled"
        shown = (await verifier.get(f"/v1/attesters/{enrolled['attester_id']}")).json
        assert shown["inventory"]["machine"] == f"dc1/{web.moid}"
        guest.attester_id = enrolled["attester_id"]
        assert (await guest.attest()).json["verdict"]["status"] == "affirming"
        text = await verifier.attestctl("attester", guest.attester_id)
        assert "inventory now" in text.out


async def test_a_vtpm_that_is_replaced_there_takes_its_machines_place_without_a_person(
    tmp_path, clock, vcenter
):
    async with following(tmp_path, clock, vcenter) as verifier:
        old, new = Guest.booted(verifier, 1), Guest.booted(verifier, 2)
        web = machine_of(vcenter, old)
        await eventually(lambda: listed(verifier, old, "web-1"))
        first = (await prove(old, web.config.uuid)).json["attester_id"]
        assert (await prove(new, web.config.uuid)).json["code"] == "identity-replaced"
        web.config.hardware.device = [vtpm(new.tpm.ek_certificate)]
        vcenter.estate.touch(web)
        await eventually(lambda: listed(verifier, new, "web-1"))
        second = (await prove(new, web.config.uuid)).json["attester_id"]
        gone = (await verifier.get(f"/v1/attesters/{first}")).json
        assert (gone["lifecycle"], gone["replaced_by"]) == ("retired", second)


async def test_a_clone_with_its_vtpm_is_told_and_neither_enrols(tmp_path, clock, vcenter):
    async with following(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = machine_of(vcenter, guest)
        await eventually(lambda: listed(verifier, guest, "web-1"))
        attester = (await prove(guest, web.config.uuid)).json["attester_id"]
        copy = vcenter.estate.clone(web, "web-copy")
        await eventually(lambda: listed(verifier, guest, "web-copy"))
        refused = await begin(guest.copied(), copy.config.uuid)
        assert (refused.status, refused.code) == (403, "inventory-disagrees")
        told = (await verifier.get(f"/v1/attesters/{attester}")).json["inventory"]
        assert told["outcome"] == "ek-on-several-machines"
        assert told["others"] == [f"dc1/{copy.moid}"]
        events = await eventually(lambda: clones(verifier))
        assert [(one["machine"]["name"], one["origin"]["name"]) for one in events] == [("web-copy", "web-1")]


async def clones(verifier):
    events = (await verifier.get("/v1/inventory/events")).json["events"]
    return [one for one in events if one["kind"] == "cloned"]


async def test_a_vcenter_that_is_down_is_believed_for_a_while_and_no_longer(tmp_path, clock, vcenter):
    async with following(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = machine_of(vcenter, guest)
        await eventually(lambda: listed(verifier, guest, "web-1"))
        vcenter.stop()
        await eventually(lambda: failing(verifier))
        assert (await begin(guest, web.config.uuid)).status == 201
        clock.advance(minutes=16)
        refused = await begin(guest, web.config.uuid)
        assert (refused.status, refused.code) == (403, "inventory-disagrees")
        assert refused.json["detail"].startswith("not current: dc1.")
        shown = await verifier.attestctl("inventory")
        assert (shown.code, "no connection" in shown.out) == (1, True)
        vcenter.start()
        await sync(verifier)
        await eventually(lambda: current(verifier))
        assert (await prove(guest, web.config.uuid)).json["status"] == "enrolled"


async def failing(verifier):
    return not await current(verifier)


async def test_one_of_two_vcenters_that_is_down_from_the_start_stops_neither_the_other_nor_the_service(
    tmp_path, clock, vcenter, tls
):
    south = Endpoint(tls, login=(USER, PASSWORD)).start()
    south.stop()
    async with running(settings_for(tmp_path, toml(tmp_path, vcenter, south)), clock) as verifier:
        guest = Guest.booted(verifier, 1)
        machine_of(vcenter, guest)
        await eventually(lambda: listed(verifier, guest, "web-1"))
        one, two = await eventually(lambda: told_of_both(verifier))
        assert (one["stale"], two["stale"], two["machines"]) == (False, True, 0)
        text = (await verifier.get("/metrics")).content.decode()
        assert 'vtpm_attest_inventory_age_seconds{source="dc2"} +Inf' in text


async def told_of_both(verifier):
    """Once the first is whole and the second was tried."""
    one, two = (await verifier.get("/v1/inventory")).json["sources"]
    return (one, two) if "synced_at" in one and "no connection" in two["problem"] else None


async def test_the_password_is_in_no_answer_and_no_log(tmp_path, clock, vcenter, log):
    vcenter.service.login = (USER, "another")
    settings = settings_for(tmp_path, toml(tmp_path, vcenter), ENROLLMENT_METHODS="inventory")
    async with running(settings, clock) as verifier:
        await eventually(lambda: refuses(verifier))
        told = [(await verifier.get(path)).content for path in ("/v1/inventory", "/metrics", "/openapi.json")]
        shown = await verifier.attestctl("inventory", scope=Scope.OPERATOR)
    assert vcenter.service.attempts == [PASSWORD]
    for text in (*(one.decode() for one in told), shown.out, shown.err, log.getvalue(), repr(settings)):
        assert PASSWORD not in text
    assert "inventory.failed" in log.getvalue()


async def refuses(verifier):
    (source,) = (await verifier.get("/v1/inventory")).json["sources"]
    return source.get("problem") == "vCenter dc1: it refuses the user name or the password"
