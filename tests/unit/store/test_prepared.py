"""Core's statements as the drivers take them."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from verifier.store.prepared import POSTGRESQL, prepared, together, unnested
from verifier.store.schema import judgement, nonce
from verifier.store.statements import HotStatements, insert_all

NONCE = {"tenant": "t", "expires_at": 7, "attester_id": "a", "hash": b"h"}


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


def test_rows_travel_as_columns():
    many = unnested(insert_all(postgresql.insert, nonce).on_conflict_do_nothing().returning(nonce.c.hash))
    assert many.text(3) == (
        "INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT * FROM unnest($3::BYTEA[], $4::TEXT[], $5::TEXT[], $6::BIGINT[])"
        " ON CONFLICT DO NOTHING RETURNING nonce.hash"
    )
    assert many.arrays([NONCE, NONCE | {"hash": b"i"}]) == [(b"h", b"i"), ("t", "t"), ("a", "a"), (7, 7)]


def test_several_inserts_in_one_statement_have_their_own_parameters():
    many = unnested(insert_all(postgresql.insert, nonce))
    text = together(many, many)
    assert text.startswith("WITH part0 AS (INSERT INTO nonce ")
    assert [text.count(f"${number}::") for number in range(1, 10)] == [1] * 8 + [0]


def test_only_what_can_be_repeated_is():
    with pytest.raises(ValueError, match="not an insert of one row"):
        unnested(
            insert_all(postgresql.insert, nonce).on_conflict_do_update(
                index_elements=["hash"], set_={"tenant": bindparam("b_tenant")}
            )
        )


def test_every_insert_of_the_hot_path_can_be_unnested():
    for statement in HotStatements(postgresql.insert).batch.values():
        if isinstance(statement, postgresql.Insert):
            assert "unnest($1::" in unnested(statement).text()
