"""A database with a large fleet in it: rows of real shape, made from those of machines that did enrol and attest.

    python -m tests.bench.populate sqlite:////var/lib/x/verifier.db att-1 att-2 --count 100000 --history 12

Every machine gets the rows a real one has, wherever a real one has them, under keys of its own; the keys are made up,
so that none of these machines could ever attest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Table, insert, select

from verifier.store import SqlStore, open_store
from verifier.store.schema import (
    attestation,
    attestation_key,
    attester,
    attester_label,
    attester_uuid,
    boot,
    endorsement_key,
    latest,
)

BAD_EVERY: Final = 1_000
"""One machine in so many is like the last pattern; the others share the rest."""
REVOKED_EVERY: Final = 9_973
SITES: Final = 100
INTERVAL: Final = 300 * 1_000_000
_CHUNK: Final = 2_000
_KEYED: Final = {
    attester: attester.c.id,
    attestation_key: attestation_key.c.attester_id,
    attester_uuid: attester_uuid.c.attester_id,
    boot: boot.c.attester_id,
    latest: latest.c.attester_id,
    attestation: attestation.c.attester_id,
}
_ORDER: Final = (
    endorsement_key,
    attester,
    attestation_key,
    attester_uuid,
    attester_label,
    boot,
    latest,
    attestation,
)
Row = dict[str, Any]


def digest(number: int) -> bytes:
    """Names the EK of a machine."""
    return hashlib.sha256(b"%d" % number).digest()


def attester_id(number: int) -> str:
    """Of a machine."""
    return f"att-{digest(number).hex()[:24]}"


@dataclass(frozen=True)
class _Pattern:
    """The newest row that a real machine has in each table."""

    rows: Mapping[Table, Row]

    def copy(self, number: int, history: int) -> dict[Table, list[Row]]:
        """Another machine like it."""
        name, key, host = attester_id(number), digest(number), f"vm-{number:06}"
        uuid, site = str(UUID(bytes=key[:16])), f"site-{number % SITES}"
        seen = f"{name}\n{host}\n{uuid}"
        identity = self.rows[attester]["identity"].replace("guest-", f"{host}-")
        own: dict[Table, Row] = {
            endorsement_key: {"fingerprint": key},
            attester: {
                "id": name,
                "ek_fingerprint": key,
                "ak_name": key,
                "search_text": seen,
                "identity": identity,
                "smbios_uuids": f'["{uuid}"]',
                "labels": f'{{"site":"{site}"}}',
            },
            attestation_key: {"attester_id": name, "name": key},
            attester_uuid: {"attester_id": name, "smbios_uuid": uuid},
            attester_label: {"attester_id": name, "key": "site", "value": site, "tenant": "default"},
            boot: {"attester_id": name},
            latest: {
                "attester_id": name,
                "sequence": max(1, history),
                "lifecycle": "revoked" if number % REVOKED_EVERY == 0 else "enrolled",
                "incident": None,
            },
        }
        made = {table: [self.rows.get(table, {}) | row] for table, row in own.items()}
        last = self.rows[attestation]
        made[attestation] = [
            last
            | {
                "attester_id": name,
                "sequence": history - back,
                "judged_at": last["judged_at"] - back * INTERVAL,
                "valid_until": last["valid_until"] - back * INTERVAL,
                "evidence_sha256": hashlib.sha256(b"%d %d" % (number, back)).digest(),
            }
            for back in range(history)
        ]
        return made


async def populate(store: SqlStore, patterns: Sequence[str], count: int, *, history: int = 1) -> None:
    """Add `count` machines with `history` attestations each, like the given ones."""
    found = [await _read(store, name) for name in patterns]
    good, bad = found[:-1] or found, found[-1]
    for start in range(0, count, _CHUNK):
        made: dict[Table, list[Row]] = {table: [] for table in _ORDER}
        for number in range(start, min(count, start + _CHUNK)):
            pattern = bad if number % BAD_EVERY == 0 else good[number % len(good)]
            for table, rows in pattern.copy(number, history).items():
                made[table] += rows
        await store._backend.write(lambda connection, made=made: _insert(connection, made))


def _insert(connection: Connection, made: Mapping[Table, list[Row]]) -> None:
    for table in _ORDER:
        if made[table]:
            connection.execute(insert(table), made[table])


async def _read(store: SqlStore, name: str) -> _Pattern:
    rows = {}
    for table, key in _KEYED.items():
        query = select(table).where(key == name)
        if table is attestation:
            query = query.order_by(attestation.c.sequence.desc())
        found = await store._backend.rows(query.limit(1))
        if not found:
            raise SystemExit(f"attester {name} has no row in {table.name}: it has to attest first")
        rows[table] = dict(zip(table.columns.keys(), found[0], strict=True))
    ek = select(endorsement_key).where(endorsement_key.c.fingerprint == rows[attester]["ek_fingerprint"])
    found = await store._backend.rows(ek)
    rows[endorsement_key] = dict(zip(endorsement_key.columns.keys(), found[0], strict=True))
    return _Pattern(rows)


async def _main(options: argparse.Namespace) -> None:
    store = await open_store(options.url)
    try:
        await populate(store, options.patterns, options.count, history=options.history)
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.populate", description="Add made-up machines to a database."
    )
    parser.add_argument("url")
    parser.add_argument("patterns", nargs="+", help="attesters to copy; the last is copied once in 1,000")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=1, help="attestations of each")
    asyncio.run(_main(parser.parse_args()))
