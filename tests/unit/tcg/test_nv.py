"""Names of NV indices, and the public areas they name."""

from __future__ import annotations

import pytest

from verifier.errors import MalformedInputError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.nv import NvAttributes, parse_nv_public

INDEX, POLICY = 0x01D10200, "A765636C5A04447BD790486F98DAF82CA694868DF19C1AF80632A52261E374EF"
PUBLIC = f"{INDEX:08x}000b280600480020{POLICY}0020"


def test_a_public_area_has_the_name_a_tpm_gave_it() -> None:
    """An NvPCR of systemd 262, as tpm2_nvreadpublic of another project's walk-through prints it."""
    public = parse_nv_public(bytes.fromhex(PUBLIC))
    assert (public.handle, public.size, public.name_alg) == (INDEX, 32, HashAlg.SHA256)
    assert public.name.hex() == "000bf08c214c037f85d3520549dba23471a88af8aab1913bf269edfbb44b6d2de9f5"
    assert public.extends
    unwritten = parse_nv_public(bytes.fromhex(PUBLIC.replace("28060048", "08060048")))
    assert unwritten.name.hex() == "000bf2e615c91fc1738ee23d6906f3cc5da932ed3d3dd19f99de0d0e0839712d8ecf"
    assert not unwritten.extends


@pytest.mark.parametrize("kind", range(16))
def test_only_one_type_of_index_extends(kind: int) -> None:
    attributes = NvAttributes.WRITTEN | kind << 4
    public = parse_nv_public(bytes.fromhex(f"{INDEX:08x}000b{attributes:08x}00000020"))
    assert public.extends is (kind == 4)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (PUBLIC + "00", len(PUBLIC) // 2),
        (PUBLIC[:-2], len(PUBLIC) // 2 - 2),
        (PUBLIC.replace("000b2806", "00ff2806"), 4),
        ("", 0),
    ],
)
def test_anything_else_is_refused_with_its_place(data: str, offset: int) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_nv_public(bytes.fromhex(data))
    assert caught.value.offset == offset
