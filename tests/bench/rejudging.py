"""A fleet of 10,000 judged again after a policy change, over HTTP as `attestctl policy apply --rejudge` does it.

Attesters are copies of some real ones: every one has rows of its own and is judged by itself, from evidence that a
simulated TPM signed and a boot log of a real machine. Wall clock: the verifier and its workers share the machine's cores.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import Result
from tests.conftest import ROOT
from tests.harness import POLICY, Guest, Harness, boot_log, running, settings_for
from verifier.logs import configure_logs
from verifier.ports import DEFAULT_TENANT, Scope

COUNT: Final = 10_000
BUDGET_SECONDS: Final = 60.0
_REAL: Final = 100
_PAGE: Final = 200
_CORES: Final = 2
_TABLES: Final = ("endorsement_key", "attester", "attestation_key", "boot", "attestation", "latest")
_KEYS: Final = {
    "attester": "id = ?",
    "endorsement_key": "fingerprint = (select ek_fingerprint from attester where id = ?)",
}
_LAX: Final = POLICY.replace("secure_boot: enabled", "secure_boot: disabled").replace(
    "contraindicated", "warning"
)
_LOG: Final = ROOT / "policies" / "evidence" / "uki-sb-on" / "binary_bios_measurements"
Row = dict[str, Any]


def rejudging() -> list[Result]:
    """Seconds until the whole fleet has new verdicts."""
    configure_logs("json", "error", io.StringIO())
    took = asyncio.run(_measured())
    return [
        Result(
            f"{COUNT:,} attesters judged again after a policy change, {_CORES} cores",
            took,
            "s",
            f"{COUNT / took:,.0f} verdicts/s",
            None,
            f"<= {BUDGET_SECONDS:.0f} s",
            took <= BUDGET_SECONDS,
        )
    ]


async def _measured() -> float:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:_CORES]))
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with running(settings_for(Path(folder))) as verifier:
                patterns = [await _guest(verifier, seed) for seed in range(1, _REAL + 1)]
                _multiply(verifier.service.settings.state_dir / "verifier.db", patterns)
                policies = verifier.service.services.policies
                await policies.register(DEFAULT_TENANT, _LAX.encode(), "bench")
                start = time.perf_counter()
                stored = await _rejudge(verifier)
                took = time.perf_counter() - start
                assert stored == COUNT, stored
                return took
    finally:
        os.sched_setaffinity(0, cores)


async def _guest(verifier: Harness, seed: int) -> str:
    """Half of them booted what a real machine did, half something small with Secure Boot off."""
    log = _LOG.read_bytes() if seed % 2 else boot_log(secure=False)
    guest = Guest.booted(verifier, seed, log=log)
    await guest.enroll()
    answer = await guest.attest()
    assert answer.status == 200, answer.content
    return guest.attester_id


def _multiply(database: Path, real: list[str]) -> None:
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        patterns = [_rows(connection, attester) for attester in real]
        made: dict[str, list[Row]] = {table: [] for table in _TABLES}
        for number in range(COUNT - len(real)):
            for table, row in _copied(patterns[number % len(patterns)], number):
                made[table].append(row)
        for table, rows in made.items():
            names, marks = ", ".join(rows[0]), ", ".join("?" * len(rows[0]))
            connection.executemany(
                f"insert into {table} ({names}) values ({marks})", [tuple(row.values()) for row in rows]
            )
        connection.commit()


def _rows(connection: sqlite3.Connection, attester: str) -> dict[str, Row]:
    found = {}
    for table in _TABLES:
        where = _KEYS.get(table, "attester_id = ?")
        found[table] = dict(
            connection.execute(f"select * from {table} where {where}", (attester,)).fetchone()
        )
    return found


def _copied(pattern: Mapping[str, Row], number: int) -> Iterator[tuple[str, Row]]:
    digest = hashlib.sha256(b"%d" % number).digest()
    name = f"att-{digest.hex()[:24]}"
    own: dict[str, Row] = {
        "endorsement_key": {"fingerprint": digest},
        "attester": {"id": name, "ek_fingerprint": digest, "ak_name": digest, "search_text": name},
        "attestation_key": {"attester_id": name, "name": digest},
    }
    for table in _TABLES:
        yield table, pattern[table] | own.get(table, {"attester_id": name})


async def _rejudge(verifier: Harness) -> int:
    stored, cursor = 0, ""
    while True:
        path = f"/v1/policies/secure-boot/rejudge?limit={_PAGE}" + (f"&cursor={cursor}" if cursor else "")
        answer = await verifier.call("POST", path, scope=Scope.OPERATOR)
        assert answer.status == 200, answer.content
        assert not answer.json["unjudged"], answer.json["unjudged"][0]
        stored += answer.json["counts"]["stored"]
        cursor = answer.json.get("cursor")
        if cursor is None:
            return stored


BENCHES: Final = {"rejudging": rejudging}
