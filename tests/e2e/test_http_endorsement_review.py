"""Machines enrolled under what is trusted no longer: found, told once, and left to people."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests import pki
from tests.harness import FakeClock, Guest, Harness, b64, running, settings_for
from tests.simulator.ca import SoftwareCa
from verifier.crypto.keys import public_key
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.settings import Settings
from verifier.tcg.public import parse_public

BINARY = {"Content-Type": "application/octet-stream"}
LAB = pki.Ca.root("Lab")
MIDDLE = LAB.below("Lab Middle")


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "nothing").mkdir()
    return settings_for(tmp_path, TRUST_ANCHORS=str(tmp_path / "nothing"))


async def put(verifier: Harness, data: bytes, query: str = "set=lab") -> None:
    answer = await verifier.call(
        "POST", f"/v1/trust-anchors?{query}", data=data, headers=BINARY, scope=Scope.OPERATOR
    )
    assert answer.status == 200, answer.content


async def enrolled(verifier: Harness, seed: int, ca: pki.Ca = LAB, **changes) -> str:
    """A machine whose EK this CA certified; its attester id."""
    guest = Guest.booted(verifier, seed)
    key = public_key(parse_public(guest.tpm.ek_public))
    body = guest.enrollment(
        await verifier.token(Scope.JOIN),
        ek_certificates=[b64(ca.ek(key, serial=100 + seed, **changes))],
        **({} if ca is LAB else {"ek_chain": [b64(ca.der)]}),
    )
    begun = await verifier.post("/v1/enrollments", body)
    assert begun.status == 201, begun.content
    return (await guest.activate(begun.json)).json["attester_id"]


async def review(verifier: Harness) -> dict[str, str]:
    lost = await verifier.service.services.endorsements.review(DEFAULT_TENANT)
    return {one.attester_id: one.reason.value for one in lost}


async def told(verifier: Harness) -> list[tuple[str, str]]:
    await verifier.service.services.endorsements.tell(DEFAULT_TENANT)
    entries = (await verifier.get("/v1/audit?limit=100")).json["entries"]
    return [
        (one["subject"], one["detail"]["code"])
        for one in reversed(entries)
        if one["action"] == "endorsement.lost"
    ]


async def test_a_list_that_comes_in_names_the_machine_it_revokes(settings):
    async with running(settings) as verifier:
        await put(verifier, LAB.der)
        good, bad = await enrolled(verifier, 1), await enrolled(verifier, 2)
        assert await told(verifier) == []
        await put(verifier, pki.crl(LAB, (102,)), "set=lab&mode=add")
        assert await review(verifier) == {bad: "ek-certificate-revoked"}
        assert await told(verifier) == [(bad, "ek-certificate-revoked")]
        assert await told(verifier) == [(bad, "ek-certificate-revoked")]  # once
        metrics = (await verifier.get("/metrics")).content.decode()
        assert 'vtpm_attest_endorsements_lost{code="ek-certificate-revoked"} 1.0' in metrics
        await verifier.call("POST", f"/v1/attesters/{bad}/revoke", scope=Scope.OPERATOR)
        assert await review(verifier) == {}
        assert good not in dict(await told(verifier))


async def test_a_removed_anchor_leaves_its_machines_and_names_them(settings):
    async with running(settings) as verifier, running(settings) as replica:
        await put(verifier, LAB.der)
        machine = await enrolled(verifier, 1)
        await put(verifier, pki.Ca.root("Other").der, "set=other")
        assert await review(verifier) == {}
        await verifier.call("DELETE", "/v1/trust-anchors/lab", scope=Scope.OPERATOR)
        assert await review(verifier) == {machine: "ek-certificate-untrusted"}
        await asyncio.gather(told(verifier), told(replica))
        assert await told(verifier) == [(machine, "ek-certificate-untrusted")]
        await put(verifier, LAB.der)
        assert await review(verifier) == {}


async def test_a_certificate_that_has_ended_is_found_when_a_day_has_gone_by(settings):
    clock = FakeClock()
    end = pki.time(clock.now().replace(year=clock.now().year + 1))
    async with running(settings, clock) as verifier:
        await put(verifier, LAB.der)
        machine = await enrolled(verifier, 1, not_after=end)
        assert await told(verifier) == []
        clock.advance(days=367)
        assert await told(verifier) == [(machine, "ek-certificate-expired")]


async def test_a_machine_that_brought_its_own_intermediates_is_not_accused(settings):
    async with running(settings) as verifier:
        await put(verifier, LAB.der)
        machine = await enrolled(verifier, 1, MIDDLE)
        assert await review(verifier) == {}
        await verifier.call("DELETE", "/v1/trust-anchors/lab", scope=Scope.OPERATOR)
        assert await review(verifier) == {machine: "ek-certificate-untrusted"}


async def test_the_command_lists_them(settings):
    async with running(settings) as verifier:
        await put(verifier, LAB.der)
        machine = await enrolled(verifier, 1)
        environment = {**os.environ, "VTPM_ATTEST_VERIFIER_STATE_DIR": str(settings.state_dir)}

        async def command(*arguments: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from verifier.cli.attest_verifier import main; main()",
                "anchors", "review", *arguments, env=environment, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
            return process.returncode, out.decode()

        assert await command("--json") == (0, "[]\n")
        await put(verifier, pki.crl(LAB, (101,)), "set=lab&mode=add")
        code, out = await command("--json")
        assert code == 2
        (one,) = json.loads(out)
        assert (one["attester_id"], one["code"]) == (machine, "ek-certificate-revoked")
        code, out = await command()
        assert (code, machine in out) == (2, True)


def cloud_settings(tmp_path: Path) -> Settings:
    """Machines are known by certificates of their AKs."""
    (tmp_path / "nothing").mkdir()
    more = '[enrollment]\nmethods = ["ak-certificate", "token"]'
    return settings_for(tmp_path, more, TRUST_ANCHORS=str(tmp_path / "nothing"))


async def known_by_ak(verifier: Harness, cloud: SoftwareCa) -> str:
    """Enrol a machine whose AK a CA of this cloud vouches for; its attester id."""
    await put(verifier, cloud.anchors_der[0], "set=cloud&purposes=ak")
    guest = Guest.booted(verifier, 9)
    certificate = cloud.issue_ak(public_key(parse_public(guest.tpm.ak_public)))
    token = await verifier.token(Scope.JOIN)
    body = guest.enrollment(token, ek_certificates=[], ak_certificates=[b64(certificate)])
    begun = await verifier.post("/v1/enrollments", body)
    assert begun.status == 201, begun.content
    return str((await guest.activate(begun.json)).json["attester_id"])


async def test_an_anchor_of_aks_that_is_removed_names_the_machines_below_it(tmp_path):
    async with running(cloud_settings(tmp_path)) as verifier:
        attester = await known_by_ak(verifier, SoftwareCa("cloud", name="A cloud's AK CA"))
        assert await review(verifier) == {}
        await put(verifier, LAB.der, "set=cloud&mode=replace&purposes=ak")
        assert await review(verifier) == {attester: "ek-certificate-untrusted"}
        assert await told(verifier) == [(attester, "ek-certificate-untrusted")]


async def test_a_certificate_of_an_ak_that_has_ended_is_found(tmp_path):
    clock = FakeClock()
    async with running(cloud_settings(tmp_path), clock) as verifier:
        attester = await known_by_ak(verifier, SoftwareCa("cloud", name="A cloud's AK CA"))
        assert await told(verifier) == []
        clock.advance(days=100 * 366)
        assert await told(verifier) == [(attester, "ek-certificate-expired")]
