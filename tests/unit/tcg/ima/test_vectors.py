"""The committed vectors: every template, byte order and rule, without whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vectors.ima.make import FILE, document
from verifier.tcg.algorithms import HASH_BY_LABEL
from verifier.tcg.ima.parse import parse_list, to_binary
from verifier.tcg.ima.replay import replay
from verifier.tcg.ima.rules import BankRule

VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["name"])
def test_a_vector_is_read_and_leads_to_its_pcrs(vector: dict[str, Any]) -> None:
    raw, text = bytes.fromhex(vector["list"]), bytes.fromhex(vector["ascii"])
    parsed = parse_list(raw)
    assert parsed.encoding is not None
    assert parsed.encoding.byte_order == vector["byte_order"]
    assert [one.offset for one in parsed.entries] == vector["offsets"]
    rule = BankRule.PADDED_SHA1 if vector["padded"] else BankRule.OWN_HASH
    for bank, stated in vector["pcrs"].items():
        own = replay(parsed.entries, HASH_BY_LABEL[bank], rule, parsed.encoding.byte_order)
        assert {str(pcr): value.hex() for pcr, value in own.items()} == stated
    if not vector["name"].startswith("ima big"):
        assert to_binary(text) == raw
    assert [one.fields.path for one in parse_list(text).entries] == [
        one.fields.path for one in parsed.entries
    ]


def test_the_vectors_are_those_of_their_generator() -> None:
    assert FILE.read_text() == document(), "run python -m tests.vectors.ima.make"
