"""`attest-verifier db status`: what takes the room, without touching anything."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.contract.records import NOW, enrol, recording

BIN = Path(sys.executable).parent


@pytest.fixture
def status(tmp_path):
    """Run the command on a database."""

    async def run(url, *options):
        file = tmp_path / "verifier.toml"
        file.write_text(f'state_dir = "{tmp_path}/state"\ndatabase = "{url}"\n')
        process = await asyncio.create_subprocess_exec(
            BIN / "attest-verifier", "db", "status", "--config", file, *options,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return run


async def test_every_table_with_its_size(database, status):
    store = await database.open()
    await enrol(store, "att-1")
    await store.record(recording("att-1"))
    code, out, _ = await status(database.url, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["revision"] == await store.revision()
    tables = {one["name"]: one for one in document["tables"]}
    assert all(one["bytes"] > 0 for one in tables.values())
    assert ("attestation" in tables) != ("attestation_rest" in tables)
    code, out, err = await status(database.url)
    assert code == 0
    assert "latest" in out
    assert "revision" in err


async def test_of_a_partition_it_says_from_when_its_verdicts_are(postgresql_database, status):
    store = await postgresql_database.open()
    await store.prepare_history(NOW)
    _, out, _ = await status(postgresql_database.url, "--json")
    weeks = [one for one in json.loads(out)["tables"] if one["ends"] is not None]
    assert "2026-02-23T00:00:00Z" in {one["begins"] for one in weeks}
    assert all(one["partition_of"] == "attestation" and one["begins"] < one["ends"] for one in weeks)
    _, out, _ = await status(postgresql_database.url)
    assert "2026-02-23 to 2026-03-02" in out


async def test_a_database_that_is_not_there_or_not_of_this_version_is_said_and_left_alone(tmp_path, status):
    code, out, err = await status(f"sqlite:///{tmp_path}/none.db")
    assert (code, out) == (69, "")
    assert "attest-verifier db upgrade" in err
    assert not (tmp_path / "none.db").exists()
    code, _, err = await status("postgresql://me:hunter2@127.0.0.1:1/fleet")
    assert code == 69
    assert "127.0.0.1:1" in err
    assert "hunter2" not in err
