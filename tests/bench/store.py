"""What the store adds to a steady attestation: the attester's state read, its verdict stored, durably, by many callers.

Held against the least a database can do with as much: one row of as many bytes an attestation, in transactions of as many.
Counted is the CPU time of this process; what PostgreSQL's own processes use beside it is in the row's name.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import structs

from tests.bench.measure import Result
from tests.contract import records
from tests.postgresql import Cluster, binaries
from verifier.appraisal.lineage import Guest, Lineage
from verifier.ports import GuestIdentity, Recording
from verifier.store import SqlStore, open_store, upgrade
from verifier.store.sqlite_backend import PRAGMAS
from verifier.tcg.attest import ClockInfo

_CALLERS: Final = 64
_ATTESTERS: Final = 512
_EACH: Final = 2_048
"""Attestations a round."""
_ROUNDS: Final = 5
_BOOT_ID: Final = "0d058e5f-8b63-4036-8d46-77d5e992c9f3"
_LOG: Final = b"boot log " * 4_000
_START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_FINDINGS: Final = tuple(
    {
        "code": f"check-{number}",
        "status": "passed",
        "severity": "contraindicated",
        "claim": "configuration",
        "message": "12 events replay to the quoted PCRs; the text of 6 is bound by its digest",
    }
    for number in range(25)
)
_numbers = itertools.count(1)


@dataclass
class _Machine:
    """An attester that does not reboot."""

    attester_id: str
    identity: GuestIdentity
    fixed: bytes
    """Of its evidence: what is the same every time."""
    position: int = 0

    def steady(self) -> Recording:
        """Its next attestation. It names a boot log that is held, and brings a bundle of a kilobyte."""
        number = next(_numbers)
        at = _START + timedelta(milliseconds=number)
        clock = ClockInfo(clock=number * 1_000, reset_count=7, restart_count=0, safe=True)
        bundle = self.fixed + os.urandom(300)
        made = records.recording(self.attester_id, at=at, clock=clock, quote=bundle, boot_log=_LOG)
        blobs = {made.verdict.evidence_sha256: bundle}
        if self.position == 0:
            blobs[records.sha256(_LOG)] = _LOG
        expiry = int(made.nonce_expires_at.timestamp()).to_bytes(4, "big")
        item = structs.replace(
            made,
            nonce_hash=expiry + os.urandom(28),
            verdict=structs.replace(made.verdict, findings=_FINDINGS, boot_id=_BOOT_ID),
            boot=structs.replace(made.boot, boot_id=_BOOT_ID),
            identity=self.identity,
            blobs=blobs,
            lineage=self._line(clock, at, number),
            position=self.position,
            boot_goes_on=self.position > 0,
        )
        self.position += 1
        return item

    def _line(self, clock: ClockInfo, at: datetime, step: int) -> Lineage:
        ratchet, uuid = os.urandom(32), self.identity.smbios_uuid
        guest = Guest(
            smbios_uuid=uuid,
            boot_id=_BOOT_ID,
            hostname=self.identity.hostname,
            clock=clock,
            ratchet=ratchet,
            seen_at=at,
            address="192.0.2.17",
        )
        return Lineage(
            clock=clock,
            smbios_uuid=uuid,
            ratchet=ratchet,
            ratchet_next=os.urandom(32),
            step=step,
            moved_at=at,
            trail=tuple(os.urandom(32) for _ in range(8)),
            guests=(guest,),
        )


async def _machines(store: SqlStore) -> list[_Machine]:
    made = []
    for number in range(_ATTESTERS):
        identity = GuestIdentity(
            smbios_uuid=f"4c4c4544-0000-{number:04x}", hostname=f"guest-{number}", os="debian"
        )
        machine = _Machine(f"att-{number:05d}", identity, os.urandom(700))
        await records.enrol(store, machine.attester_id, identity=identity)
        made.append(machine)
    return made


async def _attest(store: SqlStore, ready: Sequence[Recording]) -> None:
    """As many callers as a busy worker has requests: each reads its attester, then records."""
    left = iter(ready)

    async def caller() -> None:
        for item in left:
            state = await store.attester_state(item.verdict.attester_id)
            if state is None or state.position != item.position or await store.record(item) is None:
                raise AssertionError("every attestation of the bench is stored")

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


def _round(machines: Sequence[_Machine]) -> list[Recording]:
    """A machine's turn comes again when all others had theirs."""
    return [machine.steady() for _ in range(_EACH // len(machines)) for machine in machines]


class _Bare:
    """One row of one table for each attestation, durably, on the same kind of database."""

    ROW: Final = os.urandom(1_600)

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for line in (
            *PRAGMAS,
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE bare (id INTEGER PRIMARY KEY, row BLOB)",
        ):
            self._connection.execute(line)

    def run(self) -> None:
        for _ in range(_EACH // _CALLERS):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO bare (row) VALUES (?)", [(self.ROW,)] * _CALLERS)
            self._connection.execute("COMMIT")


class _Cost(NamedTuple):
    cpu: float
    elapsed: float
    others: float
    """CPU of the database's own processes."""


async def _measure(url: str, bare: Callable[[], object], server: Cluster | None) -> tuple[_Cost, float]:
    store = await open_store(url)
    try:
        machines = await _machines(store)
        await _attest(store, _round(machines))
        costs, floors = [], []
        for _ in range(_ROUNDS):
            ready = _round(machines)
            others, begun, cpu = _server_cpu(server), time.perf_counter(), time.process_time()
            await _attest(store, ready)
            costs.append(
                _Cost(
                    (time.process_time() - cpu) / len(ready),
                    (time.perf_counter() - begun) / len(ready),
                    (_server_cpu(server) - others) / len(ready),
                )
            )
            cpu = time.process_time()
            bare()
            floors.append((time.process_time() - cpu) / _EACH)
        return min(costs), min(floors)
    finally:
        await store.close()


def _server_cpu(server: Cluster | None) -> float:
    return 0.0 if server is None else server.cpu()


def _result(database: str, cost: _Cost, floor: float, *, ratio: float) -> Result:
    more = f", server {cost.others * 1e6:.0f} us more" if cost.others else ""
    return Result(
        f"store: steady attestation, {_CALLERS} callers, {database} ({1 / cost.elapsed:,.0f}/s{more})",
        cost.cpu * 1e6,
        "us",
        f"one row in SQLite {floor * 1e6:.1f} us",
        cost.cpu / floor,
        f"<= {ratio:g}x",
        cost.cpu / floor <= ratio,
    )


def recordings() -> list[Result]:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        bare = _Bare(Path(folder) / "bare.db")
        upgrade(url := f"sqlite:///{folder}/verifier.db")
        results.append(_result("SQLite", *asyncio.run(_measure(url, bare.run, None)), ratio=36))
        found = binaries()
        if found is None:
            return results
        server = Cluster(found, durable=True)
        try:
            server.initialise()
            server.sql("CREATE DATABASE bench")
            results.append(
                _result("PostgreSQL", *asyncio.run(_measure(server.url("bench"), bare.run, server)), ratio=28)
            )
        finally:
            server.remove()
    return results


BENCHES: Final = {"store": recordings}
