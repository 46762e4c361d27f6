"""What a vCenter tells becomes part of verdicts, of the history of machines, and of the audit log."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.eventually import eventually
from tests.harness import POLICY, Guest, Harness, running, settings_for
from tests.vsphere_endpoint import Endpoint, make_tls
from tests.vsphere_endpoint.estate import Machine, vtpm
from verifier.inventory.eks import certificate_fingerprint
from verifier.ports import Scope

USER, PASSWORD = "reader@vsphere.local", "correct horse"
RULE = """\
  - id: listed
    severity: contraindicated
    claim: instance-identity
    cel: "identity.inventory.outcome == 'match'"
"""
DEMANDING = POLICY.replace("unjudged:", RULE + "unjudged:")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def vcenter(tls):
    with Endpoint(tls, login=(USER, PASSWORD)) as endpoint:
        yield endpoint


@contextlib.asynccontextmanager
async def followed(folder, clock, vcenter: Endpoint) -> AsyncIterator[Harness]:
    (folder / "password").write_text(PASSWORD)
    source = (
        f'[[inventory]]\nkind = "vsphere"\nname = "north"\nhost = "127.0.0.1"\nport = {vcenter.port}\n'
        f'user = "{USER}"\npassword_file = "{folder / "password"}"\n'
        f'thumbprint = "{vcenter.tls.thumbprint.hex(":")}"\nwait = "1s"\nretry = "1s"\n'
    )
    async with running(settings_for(folder, source), clock) as verifier:
        await eventually(lambda: current(verifier))
        yield verifier


async def current(verifier: Harness) -> bool:
    (source,) = (await verifier.get("/v1/inventory")).json["sources"]
    return "synced_at" in source and "problem" not in source


async def failing(verifier: Harness) -> bool:
    return not await current(verifier)


async def machine_of(verifier: Harness, vcenter: Endpoint, guest: Guest, name: str = "web") -> Machine:
    """A virtual machine with the guest's TPM, followed; the guest says what its firmware tells it."""
    made = vcenter.estate.add(name, tpm=False)
    made.config.hardware.device = [vtpm(vcenter.estate.ek_certificate(), guest.tpm.ek_certificate)]
    vcenter.estate.touch(made)
    guest.identity["smbios_uuid"] = made.config.uuid
    await eventually(lambda: events(verifier, "added", name))
    return made


async def events(verifier: Harness, kind: str, name: str):
    found = (await verifier.get(f"/v1/inventory/events?kind={kind}")).json["events"]
    return [one for one in found if one["machine"]["name"] == name]


async def findings(guest: Guest, code: str) -> list[dict]:
    verdict = await guest.speak()
    return [one for one in verdict["findings"] if one["code"] == code]


async def demand(verifier: Harness) -> None:
    """From now on the default policy demands that the inventory lists the machine."""
    headers = {"Content-Type": "application/yaml"}
    answer = await verifier.call(
        "POST", "/v1/policies", scope=Scope.OPERATOR, data=DEMANDING, headers=headers
    )
    assert answer.status == 201, answer.content


async def test_a_verdict_says_whose_the_tpm_is_and_a_policy_may_demand_it(tmp_path, clock, vcenter):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = await machine_of(verifier, vcenter, guest)
        stranger = await verifier.guest(2)
        await guest.enroll()
        await demand(verifier)
        verdict = await guest.speak()
        assert verdict["status"] == "affirming"
        (listed,) = [one for one in verdict["findings"] if one["code"] == "inventory-matches"]
        assert listed["message"] == f"endorsement key and SMBIOS UUID are those of web (north/{web.moid})"
        other = await stranger.speak()
        assert other["status"] == "contraindicated"
        assert [one["status"] for one in other["findings"] if one["code"] == "inventory-silent"] == [
            "not-evaluated"
        ]


async def test_an_inventory_that_is_out_of_date_is_told_of_and_not_believed(tmp_path, clock, vcenter):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        await machine_of(verifier, vcenter, guest)
        await guest.enroll()
        vcenter.stop()
        await eventually(lambda: failing(verifier))
        clock.advance(minutes=16)
        (stale,) = await findings(guest, "inventory-stale")
        assert stale["message"].startswith("not current: north.")
        assert (await guest.speak())["status"] == "affirming"  # nothing demands it
        await demand(verifier)
        verdict = await guest.speak()
        assert verdict["status"] == "none"
        assert [one["code"] for one in verdict["findings"] if one.get("rule") == "listed"] == [
            "claim-unproven"
        ]


async def test_a_clone_that_never_spoke_is_named_by_the_originals_verdict(tmp_path, clock, vcenter):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = await machine_of(verifier, vcenter, guest)
        await guest.enroll()
        assert (await guest.speak())["status"] == "affirming"
        copy = vcenter.estate.clone(web, "copy")
        await eventually(lambda: events(verifier, "cloned", "copy"))
        verdict = await guest.speak()
        assert verdict["status"] == "warning"
        told = {one["code"]: one["message"] for one in verdict["findings"]}
        assert f"copy (north/{copy.moid})" in told["inventory-shared-key"]
        assert told["inventory-event"].startswith(
            f"copy (north/{copy.moid}) was made as a copy of web (north/{web.moid}) at "
        )
        assert told["inventory-event"].endswith("its vTPM was copied")
        entry = await eventually(lambda: audited(verifier, guest.attester_id, "inventory.cloned"))
        assert (entry["actor"], entry["detail"]["origin"]) == ("inventory", f"north/{web.moid}")
        # Given a vTPM of its own, the copy is no longer one.
        vcenter.estate.replace_vtpm(copy)
        await eventually(lambda: events(verifier, "vtpm-replaced", "copy"))
        assert (await guest.speak())["status"] == "affirming"


