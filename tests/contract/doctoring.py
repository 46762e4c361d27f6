"""A database with a log in it, and what somebody may do to it who has the database and not the service."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs
from sqlalchemy import Connection, create_engine, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import create_async_engine

from tests.contract.records import audit_entry, enrol, policy, recording, token
from verifier.auditing.audit import audit_database
from verifier.auditing.findings import Report, Trust
from verifier.auditing.opening import reading
from verifier.ports import Scope
from verifier.reasons import Tier
from verifier.service import audit_entries
from verifier.store import open_store
from verifier.store.schema import attestation, audit, latest
from verifier.store.schema import policy as policy_table
from verifier.store.schema_log import log_batch, log_checkpoint, log_head, log_tile
from verifier.transparency import checkpoint, tiles
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.entries import audit_entry as audit_entry_of
from verifier.transparency.entries import verdict_entry
from verifier.transparency.errors import TileError
from verifier.transparency.merkle import leaf_hash
from verifier.transparency.notes import Algorithm, KeySigner, Note

ORIGIN = "log.example/1"
KEY = KeySigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"k" * 32))
OTHER = KeySigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"o" * 32))
WITNESS = KeySigner("witness", Ed25519PrivateKey.from_private_bytes(b"w" * 32), Algorithm.COSIGNATURE_V1)
MACHINES = ("att-1", "att-2", "att-3")
ROUNDS = 100
LEAVES = 3 * ROUNDS + 3 + 3 + 2 + 2 + 1
"""Verdicts; enrolments, policies, tokens, decisions, a revocation."""
SECOND = timedelta(seconds=1)
TIERS = (Tier.CONTRAINDICATED, Tier.WARNING)


def sequence(connection: Connection, signer: KeySigner = KEY) -> str:
    """Give every batch that waits its place, as the service's sequencer does."""

    def read(level: int, number: int) -> bytes:
        query = select(log_tile.c.hashes).where(log_tile.c.level == level, log_tile.c.number == number)
        found = connection.execute(query).scalar()
        if found is None:
            raise TileError("missing")
        return found

    size = connection.execute(select(log_head.c.size)).scalar()
    if size is None:
        size = 0
        connection.execute(insert(log_head).values(id=1, size=0))
    waiting = select(log_batch).where(log_batch.c.first_index.is_(None)).order_by(log_batch.c.id)
    leaves = b""
    for batch in connection.execute(waiting).all():
        first = size + len(leaves) // 32
        leaves += batch.leaves
        connection.execute(
            update(log_batch).where(log_batch.c.id == batch.id).values(first_index=first, leaves=None)
        )
    grown = tiles.append(size, leaves, read)
    for tile in grown.tiles:
        connection.execute(
            delete(log_tile).where(log_tile.c.level == tile.level, log_tile.c.number == tile.number)
        )
        connection.execute(insert(log_tile).values(level=tile.level, number=tile.number, hashes=tile.hashes))
    note = checkpoint.sign(Checkpoint(ORIGIN, grown.size, grown.root), [signer])
    connection.execute(update(log_head).values(size=grown.size))
    connection.execute(insert(log_checkpoint).values(size=grown.size, root=grown.root, at=0, note=note))
    return note


@dataclass(frozen=True)
class Made:
    """A database with some history in it, and what an auditor kept of its log."""

    url: str
    kept: tuple[str, ...]
    old_copy: Path | None = None

    def audit(self, *, kept: int | None = None, since: datetime | None = None, **trust) -> Report:
        if kept is not None:
            trust["kept"] = checkpoint.opened(self.kept[kept], [KEY.key]).checkpoint
        return audit_database(self.url, Trust(**{"keys": (KEY.key,), **trust}), kept_since=since)

    def judged_at(self, number: int) -> int:
        """When the machines were judged for the nth time."""
        query = select(attestation.c.judged_at).where(row("att-1", number))
        return reading(self.url, lambda connection: connection.execute(query).scalar())

    def doctor(self, *work: Callable[[Connection], object] | object) -> Report:
        """Do it as somebody would who has the database and not the service."""

        def do(connection: Connection) -> None:
            for each in work:
                each(connection) if callable(each) else connection.execute(each)

        async def run() -> None:
            engine = create_async_engine(self.url.replace("postgresql:", "postgresql+asyncpg:"))
            async with engine.begin() as connection:
                await connection.run_sync(do)
            await engine.dispose()

        if self.url.startswith("sqlite"):
            with create_engine(self.url).begin() as connection:
                do(connection)
        else:
            asyncio.run(run())
        return self.audit()


