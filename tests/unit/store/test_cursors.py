"""A cursor is given out, or refused: any text a client sends ends in one of the two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import EvidenceError
from verifier.ports import FleetFilter, Lifecycle
from verifier.reasons import Reason, Tier
from verifier.store.cursors import decode_cursor, encode_cursor

EVERYONE = FleetFilter()


@given(st.text(min_size=1, max_size=40), st.text(max_size=20))
def test_it_names_where_to_go_on(after, tenant):
    assert decode_cursor(encode_cursor(after, tenant, EVERYONE), tenant, EVERYONE) == after


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{0,300}", fullmatch=True))
def test_made_up_text_is_refused(text):
    with pytest.raises(EvidenceError) as refused:
        decode_cursor(text, "default", EVERYONE)
    assert refused.value.reason is Reason.MALFORMED_REQUEST
    assert refused.value.structure == "cursor"


@pytest.mark.parametrize(
    "where",
    [
        FleetFilter(tier=Tier.AFFIRMING),
        FleetFilter(lifecycle=Lifecycle.STALE),
        FleetFilter(label=("a", "b")),
        FleetFilter(search="x"),
    ],
)
def test_it_serves_no_other_listing(where):
    cursor = encode_cursor("att-1", "default", EVERYONE)
    with pytest.raises(EvidenceError):
        decode_cursor(cursor, "default", where)
    assert decode_cursor(encode_cursor("att-1", "default", where), "default", where) == "att-1"
