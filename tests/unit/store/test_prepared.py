"""Core's statements as the drivers take them."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from verifier.store.prepared import POSTGRESQL, Common, Unnested, prepared, together, unnested
from verifier.store.recording import Step
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


def test_rows_travel_as_columns():
    many = unnested(insert_all(postgresql.insert, nonce).on_conflict_do_nothing().returning(nonce.c.hash))
    assert many.text(3) == (
        "INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT * FROM unnest($3::BYTEA[], $4::TEXT[], $5::TEXT[], $6::BIGINT[])"
        " ON CONFLICT DO NOTHING RETURNING nonce.hash"
    )
    assert many.arrays([NONCE, NONCE | {"hash": b"i"}]) == [(b"h", b"i"), ("t", "t"), ("a", "a"), (7, 7)]


def both():
    """Two inserts; the second has four columns that the first has, and others."""
    batch = HotStatements(postgresql.insert).batch
    return Common(unnested(batch[Step.BLOBS]), unnested(batch[Step.JUDGEMENTS]))


def test_several_inserts_in_one_statement_have_their_own_parameters():
    many = unnested(insert_all(postgresql.insert, nonce))
    text = together(many, many, last=both())
    assert text.startswith("WITH part0 AS (INSERT INTO nonce ")
    sent = len(both().first.columns) + len(both().more) + 1
    assert [text.count(f"${number}::") for number in range(1, 10 + sent)] == [1] * (8 + sent) + [0]


def test_what_two_inserts_have_in_common_is_sent_once():
    first = unnested(insert_all(postgresql.insert, nonce))
    second = unnested(insert_all(postgresql.insert, attester_uuid))
    rows = [(NONCE, UUID, False), (NONCE | {"attester_id": "b"}, UUID | {"attester_id": "b"}, True)]
    made = Common(first, second)
    assert made.more == ("smbios_uuid",)
    assert made.arrays(rows) == [(b"h", b"h"), ("t", "t"), ("a", "b"), (7, 7), ("u", "u"), (False, True)]
    assert made.parts(3) == {
        "common (hash, tenant, attester_id, expires_at, smbios_uuid, taken)": "SELECT * FROM unnest("
        "$3::BYTEA[], $4::TEXT[], $5::TEXT[], $6::BIGINT[], $7::TEXT[], $8::BOOLEAN[])",
        "begun": "INSERT INTO nonce (hash, tenant, attester_id, expires_at)"
        " SELECT hash, tenant, attester_id, expires_at FROM common",
        "": "INSERT INTO attester_uuid (attester_id, smbios_uuid, tenant)"
        " SELECT attester_id, smbios_uuid, tenant FROM common WHERE taken",
    }


def test_columns_of_one_name_must_be_of_one_type():
    first, second = (Unnested("", {"name": kind}, "", tuple) for kind in ("TEXT", "BIGINT"))
    with pytest.raises(ValueError, match="name is of another type"):
        Common(first, second)


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