async def fill(url: str, copy: Path | None = None) -> Made:
    store, kept, now = await open_store(url), [], datetime.now(UTC)
    for attester_id in MACHINES:
        await enrol(store, attester_id)
    first = policy(created_at=now)
    resigned = policy(created_at=now, source="id: strict # signed by somebody else\n")
    second = policy(created_at=now, revision="ab" * 32, source="id: other\n")
    for made in (first, resigned, second):
        await store.add_policy(made, audit_entries.policy_added(made, "tok-0"))
    for number in range(2):
        made = token(created_at=now, scopes=frozenset({Scope.AUDITOR}), id=f"tok-{number}")
        await store.add_token(made, audit_entries.token_created(made, "tok-0"))
    for number in range(ROUNDS):
        tier, at = TIERS[number % 2], now + number * SECOND
        batch = (
            structs.replace(one, boot_goes_on=False)
            for one in (recording(each, at=at, tier=tier) for each in MACHINES)
        )
        await asyncio.gather(*map(store.record, batch))
        if number in {20, 70}:
            await store.add_audit(audit_entry(subject=f"x-{number}", at=now))
        if number in {30, 60}:
            kept.append(await store._backend.write(sequence))
    if copy is not None:
        await store.close()
        shutil.copy(url.removeprefix("sqlite:///"), copy)
        store = await open_store(url)
    revoked = audit_entries.token_revoked("default", "tok-1", now, "tok-0")
    await store.revoke_token("default", "tok-1", now, revoked)
    kept.append(await store._backend.write(sequence))
    await store.close()
    return Made(url, tuple(kept), copy)


def row(attester_id: str, number: int):
    return (attestation.c.attester_id == attester_id) & (attestation.c.sequence == number)


def changed(attester_id: str, number: int, **values):
    return update(attestation).where(row(attester_id, number)).values(**values)


def dropped(attester_id: str, number: int):
    return delete(attestation).where(row(attester_id, number))


def inserted(number: int, **values):
    """A verdict that nobody gave, made after the newest one of its machine."""

    def work(connection: Connection) -> None:
        like = dict(connection.execute(select(attestation).where(row("att-2", ROUNDS))).mappings().one())
        connection.execute(insert(attestation).values(**{**like, "sequence": number, "tier": 0, **values}))

    return work


def swapped(connection: Connection) -> None:
    """What two verdicts say, the one in the place of the other."""
    one, two = (
        dict(connection.execute(select(attestation).where(row("att-2", number))).mappings().one())
        for number in (17, 18)
    )
    for mine, other in ((one, two), (two, one)):
        said = {
            k: v for k, v in other.items() if k not in {"attester_id", "sequence", "log_batch", "log_place"}
        }
        connection.execute(changed("att-2", mine["sequence"], **said))


def places_swapped(connection: Connection) -> None:
    one, two = (
        connection.execute(
            select(attestation.c.log_batch, attestation.c.log_place).where(row("att-2", number))
        ).one()
        for number in (17, 18)
    )
    connection.execute(changed("att-2", 17, log_batch=two[0], log_place=two[1]))
    connection.execute(changed("att-2", 18, log_batch=one[0], log_place=one[1]))


def flipped(table, column, where):
    """A bit of a column of bytes is another one."""

    def work(connection: Connection) -> None:
        data = connection.execute(select(column).where(where)).scalars().first()
        connection.execute(update(table).where(where).values({column: bytes([data[0] ^ 1]) + data[1:]}))

    return work


