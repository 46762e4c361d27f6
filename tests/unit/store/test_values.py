"""Values survive storage: exact times, all of a u64, any text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import StoredDataDamaged
from verifier.ports import GuestIdentity, Scope
from verifier.store import values


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_a_time_comes_back_to_the_microsecond(moment):
    assert values.moment(values.micros(moment)) == moment


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_stored_times_sort_as_times_do(one, two):
    assert (values.micros(one) < values.micros(two)) == (one < two)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        values.micros(datetime(2026, 3, 1))  # noqa: DTZ001 - the point of the test


@given(st.integers(0, 2**64 - 1))
def test_every_u64_fits_a_signed_column(value):
    stored = values.signed64(value)
    assert -(2**63) <= stored < 2**63
    assert values.unsigned64(stored) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_what_is_no_u64_is_refused(value):
    with pytest.raises(ValueError, match="u64"):
        values.signed64(value)


@given(st.builds(GuestIdentity, hostname=st.none() | st.text(), smbios_uuid=st.none() | st.text()))
def test_what_a_guest_says_is_kept_and_its_json_has_no_nul(said):
    stored = values.json_text(said)
    assert "\x00" not in stored
    assert values.read_identity(stored) == said


@given(st.text(), st.text())
def test_a_search_line_cannot_be_broken_by_a_guest(hostname, uuid):
    text = values.search_text("att-1", hostname, [uuid])
    assert text.count("\n") == 2
    assert "\x00" not in text


def test_scopes_are_written_in_one_order():
    assert values.scopes_text({Scope.JOIN, Scope.ADMIN}) == '["admin","join"]'
    assert values.read_scopes('["admin","join"]') == {Scope.JOIN, Scope.ADMIN}


@pytest.mark.parametrize(
    ("read", "stored"),
    [
        (values.read_identity, "[]"),
        (values.read_identity, '{"hostname": 7}'),
        (values.read_object, "{"),
        (values.read_labels, '{"a": 1}'),
        (values.read_strings, "null"),
        (values.read_scopes, '["root"]'),
    ],
)
def test_what_only_we_write_and_cannot_read_is_damage(read, stored):
    with pytest.raises(StoredDataDamaged):
        read(stored)
