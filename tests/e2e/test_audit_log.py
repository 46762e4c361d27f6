"""The transparency log as auditors and witnesses use it: attestctl against a verifier, and against its database alone."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from tests.e2e.test_http_log import extend, keys
from tests.harness import running, settings_for
from verifier import main
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Trust, moment
from verifier.ports import Scope
from verifier.transparency import cosignature
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey

TAMPERED = 2


class Auditor:
    """Somebody with a folder of his own, the log's key in it, and a token that reads."""

    def __init__(self, verifier, folder: Path) -> None:
        self.verifier, self.folder = verifier, folder
        (folder / "log.vkey").write_text("".join(f"{key.encode()}\n" for key in keys(verifier)))

    def file(self, name: str) -> Path:
        return self.folder / name

    async def audit(self, *words, code: int = 0):
        given = (*words, "--key", self.file("log.vkey"))
        done = await self.verifier.attestctl("audit", *given, scope=Scope.AUDITOR)
        assert done.code == code, (done.out, done.err)
        return done

    async def database(self, *words, path: Path | None = None, code: int = 0):
        url = f"sqlite:///{path or self.verifier.service.settings.state_dir / 'verifier.db'}"
        return (await self.audit("verify", "--database", url, "--json", *words, code=code)).json


@pytest.fixture
async def auditor(verifier, tmp_path):
    (tmp_path / "auditor").mkdir()
    return Auditor(verifier, tmp_path / "auditor")


async def lived(verifier, attestations: int = 4):
    """Two machines, a token that was given out and taken back, and verdicts."""
    guests = [await verifier.guest(number) for number in (1, 2)]
    made = await verifier.call(
        "POST", "/v1/tokens", scope=Scope.ADMIN, json={"scopes": ["dashboard"], "label": "wall"}
    )
    assert made.status == 201, made.json
    for _ in range(attestations):
        for guest in guests:
            assert (await guest.attest()).status == 200
        await extend(verifier)
    gone = await verifier.call("DELETE", f"/v1/tokens/{made.json['info']['id']}", scope=Scope.ADMIN)
    assert gone.status == 204
    await extend(verifier)
    return guests


def doctor(verifier, statement: str, *values) -> None:
    """What somebody does who has the file."""
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as connection:
        assert connection.execute(statement, values).rowcount


async def test_an_auditor_proves_a_verdict_and_a_decision_with_the_verifier_gone(verifier, auditor, tmp_path):
    guest, _ = await lived(verifier)
    found = await auditor.audit(
        "proof", guest.attester_id, "--sequence", "2", "--out", auditor.file("proof.json")
    )
    assert "proof.json: leaf " in found.out
    listed = (await verifier.attestctl("audit", "--json", scope=Scope.AUDITOR)).json["entries"]
    revoked = next(one for one in listed if one["action"] == "token.revoked")
    await auditor.audit(
        "proof", "--decision", str(revoked["sequence"]), "--out", auditor.file("decision.json")
    )
    done = await auditor.audit("verify", auditor.file("proof.json"), auditor.file("decision.json"), "--json")
    verdict, decision = (one["entry"] for one in done.json["proofs"])
    assert (verdict["attester_id"], verdict["sequence"], verdict["tier"]) == (guest.attester_id, 2, 0)
    assert (decision["action"], decision["subject"]) == ("token.revoked", revoked["subject"])


async def test_an_auditor_keeps_checkpoints_and_audits_a_running_database(verifier, auditor):
    guest, _ = await lived(verifier)
    kept = auditor.file("kept.txt")
    assert "the first one kept" in (await auditor.audit("checkpoint", "--keep", kept)).out
    await guest.attest()
    await extend(verifier)
    assert "grown out of the" in (await auditor.audit("checkpoint", "--keep", kept)).out
    await guest.attest()
    report = await auditor.database("--checkpoint", kept)
    assert report["findings"] == []
    assert (report["checked"]["verdicts"], report["waiting"]) == (10, 1), "the newest waits for its place"
    assert report["kept_checkpoint"] == report["log"]["size"]
    people = await auditor.audit(
        "verify", "--database", f"sqlite:///{verifier.service.settings.state_dir / 'verifier.db'}"
    )
    assert "nothing was changed or dropped" in people.out
    assert "1 rows wait for their place" in people.out


