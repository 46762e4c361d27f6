"""A fleet of 10,000 judged again after a policy change, over HTTP as `attestctl policy apply --rejudge` does it.

Attesters are copies of some real ones: every one has rows of its own and is judged by itself, from evidence that a
simulated TPM signed and a boot log of a real machine. Wall clock: the verifier and its workers share the machine's cores.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, insert, select

from tests.bench.measure import Result
from tests.conftest import ROOT
from tests.harness import POLICY, Guest, Harness, boot_log, running, settings_for
from tests.postgresql import Cluster, binaries
from verifier.logs import configure_logs
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.store.schema import attestation, attestation_key, attester, boot, endorsement_key, latest

COUNT: Final = 10_000
BUDGET_SECONDS: Final = 60.0
_REAL: Final = 100
_PAGE: Final = 200
_CORES: Final = 2
_TABLES: Final = (endorsement_key, attester, attestation_key, boot, attestation, latest)
_LAX: Final = POLICY.replace("secure_boot: enabled", "secure_boot: disabled").replace(
    "contraindicated", "warning"
)
_LOG: Final = ROOT / "policies" / "evidence" / "uki-sb-on" / "binary_bios_measurements"
Row = dict[str, Any]


def rejudging() -> list[Result]:
    """Seconds until the whole fleet has new verdicts."""
    configure_logs("json", "error", io.StringIO())
    took = {"SQLite": asyncio.run(_measured())}
    found = binaries()
    if found is not None:
        server = Cluster(found, durable=True)
        try:
            server.initialise()
            server.sql("CREATE DATABASE rejudging")
            took["PostgreSQL"] = asyncio.run(_measured(DATABASE=server.url("rejudging")))
        finally:
            server.remove()
    return [
        Result(
            f"{COUNT:,} attesters judged again after a policy change, {_CORES} cores, {database}",
            seconds,
            "s",
            f"{COUNT / seconds:,.0f} verdicts/s",
            None,
            f"<= {BUDGET_SECONDS:.0f} s",
            seconds <= BUDGET_SECONDS,
        )
        for database, seconds in took.items()
    ]


async def _measured(**changes: str) -> float:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:_CORES]))
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with running(settings_for(Path(folder), **changes)) as verifier:
                patterns = [await _guest(verifier, seed) for seed in range(1, _REAL + 1)]
                await multiply(verifier.service.store, patterns, COUNT - _REAL)
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


async def multiply(store: Any, real: list[str], count: int) -> None:
    """Add so many copies of these attesters, each with rows of its own."""

    def run(connection: Connection) -> None:
        patterns = [_rows(connection, attester_id) for attester_id in real]
        made: dict[str, list[Row]] = {table.name: [] for table in _TABLES}
        for number in range(count):
            for name, row in _copied(patterns[number % len(patterns)], number):
                made[name].append(row)
        for table in _TABLES:
            connection.execute(insert(table), made[table.name])

    await store._backend.write(run)


def _rows(connection: Connection, attester_id: str) -> dict[str, Row]:
    keys = {
        "attester": attester.c.id == attester_id,
        "endorsement_key": endorsement_key.c.fingerprint
        == select(attester.c.ek_fingerprint).where(attester.c.id == attester_id).scalar_subquery(),
    }
    return {
        table.name: dict(
            connection.execute(
                select(table).where(keys.get(table.name, table.c.get("attester_id") == attester_id))
            )
            .mappings()
            .one()
        )
        for table in _TABLES
    }


def _copied(pattern: Mapping[str, Row], number: int) -> Iterator[tuple[str, Row]]:
    digest = hashlib.sha256(b"%d" % number).digest()
    name = f"att-{digest.hex()[:24]}"
    own: dict[str, Row] = {
        "endorsement_key": {"fingerprint": digest},
        "attester": {"id": name, "ek_fingerprint": digest, "ak_name": digest, "search_text": name},
        "attestation_key": {"attester_id": name, "name": digest},
    }
    for table in _TABLES:
        yield table.name, pattern[table.name] | own.get(table.name, {"attester_id": name})


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
