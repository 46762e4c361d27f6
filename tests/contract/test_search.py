"""Searching the fleet by a part of a name: the same attesters whichever index the database looks into."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.contract.records import NOW, enrol, recording
from verifier.ports import DEFAULT_TENANT, FleetFilter, GuestIdentity
from verifier.store import migrate, open_store, upgrade
from verifier.store.location import parse_location
from verifier.store.values import search_text

OTHER = "other-tenant"
TRIGRAMS = "ix_attester_trigrams"
HOSTS = {
    "att-1": "Web-07.example",
    "att-2": "web_07.example",
    "att-3": "web%07.example",
    "att-4": r"web\07.example",
    "att-5": "MÜNCHEN-straße",
    "att-6": "ΟΔΟΣ λόγος",
    "att-7": "日本語のホスト",
    "att-8": "a/b c  d",
    "att-9": "",
    "att-10": "İstanbul",
}
SOUGHT = (
    "web-07", "WEB-07", "web_07", "web%07", r"web\07", "eb_0", "_", "__", "%", "%%", "\\", "\\\\", "/", "a/b", "/b", "c  d",
    " ", "   ", "w", "we", "web", "b-0", "-", "---", "07.", "example", "xample\n", "\n", "münchen", "MÜNCHEN", "ü", "straße",
    "STRASSE", "ß", "λόγ", "ΛΌΓ", "οδοσ", "日本語", "本", "本語の", "istanbul", "i̇stanbul", "İ", "att-1", "att-10", "ATT", "tt",
    "\x00", "we\x00", "nowhere", "x" * 300, "web-07.exampleweb", "07 example", "'", "$1", ":x",
)  # fmt: skip


@pytest.fixture
async def named(store):
    """Attesters with names that are hard to search by, and another tenant's with the same."""
    await fill(store)
    return store


async def fill(store):
    for attester_id, host in HOSTS.items():
        identity = GuestIdentity(hostname=host, smbios_uuid=f"4C4C4544-{attester_id}")
        await enrol(store, attester_id, identity=identity)
        await enrol(store, f"foreign-{attester_id}", identity=identity, tenant=OTHER)


def expected(sought: str) -> list[str]:
    part = sought.replace("\x00", "\ufffd").lower()
    texts = {name: search_text(name, host, [f"4C4C4544-{name}"]) for name, host in HOSTS.items()}
    return sorted(name for name, text in texts.items() if part in text)


async def found(store, sought: str, *, limit: int = 3, tenant: str = DEFAULT_TENANT) -> list[str]:
    """By way of pages, in their order."""
    where, names, cursor = FleetFilter(search=sought), [], None
    while True:
        page = await store.list_attesters(tenant, where, now=NOW, cursor=cursor, limit=limit)
        names += [state.attester.id for state in page.items]
        cursor = page.cursor
        if cursor is None:
            return names


async def test_a_search_finds_what_has_the_text_in_it_and_nothing_else(named):
    for sought in SOUGHT:
        assert await found(named, sought) == expected(sought), sought
        assert all(name.startswith("foreign-") for name in await found(named, sought, tenant=OTHER)), sought
    assert expected("web") == ["att-1", "att-2", "att-3", "att-4"]


async def test_the_same_by_the_index_of_trigrams_alone(cluster, postgresql_database):
    """Also for texts too short to hold a trigram, for which PostgreSQL would choose another way."""
    for way in ("seqscan", "indexscan", "indexonlyscan"):
        cluster.sql(f"ALTER DATABASE {postgresql_database.name} SET enable_{way} = off")
    store = await postgresql_database.open()
    await fill(store)
    plan = cluster.rows(
        "EXPLAIN SELECT id FROM attester WHERE search_text LIKE '%' || 'web/_07' || '%' ESCAPE '/'",
        postgresql_database.name,
    )
    assert any(TRIGRAMS in line for line in plan), plan
    for sought in SOUGHT:
        assert await found(store, sought) == expected(sought), sought


async def test_a_steady_attestation_leaves_the_row_that_searches_look_into_alone(
    cluster, postgresql_database
):
    store = await postgresql_database.open()
    await enrol(store, "att-1")
    identity = GuestIdentity(hostname="web-07", smbios_uuid="4c4c4544-aa")

    async def version() -> list[str]:
        await store.record(recording("att-1", identity=identity))
        return cluster.rows("SELECT xmin, ctid FROM attester", postgresql_database.name)

    assert await version() == await version()


async def test_without_the_right_to_make_extensions_all_is_there_but_that_index(cluster):
    """A role that may make tables in its schema and nothing else."""
    name = f"plain_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE ROLE {name} LOGIN")
    cluster.sql(f"CREATE DATABASE {name}")
    cluster.sql(f"GRANT ALL ON SCHEMA public TO {name}", name)
    url = cluster.url(name).replace("verifier@", f"{name}@")
    await asyncio.to_thread(upgrade, url)
    store = await open_store(url, migrate=False)
    try:
        await fill(store)
        assert await found(store, "WEB-0") == expected("web-0")
    finally:
        await store.close()
    assert indexes(cluster, name) == []


async def test_the_index_is_made_where_somebody_else_keeps_the_extension(cluster):
    """In a schema that no search path names, as hosted databases have it."""
    name = f"kept_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name}")
    cluster.sql('CREATE SCHEMA "Extensions"', name)
    cluster.sql('CREATE EXTENSION pg_trgm SCHEMA "Extensions"', name)
    await asyncio.to_thread(upgrade, cluster.url(name))
    assert indexes(cluster, name) == ["t"]
    sampled = "SELECT attstattarget FROM pg_attribute WHERE attrelid = 'attester'::regclass AND attname = 'search_text'"
    assert cluster.rows(sampled, name) == ["1000"]


async def test_one_that_was_begun_and_not_finished_is_made_anew(cluster):
    name = f"begun_{uuid.uuid4().hex}"
    cluster.sql(f"CREATE DATABASE {name}")
    location, module = parse_location(cluster.url(name)), migrate._script("0018").module

    def before():
        migrate._on_connection(
            location, lambda connection: migrate.apply(connection, module.down_revision), create=False
        )

    await asyncio.to_thread(before)
    cluster.sql(f"CREATE INDEX {TRIGRAMS} ON attester (tenant)", name)
    await asyncio.to_thread(upgrade, cluster.url(name))
    assert indexes(cluster, name) == ["t"]


def indexes(cluster, name) -> list[str]:
    """Whether it may be used, for each of this name that is of trigrams."""
    return cluster.rows(
        f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{TRIGRAMS}')"
        " AND pg_get_indexdef(indexrelid) LIKE '%USING gin (search_text%gin_trgm_ops)'",
        name,
    )