async def audited(verifier: Harness, subject: str, action: str):
    entries = (await verifier.get(f"/v1/audit?subject={subject}")).json["entries"]
    return next((one for one in entries if one["action"] == action), None)


async def test_a_rollback_is_explained_by_the_revert_and_stays_so_until_it_is_resolved(
    tmp_path, clock, vcenter
):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = await machine_of(verifier, vcenter, guest)
        await guest.enroll()
        await guest.speak()
        vcenter.estate.take_snapshot(web, "before the upgrade")
        saved = guest.copied(running=True)
        saved.attester_id = guest.attester_id
        for _ in range(2):
            await guest.speak()
        vcenter.estate.revert(web, "before the upgrade")
        await eventually(lambda: events(verifier, "snapshot-reverted", "web"))
        for _ in range(2):
            verdict = await saved.speak()
            told = {one["code"]: one["message"] for one in verdict["findings"]}
            assert "rollback" in told
            assert "was reverted to snapshot 'before the upgrade'" in told["inventory-event"]
        assert await eventually(lambda: audited(verifier, guest.attester_id, "inventory.snapshot-reverted"))


async def test_a_replaced_vtpm_ends_the_old_ones_good_standing(tmp_path, clock, vcenter):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = await machine_of(verifier, vcenter, guest)
        await guest.enroll()
        vcenter.estate.replace_vtpm(web)
        await eventually(lambda: events(verifier, "vtpm-replaced", "web"))
        # Read right after it was enrolled: an inventory may be slower than a guest, and that is no contradiction.
        (early,) = await findings(guest, "inventory-stale")
        assert "right after, this TPM was enrolled" in early["message"]
        clock.advance(minutes=5)
        await verifier.post("/v1/inventory/sync", {}, scope=Scope.OPERATOR)
        await eventually(lambda: synced_since(verifier, clock))
        verdict = await guest.speak()
        assert verdict["status"] == "contraindicated"
        assert "inventory-key-replaced" in [one["code"] for one in verdict["findings"]]


async def synced_since(verifier: Harness, clock) -> bool:
    (source,) = (await verifier.get("/v1/inventory")).json["sources"]
    return source["synced_at"] >= clock.now().isoformat()[:19]


async def test_what_happened_while_the_verifier_was_down_is_noticed_when_it_is_back(tmp_path, clock, vcenter):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        web = await machine_of(verifier, vcenter, guest)
        gone = vcenter.estate.add("gone")
        await eventually(lambda: events(verifier, "added", "gone"))
        await guest.enroll()
        attester = guest.attester_id
        await eventually(lambda: kept(verifier, 2))
    vcenter.estate.replace_vtpm(web)
    vcenter.estate.remove(gone)
    late = vcenter.estate.add("late")
    async with followed(tmp_path, clock, vcenter) as verifier:
        (replaced,) = await eventually(lambda: events(verifier, "vtpm-replaced", "web"))
        assert certificate_fingerprint(guest.tpm.ek_certificate).hex() in replaced["before"]
        assert certificate_fingerprint(guest.tpm.ek_certificate).hex() not in replaced["after"]
        assert await eventually(lambda: events(verifier, "removed", "gone"))
        assert await eventually(lambda: events(verifier, "added", "late"))
        assert late.name == "late"
        # The history of before is there too, each event once.
        assert len(await events(verifier, "added", "gone")) == 1
        assert await eventually(lambda: audited(verifier, attester, "inventory.vtpm-replaced"))


async def kept(verifier: Harness, machines: int) -> bool:
    return verifier.rows()["inventory_machine"] == machines


async def test_a_verifier_that_starts_without_its_vcenter_knows_what_it_knew_and_that_it_is_old(
    tmp_path, clock, vcenter
):
    async with followed(tmp_path, clock, vcenter) as verifier:
        guest = Guest.booted(verifier, 1)
        await machine_of(verifier, vcenter, guest)
        await eventually(lambda: kept(verifier, 1))
        before = (await verifier.get("/v1/inventory")).json["sources"][0]["synced_at"]
    vcenter.stop()
    clock.advance(hours=1)
    settings = settings_for(tmp_path, (tmp_path / "verifier.toml").read_text())
    async with running(settings, clock) as verifier:
        (source,) = (await verifier.get("/v1/inventory")).json["sources"]
        assert (source["machines"], source["stale"]) == (1, True)
        assert source["synced_at"][:19] >= before[:19]
        (machine,) = (await verifier.get("/v1/inventory/machines")).json["machines"]
        assert (machine["name"], machine["stale"]) == ("web", True)
