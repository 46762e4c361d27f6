import pytest

from verifier.errors import MalformedInputError
from verifier.tcg.credential import IdObject, marshal_ecc_point, parse_id_object


def test_an_id_object_has_one_size_outside_and_one_before_the_hmac_only():
    assert IdObject(b"h" * 32, b"secret").marshal() == b"\x00\x28\x00\x20" + b"h" * 32 + b"secret"
    assert parse_id_object(IdObject(b"h" * 32, b"secret").marshal()) == IdObject(b"h" * 32, b"secret")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x00\x03\x00\x00", "size 3, but 2"),
        (b"\x00\x02\x00\x05", "integrityHMAC claims 5"),
        (b"\x00", "size needs"),
    ],
)
def test_a_malformed_id_object(data, error):
    with pytest.raises(MalformedInputError, match=error) as caught:
        parse_id_object(data)
    assert caught.value.structure == "TPM2B_ID_OBJECT"


def test_a_point_is_two_sized_coordinates():
    assert marshal_ecc_point(b"x", b"yy") == b"\x00\x01x\x00\x02yy"
