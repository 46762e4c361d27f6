"""Trust anchors over the API: who may change them, what a change does to the next enrolment, on which replica."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from contextlib import AsyncExitStack

import pytest

from tests import pki
from tests.harness import Guest, Harness, b64, running, settings_for
from tests.simulator import SoftwareCa
from tests.unit.crypto.test_aia import at as aia_at
from tests.unit.inventory.test_anchor_files import vmca_download, zipped
from tests.unit.inventory.test_issuer_fetch import serving
from verifier.crypto.keys import public_key
from verifier.ports import Scope
from verifier.tcg.public import parse_public

CA = SoftwareCa()
BINARY = {"Content-Type": "application/octet-stream"}


def bundle(*ders: bytes) -> bytes:
    return b"".join(pki.pem("CERTIFICATE", der) for der in ders)


@pytest.fixture
def untrusting(tmp_path):
    """Settings that name no trust anchor."""
    (tmp_path / "nothing").mkdir()
    return settings_for(tmp_path, TRUST_ANCHORS=str(tmp_path / "nothing"))


@pytest.fixture
async def verifier(untrusting):
    async with running(untrusting) as harness:
        yield harness


async def put(verifier: Harness, query: str, data: bytes, scope: Scope = Scope.OPERATOR):
    return await verifier.call("POST", f"/v1/trust-anchors?{query}", data=data, headers=BINARY, scope=scope)


async def begin(verifier: Harness):
    guest = Guest.booted(verifier)
    token = await verifier.token(Scope.JOIN)
    return await verifier.post("/v1/enrollments", guest.enrollment(token))


async def test_an_imported_anchor_counts_at_the_next_enrolment_and_a_removed_one_no_longer(verifier):
    refused = await begin(verifier)
    assert (refused.status, refused.code) == (403, "ek-certificate-untrusted")
    made = await put(verifier, "set=lab", bundle(*CA.anchors_der))
    assert (made.status, len(made.json["added"]), made.json["purposes"]) == (200, 1, ["ek"])
    assert (await begin(verifier)).status == 201
    fingerprint = made.json["added"][0]["sha256"]
    gone = await verifier.call("DELETE", f"/v1/trust-anchors/{fingerprint[:16]}", scope=Scope.OPERATOR)
    assert gone.json["removed"] == [{"set": "lab", "digest": made.json["digest"], "sha256": fingerprint}]
    assert (await begin(verifier)).code == "ek-certificate-untrusted"


async def test_anchors_for_aks_do_not_vouch_for_eks(verifier):
    made = await put(verifier, "set=lab&purposes=ak,device", bundle(*CA.anchors_der))
    assert made.json["purposes"] == ["ak", "device"]
    assert (await begin(verifier)).code == "ek-certificate-untrusted"


async def test_another_replica_and_the_command_line_need_no_restart(untrusting):
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(untrusting))
        second = await stack.enter_async_context(running(untrusting))
        assert (await begin(second)).code == "ek-certificate-untrusted"
        await put(first, "set=lab", bundle(*CA.anchors_der))
        assert (await begin(second)).status == 201
        environment = {**os.environ, "VTPM_ATTEST_VERIFIER_STATE_DIR": str(untrusting.state_dir)}
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from verifier.cli.attest_verifier import main; main()",
            "anchors", "remove", "lab", env=environment,
        )  # fmt: skip
        assert await command.wait() == 0
        for replica in (first, second):
            assert (await begin(replica)).code == "ek-certificate-untrusted"


async def test_vmcas_archive_with_its_revocation_lists(verifier):
    made = await put(verifier, "set=vcenter-1", zipped(vmca_download()))
    assert (made.status, len(made.json["added"]), made.json["crls_added"]) == (200, 2, 1)
    (listed,) = (await verifier.get("/v1/trust-anchors")).json["sets"]
    assert (listed["name"], listed["anchors"], listed["crls"]) == ("vcenter-1", 2, 1)
    one = (await verifier.get("/v1/trust-anchors/vcenter-1")).json
    assert {anchor["subject"] for anchor in one["anchors"]} == {"CN=Root"}
    assert one["crls"][0]["issuer"] == "CN=Root"
    assert one["crls"][0]["revoked"] == 1


async def test_a_revocation_list_refuses_the_next_enrolment(verifier):
    lab, guest = pki.Ca.root("Lab"), Guest.booted(verifier)
    certificate = lab.ek(public_key(parse_public(guest.tpm.ek_public)))
    await put(verifier, "set=lab", bundle(lab.der))
    body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[b64(certificate)])
    assert (await verifier.post("/v1/enrollments", body)).status == 201
    await put(verifier, "set=lab&mode=add", pki.crl(lab, (77,)))
    refused = await verifier.post("/v1/enrollments", body)
    assert (refused.status, refused.code) == (403, "ek-certificate-revoked")


async def test_a_dry_run_changes_nothing(verifier):
    before = verifier.rows()
    said = await put(verifier, "set=lab&dry_run=true", bundle(*CA.anchors_der) + bundle(pki.Ca.root().ek()))
    assert (said.status, said.json["dry_run"], len(said.json["added"])) == (200, True, 1)
    assert "not a CA" in said.json["rejected"][0]["problem"]
    assert verifier.rows()["anchor_assignment"] == before["anchor_assignment"] == 0
    assert verifier.rows()["anchor_set"] == 0


async def test_a_taken_name_is_a_conflict_unless_told_what_to_do(verifier):
    first, second = bundle(pki.Ca.root("One").der), bundle(pki.Ca.root("Two").der)
    await put(verifier, "set=lab", first)
    taken = await put(verifier, "set=lab", second)
    assert (taken.status, taken.code) == (409, "conflict")
    added = await put(verifier, "set=lab&mode=add", second)
    assert (len(added.json["added"]), added.json["kept"]) == (1, 1)
    replaced = await put(verifier, "set=lab&mode=replace", second)
    assert (len(replaced.json["dropped"]), replaced.json["kept"]) == (1, 1)
    assert replaced.json["replaced"] == added.json["digest"]


@pytest.mark.parametrize(
    ("query", "data", "status", "code"),
    [
        ("", b"x", 400, "malformed-request"),
        ("set=a%20b", b"x", 400, "malformed-request"),
        ("set=a&purposes=tls", b"x", 400, "malformed-request"),
        ("set=a&mode=merge", b"x", 400, "malformed-request"),
        ("set=a", b"", 422, "anchors-refused"),
        ("set=a", b"hello", 422, "anchors-refused"),
        ("set=a", pki.Ca.root().ek(), 422, "anchors-refused"),
        ("set=a", b"PK\x03\x04 damaged", 400, "malformed-structure"),
        ("set=a", b"MSCF damaged", 400, "malformed-structure"),
        ("set=" + "ab" * 10, bundle(CA.anchors_der[0]), 422, "anchors-refused"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_nothing_is_stored(verifier, query, data, status, code):
    await verifier.token(Scope.OPERATOR)
    answer = await put(verifier, query, data)
    assert (answer.status, answer.code) == (status, code)
    assert verifier.rows()["anchor_set"] == 0


async def test_only_operators_change_and_only_settings_change_what_settings_name(tmp_path):
    async with running(settings_for(tmp_path)) as verifier:
        for scope in (Scope.AUDITOR, Scope.DASHBOARD, Scope.RELYING_PARTY):
            assert (await put(verifier, "set=a", b"x", scope)).code == "forbidden"
        (listed,) = (await verifier.get("/v1/trust-anchors")).json["sets"]
        assert (listed["name"], "assigned_by" in listed) == ("settings:ek", False)
        for key in ("settings:ek", hashlib.sha256(CA.anchors_der[0]).hexdigest()):
            kept = await verifier.call("DELETE", f"/v1/trust-anchors/{key}", scope=Scope.ADMIN)
            assert (kept.status, kept.code) == (409, "conflict")
        gone = await verifier.call("DELETE", "/v1/trust-anchors/nobody", scope=Scope.ADMIN)
        assert (gone.status, gone.code) == (404, "not-found")


async def test_another_tenants_anchors_are_neither_seen_nor_trusted(verifier):
    stranger = await verifier.token(Scope.ADMIN, tenant="other")
    made = await verifier.call(
        "POST", "/v1/trust-anchors?set=lab", data=bundle(*CA.anchors_der), headers=BINARY, token=stranger
    )
    assert made.status == 200
    assert (await verifier.get("/v1/trust-anchors")).json == {"sets": []}
    assert (await verifier.get("/v1/trust-anchors/lab")).status == 404
    assert (await begin(verifier)).code == "ek-certificate-untrusted"


@pytest.mark.parametrize("listed", [False, True])
async def test_a_missing_issuer_is_fetched_where_that_is_allowed_and_nowhere_else(tmp_path, listed):
    """The machine brings its certificate alone; the certificate says where its issuer's is."""
    root = pki.Ca.root("Fetched Root")
    middle = root.below("Fetched Middle")
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "root.der").write_bytes(root.der)
    async with serving() as server:
        server.body = middle.der
        changes = {"TRUST_FETCH_HOSTS": f"127.0.0.1:{server.port}", "TRUST_FETCH_PRIVATE": "true"}
        settings = settings_for(
            tmp_path, TRUST_ANCHORS=str(tmp_path / "roots"), **(changes if listed else {})
        )
        async with running(settings) as verifier:
            guest = Guest.booted(verifier)
            where = aia_at(server.url("issuer"))
            key = public_key(parse_public(guest.tpm.ek_public))
            certificate = middle.ek(key, extra=(where,))
            body = guest.enrollment(await verifier.token(Scope.JOIN), ek_certificates=[b64(certificate)])
            answer = await verifier.post("/v1/enrollments", body)
        if listed:
            assert answer.status == 201, answer.content
            assert server.asked == ["/issuer"]
        else:
            assert (answer.status, answer.code) == (403, "ek-certificate-untrusted")
            assert server.asked == []
