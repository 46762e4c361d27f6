"""PE images: what is read, what is refused, and the Authenticode digest."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pe
from verifier.errors import EvidenceError, MalformedInputError, UnsupportedError
from verifier.predict.pe import MAX_SECTIONS, authenticode_digest, parse_pe
from verifier.tcg.algorithms import HashAlg

CODE = pe.Part(".text", pe.NOTHING)
DATA = pe.Part(".data", b"data" * 200)
ALGS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384)


def changed(image: bytes, offset: int, layout: str, value: int) -> bytes:
    size = struct.calcsize(layout)
    return image[:offset] + struct.pack(layout, value) + image[offset + size :]


OPTIONAL = pe.LFANEW + 24


@pytest.mark.parametrize("pe32", [False, True])
@pytest.mark.parametrize("alg", ALGS)
def test_the_digest_covers_all_but_checksum_certificate_entry_and_certificates(alg, pe32):
    image = pe.build(pe.Shape(parts=[CODE, DATA], trailing=b"trail", pe32=pe32))
    digest = authenticode_digest(parse_pe(image), alg)
    assert digest == pe.reference_digest(image, alg.label)
    assert authenticode_digest(parse_pe(changed(image, OPTIONAL + 64, "<I", 0x12345678)), alg) == digest
    for offset in (0, 2, OPTIONAL + 63, OPTIONAL + 68, 0x3FF, len(image) - 1):
        flipped = bytearray(image)
        flipped[offset] ^= 1
        with contextlib.suppress(EvidenceError):  # a byte that makes it an image at all
            assert authenticode_digest(parse_pe(bytes(flipped)), alg) != digest


def test_signing_an_aligned_image_keeps_its_digest_and_a_second_signature_too(pki):
    image = pe.build(pe.Shape(parts=[CODE, DATA]))
    once = pe.sign(image, pki.db.signer())
    twice = pe.sign(once, pki.stranger.signer())
    digests = {authenticode_digest(parse_pe(each), HashAlg.SHA256) for each in (image, once, twice)}
    assert len(digests) == 1


def test_signing_an_image_of_odd_length_changes_its_digest_because_tools_pad_it(pki):
    image = pe.build(pe.Shape(trailing=b"odd"))
    signed = parse_pe(pe.sign(image, pki.db.signer()))
    assert authenticode_digest(parse_pe(image), HashAlg.SHA256) != authenticode_digest(signed, HashAlg.SHA256)
    assert authenticode_digest(signed, HashAlg.SHA256) == pe.reference_digest(pe.padded(image))


def test_sections_are_read_with_their_long_names_and_their_content_in_memory():
    parts = [CODE, pe.Part("/0", b"certificate", 16), pe.Part("/1", b"", 5), pe.Part(".cut", b"abcdef", 3)]
    image = parse_pe(pe.build(pe.Shape(parts=parts, long_names=[".vendor_cert", ".sbatlevel"])))
    assert [section.name for section in image.sections] == [".text", ".vendor_cert", ".sbatlevel", ".cut"]
    contents = [b"".join(image.content(section)) for section in image.sections[1:]]
    assert contents == [b"certificate".ljust(16, b"\0"), bytes(5), b"abc"]


def test_two_sections_of_one_name_are_not_guessed_between():
    image = parse_pe(pe.build(pe.Shape(parts=[CODE, DATA, DATA])))
    assert image.section(".none") is None
    assert image.section(".text") == image.sections[0]
    with pytest.raises(UnsupportedError, match=r"2 sections are called \.data"):
        image.section(".data")


def test_a_section_that_is_mostly_zeros_in_memory_costs_nothing():
    image = parse_pe(pe.build(pe.Shape(parts=[CODE, pe.Part(".bss", b"", 0x7FFFFFFF)])))
    with pytest.raises(UnsupportedError, match="that are not in the file"):
        image.content(image.sections[1])


BASE = pe.build(pe.Shape(parts=[CODE, DATA]))
TABLE = OPTIONAL + 112 + 16 * 8


@pytest.mark.parametrize(
    ("image", "offset", "message"),
    [
        (b"", 0, "does not begin with MZ"),
        (b"MZ", 2, "e_lfanew needs 4 bytes"),
        (changed(BASE, 0x3C, "<I", 0xFFFFFFFF), 0x3C, "no PE signature"),
        (BASE[: pe.LFANEW + 4], pe.LFANEW + 4, "the COFF header needs"),
        (changed(BASE, pe.LFANEW + 6, "<H", MAX_SECTIONS + 1), pe.LFANEW + 6, "at most"),
        (changed(BASE, OPTIONAL, "<H", 0x107), OPTIONAL, "magic 0x0107"),
        (changed(BASE, OPTIONAL + 60, "<I", 8), OPTIONAL + 60, "SizeOfHeaders is 8"),
        (changed(BASE, OPTIONAL + 60, "<I", 1 << 31), OPTIONAL + 60, "SizeOfHeaders"),
        (changed(BASE, OPTIONAL + 108, "<I", 17), OPTIONAL + 108, "17 data directories"),
        (changed(BASE, TABLE + 16, "<I", 1 << 30), TABLE + 16, "a section of 1073741824 bytes"),
        (changed(BASE, TABLE + 20, "<I", len(BASE) - 1), TABLE + 16, "a section of 512 bytes"),
        (changed(BASE, OPTIONAL + 112 + 36, "<I", 1 << 30), OPTIONAL + 112 + 32, "a certificate table"),
        (changed(changed(BASE, TABLE + 16, "<I", 0x400), TABLE + 20, "<I", 0x200), pe.LFANEW + 6, "claim"),
    ],
)
def test_ranges_outside_the_file_are_refused_where_they_stand(image, offset, message):
    with pytest.raises(MalformedInputError, match=message) as caught:
        parse_pe(image)
    assert caught.value.offset == offset


def test_a_certificate_table_inside_the_sections_is_what_firmware_refuses():
    image = parse_pe(changed(BASE + bytes(8), OPTIONAL + 112 + 36, "<I", 0x200))
    with pytest.raises(UnsupportedError, match="overlaps"):
        authenticode_digest(image, HashAlg.SHA256)


@settings(max_examples=300, deadline=400)
@given(st.data())
def test_hostile_images_give_an_image_or_the_typed_error(data):
    image = bytearray(pe.build(pe.Shape(parts=[CODE, pe.Part("/0", b"x" * 60)], long_names=[".linux"])))
    for _ in range(data.draw(st.integers(1, 12))):
        position = data.draw(st.integers(0, 0x260))
        image[position] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x20]))
    hostile = bytes(image[: data.draw(st.integers(0, len(image)))])
    try:
        parsed = parse_pe(hostile)
        authenticode_digest(parsed, HashAlg.SHA256)
        for section in parsed.sections:
            parsed.content(section)
    except EvidenceError as error:
        assert error.offset is None or 0 <= error.offset <= 0xFFFFFFFF