DOCTORED = {
    "tier": ("UPDATE attestation SET tier = 3 WHERE attester_id = ? AND sequence = 2", "attestation", "sequence 2"),
    "dropped": ("DELETE FROM attestation WHERE attester_id = ? AND sequence = 3", "attestation", "sequence 3"),
    "latest": ("UPDATE latest SET tier = 3 WHERE attester_id = ?", "latest", "sequence 4"),
    "decision": ("UPDATE audit SET actor = 'x' WHERE action = 'attester.enrolled' AND subject = ?", "audit", "enrolled"),
    "token": ("UPDATE token SET revoked_at = NULL WHERE label = 'wall' AND '' <> ?", "token", "tok-"),
    "policy": ("UPDATE policy SET source = source || '#' WHERE '' <> ?", "policy", "revision"),
    "judgement": ("UPDATE judgement SET content = x'00' WHERE '' <> ?", "judgement", "digest"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCTORED)
async def test_what_the_service_wrote_and_somebody_changed_is_named(verifier, auditor, case):
    guest, _ = await lived(verifier)
    statement, table, row = DOCTORED[case]
    doctor(verifier, statement, guest.attester_id)
    url = f"sqlite:///{verifier.service.settings.state_dir / 'verifier.db'}"
    report = await asyncio.to_thread(audit_database, url, Trust(keys(verifier)))
    first = report.findings.first(1)[0]
    assert first.table == table
    assert row in first.key
    assert moment(first.at) is not None
    if case == "tier":  # as it is shown
        shown = (await auditor.database(code=TAMPERED))["findings"][0]
        assert (shown["table"], shown["row"], shown["index"]) == (table, first.key, first.index)


async def test_a_database_that_was_put_back_is_found(verifier, auditor, tmp_path):
    guest, _ = await lived(verifier)
    with sqlite3.connect(verifier.service.settings.state_dir / "verifier.db") as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "old.db")])
    await guest.attest()
    await extend(verifier)
    kept = auditor.file("kept.txt")
    await auditor.audit("checkpoint", "--keep", kept)
    await auditor.database(path=tmp_path / "old.db")
    report = await auditor.database("--checkpoint", kept, path=tmp_path / "old.db", code=TAMPERED)
    assert "rolled back" in report["findings"][0]["problem"]


async def test_after_a_change_of_keys_old_and_new_one_prove_the_same(verifier):
    guest, _ = await lived(verifier, 1)
    (old,) = keys(verifier)
    await asyncio.to_thread(main.rotate_log_keys, verifier.service.settings, timedelta(days=1))
    await guest.attest()
    await extend(verifier)
    new, also = keys(verifier)
    assert also == old
    url = f"sqlite:///{verifier.service.settings.state_dir / 'verifier.db'}"
    for trusted in (old, new):
        report = await asyncio.to_thread(audit_database, url, Trust((trusted,)))
        assert (list(report.findings), report.waiting) == ([], 0)


async def test_a_witness_cosigns_and_auditors_demand_it(tmp_path, clock, monkeypatch):
    folder = tmp_path / "auditor"
    folder.mkdir()
    signer = KeySigner.parse(
        "PRIVATE+KEY+witness+f13a86db+AaLa/dfyBhyo/m0Z7WCi98ENVZWtrP8pxgRNrx7tIWiA", Algorithm.COSIGNATURE_V1
    )
    (folder / "w.key").write_text(signer.encode())
    settings = settings_for(tmp_path, TRANSPARENCY_WITNESSES=signer.key.encode())
    async with running(settings, clock) as verifier:
        auditor = Auditor(verifier, folder)
        guest, _ = await lived(verifier)
        look = ("witness", "--witness-key", folder / "w.key", "--state", folder / "seen.txt")
        assert "the first one seen" in (await auditor.audit(*look)).out
        report = await auditor.database("--witness", signer.key.encode())
        assert [one["witness"] for one in report["log"]["cosigned_by"]] == ["witness"]
        await guest.attest()
        await extend(verifier)
        seen = json.loads((await auditor.audit(*look, "--json")).out)
        assert seen["size"] > seen["before"]
        note = await verifier.get("/v1/log/checkpoint?cosigned=true", Scope.RELYING_PARTY)
        assert cosignature.cosigned(Note.parse(note.content), [VerifierKey.parse(signer.key.encode())])
