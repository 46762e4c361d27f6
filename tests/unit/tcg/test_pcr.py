import copy
import hashlib
import pickle

import pytest

from tests.simulator import marshal
from verifier.errors import MalformedInputError, UnsupportedError
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.pcr import FixedPcrs, PcrSelection, PcrValueError, quoted_digest, read_selections
from verifier.tcg.reader import Reader

SHA1, SHA256 = HashAlg.SHA1, HashAlg.SHA256


def read(data: bytes):
    reader = Reader(data, "TPMS_ATTEST")
    selections = read_selections(reader)
    reader.finish()
    return selections


def test_banks_keep_their_order_and_duplicates_stay():
    data = marshal.pcr_selection_list([(SHA256, range(24)), (SHA1, [0, 23]), (SHA256, [7])])
    assert read(data) == (
        PcrSelection(SHA256, tuple(range(24))),
        PcrSelection(SHA1, (0, 23)),
        PcrSelection(SHA256, (7,)),
    )


@pytest.mark.parametrize("size", range(5))
def test_every_bitmap_size_up_to_32_pcrs_is_represented(size):
    data = marshal.u32(1) + marshal.u16(0x000B) + bytes([size]) + b"\xff" * size
    assert read(data) == (PcrSelection(SHA256, tuple(range(8 * size))),)


def test_a_larger_bitmap_is_refused_at_its_size_field():
    data = marshal.u32(1) + marshal.u16(0x000B) + b"\x05" + bytes(5)
    with pytest.raises(MalformedInputError, match="sizeofSelect 5") as caught:
        read(data)
    assert caught.value.offset == 6


@pytest.mark.parametrize("count", [17, 0xFFFFFFFF])
def test_a_hostile_count_is_refused_before_anything_is_read(count):
    with pytest.raises(MalformedInputError, match=f"{count} PCR selections") as caught:
        read(marshal.u32(count) + bytes(1000))
    assert caught.value.offset == 0


def test_an_unknown_bank_is_unsupported_not_skipped():
    data = (
        marshal.u32(2) + marshal.u16(0x000B) + b"\x03" + bytes(3) + marshal.u16(0x9999) + b"\x03" + bytes(3)
    )
    with pytest.raises(UnsupportedError, match="0x9999") as caught:
        read(data)
    assert caught.value.offset == 10


def test_the_digest_is_over_the_values_in_the_order_of_the_selections():
    values = {SHA256: {0: b"a" * 32, 1: b"b" * 32}, SHA1: {5: b"c" * 20}}
    selections = [PcrSelection(SHA1, (5,)), PcrSelection(SHA256, (0, 1)), PcrSelection(SHA256, (0,))]
    joined = b"c" * 20 + b"a" * 32 + b"b" * 32 + b"a" * 32
    assert quoted_digest(HashAlg.SHA384, selections, values) == hashlib.sha384(joined).digest()


def test_values_that_the_quote_does_not_cover_change_nothing():
    selection = [PcrSelection(SHA256, (0,))]
    alone = quoted_digest(SHA256, selection, {SHA256: {0: bytes(32)}})
    assert quoted_digest(SHA256, selection, {SHA256: {0: bytes(32), 1: b"x" * 32}, SHA1: {}}) == alone


@pytest.mark.parametrize("values", [{}, {SHA256: {}}, {SHA256: {1: bytes(32)}}, {SHA1: {0: bytes(20)}}])
def test_a_missing_value_is_a_typed_error_naming_bank_and_pcr(values):
    with pytest.raises(
        PcrValueError, match="PCR 0 of bank sha256: the quote covers it but no value"
    ) as caught:
        quoted_digest(SHA256, [PcrSelection(SHA256, (0,))], values)
    assert (caught.value.bank, caught.value.pcr) == (SHA256, 0)
    assert caught.value.reason is Reason.QUOTE_PCR_DIGEST


def test_moving_a_byte_between_neighbours_does_not_pass_for_the_same_values():
    """The digest is of a plain concatenation: 33 + 31 bytes hash as 32 + 32 do."""
    honest = {SHA256: {0: b"a" * 32, 1: b"b" * 32}}
    shifted = {SHA256: {0: b"a" * 32 + b"b", 1: b"b" * 31}}
    selection = [PcrSelection(SHA256, (0, 1))]
    quoted_digest(SHA256, selection, honest)
    with pytest.raises(PcrValueError, match="value of 33 bytes, 32 expected"):
        quoted_digest(SHA256, selection, shifted)


def test_a_hash_this_build_lacks_is_unsupported(monkeypatch):
    monkeypatch.setattr(HashAlg.SM3_256, "new", None)
    with pytest.raises(UnsupportedError, match="sm3_256"):
        quoted_digest(HashAlg.SM3_256, [], {})


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.update({0: b"other"}),
        lambda held: held.__setitem__(0, b"other"),
        lambda held: held.__delitem__(0),
        lambda held: held.__ior__({0: b"other"}),
        lambda held: held.setdefault(9, b"other"),
        lambda held: held.pop(0),
        lambda held: held.popitem(),
        lambda held: held.clear(),
    ],
)
def test_fixed_values_cannot_be_changed_in_either_of_their_levels(change):
    given = {SHA256: {0: bytes(32), 7: bytes(32)}}
    fixed = FixedPcrs(given)
    for held in (fixed, fixed[SHA256]):
        with pytest.raises(TypeError, match="nobody can change them"):
            change(held)
    given[SHA256][0] = b"other"
    assert fixed == {SHA256: {0: bytes(32), 7: bytes(32)}}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda fixed: pickle.loads(pickle.dumps(fixed))])
def test_fixed_values_reach_another_process_as_they_are(again):
    fixed = FixedPcrs({SHA256: {0: bytes(32)}, SHA1: {}})
    assert again(fixed) == fixed
    assert type(again(fixed)) is FixedPcrs
    with pytest.raises(TypeError):
        again(fixed)[SHA256][0] = b"other"
