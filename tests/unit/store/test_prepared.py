"""Core's statements as the drivers take them."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, MetaData, Table, Text, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from verifier.store import postgresql_hot, postgresql_steady
from verifier.store.leaves import LogBatch
from verifier.store.prepared import POSTGRESQL, Common, Rows, Together, places_for, prepared, several
from verifier.store.recording import Plan
from verifier.store.schema import attester_uuid, judgement, nonce
from verifier.store.statements import HotStatements, insert_all

NONCE = {"tenant": "t", "expires_at": 7, "attester_id": "a", "hash": b"h"}
UUID = {"attester_id": "a", "smbios_uuid": "u", "tenant": "t"}


def test_values_go_by_position_however_often_they_are_used():
    touched = (
        update(judgement)
        .where(judgement.c.digest == bindparam("b_digest"), judgement.c.last_used_at < bindparam("b_day"))
        .values(last_used_at=bindparam("b_day"))
    )
    made = prepared(touched, sqlite.dialect(paramstyle="qmark"))
    assert made.row({"b_day": 5, "b_digest": b"d", "other": 1}) == (5, b"d", 5)
    assert made.text.count("?") == 3


def test_a_statement_with_one_parameter_takes_a_row_of_one():
    one = update(nonce).where(nonce.c.hash == bindparam("b_hash")).values(tenant=nonce.c.attester_id)
    assert prepared(one, POSTGRESQL).row({"b_hash": b"h"}) == (b"h",)


def test_rows_have_places_of_which_some_are_left_over():
    many = several(insert_all(postgresql.insert, nonce).on_conflict_do_nothing().returning(nonce.c.hash))
    assert many.text(2) == (
        "WITH rows (hash, tenant, attester_id, expires_at) AS"
        " (VALUES ($1::BYTEA, $2::TEXT, $3::TEXT, $4::BIGINT), ($5, $6, $7, $8))"
        " INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT hash, tenant, attester_id, expires_at FROM rows WHERE hash IS NOT NULL"
        " ON CONFLICT DO NOTHING RETURNING nonce.hash"
    )
    assert many.values([NONCE], 2) == [b"h", "t", "a", 7, None, None, None, None]
    assert many.values([NONCE, NONCE | {"hash": b"i"}], 2) == [b"h", "t", "a", 7, b"i", "t", "a", 7]


@pytest.mark.parametrize(("rows", "places"), [(1, 1), (2, 2), (3, 3), (8, 8), (9, 12), (17, 20), (48, 48)])
def test_there_are_few_statements_for_any_number_of_rows(rows, places):
    assert places_for(rows) == places


def test_what_two_inserts_have_in_common_is_sent_once():
    first, second = (several(insert_all(postgresql.insert, table)) for table in (nonce, attester_uuid))
    made = Common(first, second)
    assert made.more == ("smbios_uuid",)
    assert list(made.columns) == ["hash", "tenant", "attester_id", "expires_at", "smbios_uuid", "taken"]
    rows = [(NONCE, UUID, False, ()), (NONCE | {"attester_id": "b"}, UUID | {"attester_id": "b"}, True, ())]
    assert made.values(rows, 4) == [
        *(b"h", "t", "a", 7, "u", False),
        *(b"h", "t", "b", 7, "u", True),
        *[None] * 12,
    ]


def test_several_inserts_in_one_statement_have_their_own_parameters():
    first, second = (several(insert_all(postgresql.insert, table)) for table in (nonce, attester_uuid))
    made = Together((second, first), second, Common(first, second))
    assert (
        made.text(2) == "WITH own0 (attester_id, smbios_uuid, tenant) AS"
        " (VALUES ($1::TEXT, $2::TEXT, $3::TEXT), ($4, $5, $6)),"
        " own1 (hash, tenant, attester_id, expires_at) AS"
        " (VALUES ($7::BYTEA, $8::TEXT, $9::TEXT, $10::BIGINT), ($11, $12, $13, $14)),"
        " single (attester_id, smbios_uuid, tenant) AS (VALUES ($15::TEXT, $16::TEXT, $17::TEXT)),"
        " common (hash, tenant, attester_id, expires_at, smbios_uuid, taken) AS"
        " (VALUES ($18::BYTEA, $19::TEXT, $20::TEXT, $21::BIGINT, $22::TEXT, $23::BOOLEAN),"
        " ($24, $25, $26, $27, $28, $29)),"
        " part0 AS (INSERT INTO attester_uuid (attester_id, smbios_uuid, tenant)"
        " SELECT attester_id, smbios_uuid, tenant FROM own0 WHERE attester_id IS NOT NULL),"
        " part1 AS (INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT hash, tenant, attester_id, expires_at FROM own1 WHERE hash IS NOT NULL),"
        " part2 AS (INSERT INTO attester_uuid (attester_id, smbios_uuid, tenant)"
        " SELECT attester_id, smbios_uuid, tenant FROM single WHERE attester_id IS NOT NULL),"
        " part3 AS (INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT hash, tenant, attester_id, expires_at FROM common WHERE hash IS NOT NULL)"
        " INSERT INTO attester_uuid (attester_id, smbios_uuid, tenant)"
        " SELECT attester_id, smbios_uuid, tenant FROM common WHERE attester_id IS NOT NULL AND taken"
    )
    assert made.values([[UUID], [NONCE, NONCE]], [], [(NONCE, UUID, True, ())], 2) == [
        *("a", "u", "t", None, None, None),
        *(b"h", "t", "a", 7, b"h", "t", "a", 7),
        *(None, None, None),
        *(b"h", "t", "a", 7, "u", True, *[None] * 6),
    ]


def test_nothing_is_inserted_unless_a_row_is_found_for_each():
    first, second = (several(insert_all(postgresql.insert, table)) for table in (nonce, attester_uuid))
    common = Common(first, second, {"expected": "TEXT"})
    text = Together((first,), second, common, "SELECT 1 FROM common").text(1)
    inserts = text.count("INSERT INTO")
    assert inserts == 4
    assert text.count("IS NOT NULL AND (SELECT sure.all_found FROM sure)") == inserts - 1
    assert text.endswith("WHERE attester_id IS NOT NULL AND taken AND (SELECT sure.all_found FROM sure)")
    assert (
        " found AS MATERIALIZED (SELECT 1 FROM common),"
        " sure AS MATERIALIZED (SELECT count(*) = (SELECT count(*) FROM common WHERE hash IS NOT NULL)"
        " AS all_found FROM found)," in text
    )
    assert common.values([(NONCE, UUID, True, ("x",))], 1) == [b"h", "t", "a", 7, "u", True, "x"]


def test_what_must_be_found_has_no_parameters_of_its_own():
    only = several(insert_all(postgresql.insert, nonce))
    with pytest.raises(ValueError, match="the query has parameters"):
        Together((only,), only, Common(only, only), "SELECT 1 FROM common WHERE hash = $1")


def test_columns_of_one_name_must_be_of_one_type():
    first, second = (Rows("", {"name": kind}, "", tuple) for kind in ("TEXT", "BIGINT"))
    with pytest.raises(ValueError, match="name is of another type"):
        Common(first, second)


def test_only_what_can_be_repeated_is():
    with pytest.raises(ValueError, match="not an insert of one row"):
        several(
            insert_all(postgresql.insert, nonce).on_conflict_do_update(
                index_elements=["hash"], set_={"tenant": bindparam("b_tenant")}
            )
        )


def test_a_row_is_told_from_a_place_that_is_left_over():
    table = Table("any", MetaData(), Column("name", Text))
    with pytest.raises(ValueError, match="name may be NULL"):
        several(insert_all(postgresql.insert, table))


def test_every_insert_of_the_hot_path_can_take_several_rows():
    for statement in HotStatements(postgresql.insert).batch.values():
        if isinstance(statement, postgresql.Insert):
            assert "$1::" in several(statement).text(1)


def test_what_is_sent_for_the_most_rows_is_kept_as_prepared():
    """asyncpg plans what is longer each time."""
    hot = postgresql_hot
    made = (postgresql_steady._STATEMENT, hot._ALL_STEADY, hot._NONCES, *hot.MANY.values())
    assert max(len(one.text(hot.MOST)) for one in made) < hot.KEPT_TEXT


def test_of_several_verdicts_of_an_attester_the_newest_is_its_latest():
    plan = Plan(LogBatch(1))
    for attester_id, sequence in [("a", 4), ("b", 7), ("a", 5)]:
        row = {"attester_id": attester_id, "sequence": sequence}
        plan.attestations.append(row)
        plan.latest[attester_id] = row | {"position": sequence}
    assert [
        (row["sequence"], latest["sequence"], taken) for row, latest, taken in postgresql_hot.verdicts(plan)
    ] == [
        (4, 5, False),
        (7, 7, True),
        (5, 5, True),
    ]
