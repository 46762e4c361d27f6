import pytest

from verifier.errors import MalformedInputError
from verifier.reasons import Reason
from verifier.tcg.reader import Reader


def test_reads_fields_in_both_byte_orders_and_tells_where_it_stands():
    reader = Reader(bytes(range(1, 30)), "X")
    assert (reader.u8(), reader.u16(), reader.u32()) == (1, 0x0203, 0x04050607)
    assert reader.u64() == 0x08090A0B0C0D0E0F
    assert (reader.u16le(), reader.u32le()) == (0x1110, 0x15141312)
    assert reader.u64le() == 0x1D1C1B1A19181716
    assert (reader.offset, reader.remaining) == (29, 0)
    reader.finish()


def test_sized_content_is_exactly_its_size():
    reader = Reader(b"\x00\x03abcd", "X")
    assert reader.sized_u16("name") == b"abc"
    assert reader.take(1) == b"d"


@pytest.mark.parametrize(
    ("method", "size"),
    [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8), ("u16le", 2), ("u32le", 4), ("u64le", 8)],
)
def test_a_truncated_number_is_reported_where_it_begins_and_consumes_nothing(method, size):
    reader = Reader(b"\x00" + bytes(size - 1), "TPMS_X")
    reader.u8()
    with pytest.raises(MalformedInputError) as caught:
        getattr(reader, method)("count")
    assert (caught.value.structure, caught.value.offset) == ("TPMS_X", 1)
    assert caught.value.reason is Reason.MALFORMED_STRUCTURE
    assert caught.value.detail == f"count needs {size} bytes, {size - 1} are left"
    assert reader.offset == 1


def test_a_size_beyond_the_end_is_reported_at_the_size_field():
    reader = Reader(b"\x07\xff\xffabc", "X")
    reader.u8()
    with pytest.raises(MalformedInputError, match="name claims 65535 bytes, 3 are left") as caught:
        reader.sized_u16("name")
    assert caught.value.offset == 1


def test_a_size_above_the_limit_is_refused_even_when_the_bytes_are_there():
    with pytest.raises(MalformedInputError, match="name is 5 bytes, at most 4 are allowed") as caught:
        Reader(b"\x00\x05abcde", "X").sized_u16("name", limit=4)
    assert caught.value.offset == 0


def test_a_negative_count_cannot_step_back():
    reader = Reader(b"abcd", "X")
    reader.take(2)
    with pytest.raises(MalformedInputError):
        reader.take(-1)
    assert reader.offset == 2


def test_trailing_bytes_are_an_error_at_their_offset():
    reader = Reader(b"abc", "X")
    reader.u8()
    with pytest.raises(MalformedInputError, match="2 bytes follow the end") as caught:
        reader.finish()
    assert caught.value.offset == 1
