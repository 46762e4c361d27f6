"""The transparency log over the API: what a relying party is shown proves itself, and shows nothing of other tenants."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness import running, settings_for
from verifier import main
from verifier.errors import LogDamagedError
from verifier.ports import Scope
from verifier.store.schema_log import log_tile
from verifier.transparency import checkpoint, cosignature
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey

PARTY = Scope.RELYING_PARTY


def keys(verifier):
    """As `attest-verifier keys log` prints them."""
    return [VerifierKey.parse(one.key) for one in main.log_keys_of(verifier.service.settings)]


async def extend(verifier):
    verifier.clock.advance(seconds=2)  # one checkpoint a second is enough
    return await verifier.service.services.sequencer.extend()


async def state(verifier, query=""):
    answer = await verifier.get(f"/v1/log/checkpoint{query}", PARTY)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    return checkpoint.opened(answer.content, keys(verifier)).checkpoint


async def test_a_relying_party_has_a_verdict_proven(verifier):
    guest = await verifier.guest()
    shown = (await guest.attest()).json["verdict"]
    await extend(verifier)
    answer = await verifier.get(f"/v1/log/proof/inclusion?attester={guest.attester_id}", PARTY)
    proven = Bundle.parse(answer.content).proven(keys(verifier))
    assert (proven.entry.attester_id, proven.entry.policy_id) == (guest.attester_id, shown["policy"]["id"])
    old = await state(verifier)
    await guest.attest()
    await extend(verifier)
    new = await state(verifier)
    grown = await verifier.get(f"/v1/log/proof/consistency?from={old.size}&to={new.size}", PARTY)
    Consistency.parse(grown.content).prove(old, new)
    assert (await verifier.get(f"/v1/log/proof/consistency?from={old.size}", PARTY)).json == grown.json
    assert await state(verifier, f"?size={old.size}") == old
    tile = await verifier.get(f"/v1/log/tile/0/000.p/{new.size}", PARTY)
    assert (len(tile.content), tile.headers["Content-Type"]) == (32 * new.size, "application/octet-stream")


async def test_entries_of_the_audit_log_are_for_auditors(verifier):
    await verifier.guest()
    await extend(verifier)
    newest = (await verifier.get("/v1/audit", Scope.AUDITOR)).json["entries"][0]
    path = f"/v1/log/proof/inclusion?audit={newest['sequence']}"
    await extend(verifier)
    assert (await verifier.get(path, PARTY)).code == "forbidden"
    proven = Bundle.parse((await verifier.get(path, Scope.AUDITOR)).content).proven(keys(verifier))
    assert proven.entry.action == newest["action"]


async def test_another_tenant_is_shown_hashes_and_no_entry(verifier):
    guest = await verifier.guest()
    await guest.attest()
    await extend(verifier)
    foreign = await verifier.token(Scope.AUDITOR, tenant="other")
    for query in (f"attester={guest.attester_id}", "audit=1"):
        answer = await verifier.call("GET", f"/v1/log/proof/inclusion?{query}", token=foreign)
        assert (answer.status, answer.code) == (404, "not-found")
    assert (await verifier.call("GET", "/v1/log/checkpoint", token=foreign)).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("proof/inclusion", 400),
        ("proof/inclusion?attester=a&audit=1", 400),
        ("proof/inclusion?sequence=1", 400),
        ("proof/inclusion?attester=nobody", 404),
        ("proof/inclusion?audit=9223372036854775807", 404),
        ("proof/consistency", 400),
        ("proof/consistency?from=1&to=0", 400),
        ("proof/consistency?from=999", 400),
        ("proof/consistency?from=null", 400),
        ("checkpoint?size=999", 404),
        ("checkpoint?cosigned=true", 404),
        ("tile/0/999", 404),
        ("tile/0/x", 400),
        ("tile/0/..%2f000", 400),
        ("tile/99/000", 400),
        ("tile/0/" + "x001/" * 40 + "000", 400),
    ],
)
async def test_what_is_not_there_or_asked_wrongly_is_said(verifier, path, status):
    await verifier.guest()
    await extend(verifier)
    answer = await verifier.get(f"/v1/log/{path}")
    assert (answer.status, answer.code) == (status, {400: "malformed-request", 404: "not-found"}[status])


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/0/000", "proof/consistency?from=0", "proof/inclusion?audit=1"]
)
async def test_the_log_is_for_callers_that_are_known(verifier, path):
    assert (await verifier.call("GET", f"/v1/log/{path}", token=None)).status == 401


async def test_a_witness_cosigns_over_the_api(tmp_path, clock):
    witness = KeySigner("witness.example", Ed25519PrivateKey.generate(), Algorithm.COSIGNATURE_V1)
    settings = settings_for(tmp_path, TRANSPARENCY_WITNESSES=witness.key.encode())
    async with running(settings, clock) as verifier:
        await verifier.guest()
        await extend(verifier)
        note = Note.parse((await verifier.get("/v1/log/checkpoint", PARTY)).content)
        line = cosignature.cosign(note.text, witness, 1_800_000_000)
        body = Note(note.text, (*note.signatures, line)).encode()
        text = {"headers": {"Content-Type": "text/plain"}, "data": body}
        answer = await verifier.call("POST", "/v1/log/cosignatures", scope=PARTY, **text)
        assert (answer.status, answer.json) == (200, {"witnesses": ["witness.example"]})
        kept = await verifier.get("/v1/log/checkpoint?cosigned=true", PARTY)
        assert cosignature.cosigned(Note.parse(kept.content), [witness.key])
        bad = {"headers": {"Content-Type": "text/plain"}, "data": "no note"}
        answer = await verifier.call("POST", "/v1/log/cosignatures", scope=PARTY, **bad)
        assert (answer.status, answer.code) == (400, "malformed-request")


@pytest.mark.parametrize("required", [False, True])
async def test_a_damaged_log_is_told_and_stops_verdicts_only_where_it_has_to(tmp_path, clock, required):
    settings = settings_for(tmp_path, TRANSPARENCY_REQUIRED=str(required).lower())
    async with running(settings, clock) as verifier:
        guest = await verifier.guest()
        await guest.attest()
        await extend(verifier)
        write = verifier.service.store._backend.write
        (tile,) = await write(lambda connection: connection.execute(log_tile.select()).all())
        await write(
            lambda connection: connection.execute(log_tile.update().values(hashes=bytes(32))) and None
        )
        await guest.attest()
        with pytest.raises(LogDamagedError):
            await extend(verifier)
        assert (await guest.attest()).status == (503 if required else 200)
        assert (await verifier.get("/readyz")).status == (503 if required else 200)
        assert "vtpm_attest_log_damaged 1.0" in (await verifier.get("/metrics")).content.decode()
        told = await verifier.get("/v1/audit?subject=log", Scope.AUDITOR)
        assert [one["action"] for one in told.json["entries"]] == ["log.damaged"]
        await write(lambda c: c.execute(log_tile.update().values(hashes=tile.hashes)) and None)
        assert await extend(verifier)
        assert (await guest.attest()).status == 200
        assert "vtpm_attest_log_damaged 0.0" in (await verifier.get("/metrics")).content.decode()


async def test_a_running_service_signs_by_itself_what_it_said(verifier):
    task = asyncio.create_task(verifier.service.services.sequencer.run())
    try:
        guest = await verifier.guest()
        await guest.attest()
        verifier.clock.advance(seconds=2)
        answer = await verifier.get(f"/v1/log/proof/inclusion?attester={guest.attester_id}", PARTY)
        assert Bundle.parse(answer.content).proven(keys(verifier)).entry.sequence == 1
    finally:
        task.cancel()


async def test_an_audit_of_a_doctored_database_is_one_document_with_json(verifier, tmp_path):
    guest = await verifier.guest()
    await guest.attest()
    await extend(verifier)
    key = tmp_path / "log.vkey"
    key.write_text(main.log_keys_of(verifier.service.settings)[0].key)
    database = verifier.service.settings.database_url
    arguments = ("audit", "verify", "--database", database, "--key", key, "--json")
    assert (await verifier.attestctl(*arguments)).code == 0
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE attestation SET tier = 1 - tier")
    done = await verifier.attestctl(*arguments)
    assert done.code == 2
    assert "attestation" in json.dumps(json.loads(done.out))
