"""What is held of a list survives the store, and what cannot be read asks for the list anew."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import structs

from verifier.appraisal.ima.state import INITIAL
from verifier.errors import StoredDataDamaged
from verifier.ports import BootRecord
from verifier.service.ima_record import ImaRecord, read_record, wanted
from verifier.service.model import ImaWanted
from verifier.tcg.attest import ClockInfo

RECORD = ImaRecord(offset=4711, base=12, states={b"\xff" * 32: INITIAL, b"\0" * 32: INITIAL})


def boot(**changes) -> BootRecord:
    made = BootRecord(
        clock=ClockInfo(1, 2, 3, True),
        firmware_version=1,
        boot_log_sha256=None,
        boot_id="b-1",
        seen_at=datetime(2026, 1, 1, tzinfo=UTC),
        ima=RECORD.to_json(),
    )
    return structs.replace(made, **changes)


def test_a_record_is_read_back_equal():
    assert read_record(RECORD.to_json()) == RECORD
    assert RECORD.proven == 4723


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"offset":1,"base":0,"resend":false,"states":{"zz":{}}}'])
def test_what_cannot_be_read_is_named_and_asks_for_the_whole_list(text):
    with pytest.raises(StoredDataDamaged):
        read_record(text)
    if not text.startswith('{"'):
        assert wanted(boot(ima=text)) == ImaWanted()


def test_a_list_is_asked_for_from_where_it_is_proven_in_the_boot_it_belongs_to():
    assert wanted(boot()) == ImaWanted(offset=4711, boot_id="b-1")
    for other in (
        None,
        boot(ima=None),
        boot(boot_id=None),
        boot(ima=structs.replace(RECORD, resend=True).to_json()),
    ):
        assert wanted(other) == ImaWanted()