def rebuilt(signer: KeySigner):
    """Another log, over what the database says now."""

    def work(connection: Connection) -> None:
        connection.execute(changed("att-2", 17, tier=0))
        places: dict[int, dict[int, bytes]] = {}
        for table, entry in ((attestation, verdict_entry), (audit, audit_entry_of)):
            for one in connection.execute(select(table)).mappings():
                places.setdefault(one["log_batch"], {})[one["log_place"]] = leaf_hash(entry(one))
        for batch, leaves in places.items():
            hashes = b"".join(leaves[place] for place in sorted(leaves))
            connection.execute(
                update(log_batch).where(log_batch.c.id == batch).values(leaves=hashes, first_index=None)
            )
        for table in (log_tile, log_checkpoint, log_head):
            connection.execute(delete(table))
        sequence(connection, signer)

    return work


def forged(connection: Connection) -> None:
    """A root of nobody's, with the signature of the one that was there."""
    note = connection.execute(select(log_checkpoint.c.note).where(log_checkpoint.c.size == LEAVES)).scalar()
    text = Checkpoint(ORIGIN, LEAVES, b"r" * 32).text()
    new = Note(text, Note.parse(note).signatures).encode()
    connection.execute(
        update(log_checkpoint).where(log_checkpoint.c.size == LEAVES).values(note=new, root=b"r" * 32)
    )


def row_and_tile(connection: Connection) -> None:
    """A verdict, and its hash in the tree."""
    connection.execute(changed("att-2", 17, tier=0))
    one = connection.execute(select(attestation).where(row("att-2", 17))).mappings().one()
    first = connection.execute(
        select(log_batch.c.first_index).where(log_batch.c.id == one["log_batch"])
    ).scalar()
    index = first + one["log_place"]
    hashes = connection.execute(select(log_tile.c.hashes).where(TILE_0)).scalar()
    leaf = leaf_hash(verdict_entry(one))
    new = hashes[: index * 32] + leaf + hashes[(index + 1) * 32 :]
    connection.execute(update(log_tile).where(TILE_0).values(hashes=new))


def current_again(connection: Connection) -> None:
    """An older policy is the current one."""
    connection.execute(
        update(policy_table)
        .where(policy_table.c.revision != "ab" * 32)
        .values(position=policy_table.c.position + 7)
    )


def inserted_beyond(connection: Connection) -> None:
    """A verdict in a transaction that is said to come after all that was signed."""
    batch = {"id": 2**60, "leaf_count": 1, "leaves": None, "first_index": LEAVES, "lasting": False}
    connection.execute(insert(log_batch).values(**batch))
    inserted(ROUNDS + 1, log_batch=2**60, log_place=0)(connection)


def newest_shown(connection: Connection) -> None:
    """The machine's verdict is the newest that there is."""
    query = (
        select(attestation)
        .where(attestation.c.attester_id == "att-2")
        .order_by(attestation.c.sequence.desc())
    )
    newest = dict(connection.execute(query).mappings().first())
    shown = {name: value for name, value in newest.items() if name in latest.c}
    connection.execute(update(latest).where(latest.c.attester_id == "att-2").values(**shown))


def newest_dropped(connection: Connection) -> None:
    """With what is shown of it."""
    connection.execute(dropped("att-2", ROUNDS))
    newest_shown(connection)


def batch_moved(connection: Connection) -> None:
    """A transaction is said to be elsewhere in the log."""
    first = select(func.min(log_batch.c.first_index)).where(log_batch.c.first_index > 50)
    at = connection.execute(first).scalar()
    connection.execute(update(log_batch).where(log_batch.c.first_index == at).values(first_index=LEAVES - 1))


TILE_0 = (log_tile.c.level == 0) & (log_tile.c.number == 0)
POLICY = (policy_table.c.id == "strict") & (policy_table.c.revision == "ab" * 32)
SAID = select(attestation.c.judgement).where(row("att-2", 17)).scalar_subquery()
NOWHERE = {"log_batch": None, "log_place": None}
