"""Unified kernel images: what each stub measures and what it hands to the kernel."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import pe
from tests.unit.predict import loaders
from verifier.errors import EvidenceError, UnsupportedError
from verifier.predict.cpio import archive_of_one
from verifier.predict.errors import PredictionError
from verifier.predict.kernel import kernel_events, kernel_version
from verifier.predict.model import predicted_pcr
from verifier.predict.pe import parse_pe
from verifier.predict.uki import (
    PHASES,
    UKI_PCR,
    adds_secret,
    final_initrd,
    from_parts,
    is_uki,
    measured_sections,
    read_uki,
    section_events,
    stub_version,
)
from verifier.tcg.algorithms import HashAlg

SHA256 = HashAlg.SHA256
EVERYTHING = [
    pe.Part(".hwids", b"hwids"),
    pe.Part(".profile", b"ID=main\n"),
    pe.Part(".pcrsig", b"{}"),
    pe.Part(".pcrpkey", b"key"),
    pe.Part(".splash", b"splash"),
    pe.Part(".dtb", b"dtb"),
    pe.Part(".uname", b"6.1"),
    pe.Part(".ucode", b"ucode"),
    pe.Part(".initrd", b"initrd!"),
    pe.Part(".cmdline", b"root=/dev/vda2"),
    pe.Part(".osrel", b"ID=lab\n"),
]
"""In no order a stub would measure them in."""


def read(image: bytes):
    return read_uki(parse_pe(image))


@pytest.mark.parametrize(
    ("version", "order"),
    [
        (252, ".linux .osrel .cmdline .initrd .splash .dtb .pcrpkey"),
        (253, ".linux .osrel .cmdline .initrd .splash .dtb .pcrpkey"),
        (254, ".linux .osrel .cmdline .initrd .splash .dtb .uname .sbat .pcrpkey"),
        (256, ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey"),
        (257, ".linux .osrel .cmdline .initrd .ucode .splash .dtb .uname .sbat .pcrpkey .profile .hwids"),
    ],
)
def test_sections_are_measured_in_the_stubs_order_by_name_and_content(version, order):
    events = section_events(read(loaders.uki(version, parts=EVERYTHING)), SHA256)
    assert [event.label for event in events[1::2]] == order.split()
    assert [event.label for event in events[0::2]] == [f"{name} (name)" for name in order.split()]
    named = {event.label: event.digest for event in events}
    assert named[".initrd (name)"] == hashlib.sha256(b".initrd\0").digest()
    assert named[".initrd"] == hashlib.sha256(b"initrd!").digest()
    assert ".pcrsig" not in named


def test_known_sections_grow_with_the_version():
    assert ".efifw" in measured_sections(258)
    assert ".efifw" not in measured_sections(257)


def test_content_is_measured_at_its_size_in_memory():
    parts = [pe.Part(".cmdline", b"quiet", 8), pe.Part(".osrel", b"longer than wanted", 6)]
    named = {
        event.label: event.digest for event in section_events(read(loaders.uki(252, parts=parts)), SHA256)
    }
    assert named[".cmdline"] == hashlib.sha256(b"quiet\0\0\0").digest()
    assert named[".osrel"] == hashlib.sha256(b"longer").digest()


def test_an_empty_section_is_not_there():
    assert ".osrel" not in read(loaders.uki(252, parts=[pe.Part(".osrel", b"")])).sections


def test_the_first_profile_overrides_the_sections_before_it():
    parts = [
        pe.Part(".cmdline", b"base"),
        pe.Part(".osrel", b"ID=lab\n"),
        pe.Part(".profile", b"ID=one\n"),
        pe.Part(".cmdline", b"one"),
        pe.Part(".profile", b"ID=two\n"),
        pe.Part(".cmdline", b"two"),
    ]
    stub = loaders.stub(257)
    image = pe.build(pe.Shape(parts=[*stub, pe.Part(".linux", loaders.kernel()), *parts]))
    chosen = read(image)
    assert (chosen.command_line, chosen.text(".profile"), chosen.text(".osrel")) == (
        "one",
        "ID=one\n",
        "ID=lab\n",
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (loaders.uki(257, parts=[pe.Part(".dtbauto", b"dtb")]), "which .dtbauto is taken"),
        (loaders.uki(258, parts=[pe.Part(".efifw", b"fw")]), "which .efifw is taken"),
        (
            loaders.uki(252, parts=[pe.Part(".cmdline", b"a"), pe.Part(".cmdline", b"b")]),
            "two sections are called",
        ),
        (loaders.uki(251), "older than 252"),
        (
            pe.build(pe.Shape(parts=[loaders.CODE, pe.Part(".linux", b"k")])),
            "does not say which systemd-stub",
        ),
    ],
)
def test_what_stubs_decide_on_the_machine_is_not_guessed(image, message):
    with pytest.raises(UnsupportedError, match=message):
        read(image)


def test_an_image_without_a_kernel_is_no_unified_kernel_image():
    image = loaders.uki(252, kernel_image=b"")
    assert not is_uki(parse_pe(image))
    with pytest.raises(PredictionError, match=r"no \.linux section"):
        read(image)
    assert is_uki(parse_pe(loaders.uki()))


@pytest.mark.parametrize(
    "text", ["#### LoaderInfo: systemd-boot 252 ####", "#### LoaderInfo: systemd-stub x ####", ""]
)
def test_another_stub_is_not_systemds(text):
    image = parse_pe(pe.build(pe.Shape(parts=loaders.stub(text=text))))
    with pytest.raises(UnsupportedError, match="does not say which"):
        stub_version(image)


@pytest.mark.parametrize(
    ("version", "expected"),
    [(252, "  root=/dev/vda2 quiet"), (254, "  root=/dev/vda2 quiet"), (255, "root=/dev/vda2 quiet")],
)
def test_the_command_line_is_tidied_as_the_stub_tidies_it(version, expected):
    line = pe.Part(".cmdline", b" \troot=/dev/vda2\nquiet \n\0garbage")
    assert read(loaders.uki(version, parts=[line])).command_line == expected


def test_a_command_line_that_is_no_text_is_refused():
    uki = read(loaders.uki(252, parts=[pe.Part(".cmdline", b"\xff\xfe")]))
    with pytest.raises(PredictionError, match="not UTF-8"):
        _ = uki.command_line


def test_the_initrd_is_the_images_own_where_nothing_is_added():
    assert b"".join(final_initrd(read(loaders.uki(252)))) == b"initrd!"
    assert final_initrd(read(loaders.uki(252, parts=[]))) == ()


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (252, ["tpm2-pcr-signature.json", "tpm2-pcr-public-key.pem"]),
        (257, ["tpm2-pcr-signature.json", "tpm2-pcr-public-key.pem", "os-release", "profile"]),
    ],
)
def test_the_stub_appends_what_it_packs_to_an_aligned_initrd(version, names):
    contents = {
        "tpm2-pcr-signature.json": b"{}",
        "tpm2-pcr-public-key.pem": b"key",
        "os-release": b"ID=lab\n",
    }
    contents["profile"] = b"ID=main\n"
    first = b"ucode\0\0\0initrd!\0" if version >= 256 else b"initrd!\0"
    parts = [*(part for part in EVERYTHING if part.name != ".profile"), pe.Part(".profile", b"ID=main\n")]
    expected = first + b"".join(archive_of_one(name, contents[name]) for name in names)
    assert b"".join(final_initrd(read(loaders.uki(version, parts=parts)))) == expected


@pytest.mark.skipif(shutil.which("cpio") is None, reason="SKIPPED: cpio is not installed")
def test_the_archive_is_one_that_cpio_reads(tmp_path: Path):
    archive = archive_of_one("os-release", b"ID=lab\n")
    assert len(archive) % 4 == 0
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / ".extra" / "os-release").read_bytes() == b"ID=lab\n"


def test_a_stub_that_knows_boot_secrets_is_recognised_by_its_code_not_by_the_payload():
    secret = "LoaderBootSecret".encode("utf-16-le")
    assert adds_secret(parse_pe(loaders.uki(262, code=pe.NOTHING + secret)))
    assert not adds_secret(parse_pe(loaders.uki(257, parts=[pe.Part(".initrd", secret)])))


def test_parts_make_the_same_measurements_as_the_image_built_of_them():
    stub = parse_pe(pe.build(pe.Shape(parts=loaders.stub(254))))
    built = read(loaders.uki(254))
    contents = {".linux": loaders.kernel(), ".osrel": b"ID=lab\n", ".cmdline": b"root=/dev/vda2 quiet"}
    parts = from_parts(stub, contents | {".uname": b"6.1", ".initrd": b"initrd!"})
    assert section_events(parts, SHA256) == section_events(built, SHA256)
    other = from_parts(stub, contents | {".sbat": b"merged"})
    assert b"".join(other.sections[".sbat"]) == b"merged"
    with pytest.raises(UnsupportedError, match=r"no stub reads a section \.other"):
        from_parts(stub, {".other": b""})


def test_phases_are_alternatives_behind_the_logged_events():
    events = section_events(read(loaders.uki()), SHA256)
    predicted = predicted_pcr(UKI_PCR, events, SHA256, PHASES)
    assert len(predicted.values) == len(PHASES)
    value = bytes(32)
    for digest in [event.digest for event in events] + [SHA256.digest(b"sysinit"), SHA256.digest(b"ready")]:
        value = SHA256.digest(value + digest)
    assert [each.when for each in predicted.values if each.value == value] == ["after sysinit, ready"]


def test_optional_events_make_one_value_per_choice_and_too_many_are_refused():
    base = kernel_events("quiet", (b"initrd",), SHA256)
    optional = [event.__class__(**{**_fields(event), "optional": True}) for event in base]
    assert [each.when for each in predicted_pcr(9, optional, SHA256).values] == [
        "",
        "without Linux initrd",
        "without LOADED_IMAGE::LoadOptions",
        "without LOADED_IMAGE::LoadOptions, Linux initrd",
    ]
    with pytest.raises(UnsupportedError, match="8 optional events"):
        predicted_pcr(9, optional * 4, SHA256)


def _fields(event) -> dict[str, object]:
    return {name: getattr(event, name) for name in ("pcr", "event_type", "label", "digest")}


def test_the_kernel_measures_its_options_in_utf16_with_nul_and_its_initrd():
    options, initrd = kernel_events("quiet ö", (b"in", b"itrd"), SHA256)
    assert options.digest == hashlib.sha256("quiet ö\0".encode("utf-16-le")).digest()
    assert initrd.digest == hashlib.sha256(b"initrd").digest()
    assert len(kernel_events("quiet", None, SHA256)) == 1


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (loaders.kernel("6.1.0-55-cloud-amd64"), (6, 1)),
        (loaders.kernel("5.10.0"), (5, 10)),
        (loaders.kernel("mainline"), None),
        (b"MZ", None),
        (b"", None),
        (bytes(0x202) + b"HdrS", None),
    ],
)
def test_the_version_of_an_x86_kernel_is_in_its_setup_header(content, version):
    assert kernel_version((content,)) == version


@settings(max_examples=150, deadline=500)
@given(st.data())
def test_hostile_images_give_sections_or_the_typed_error(data):
    image = bytearray(loaders.uki(257, parts=EVERYTHING))
    for _ in range(data.draw(st.integers(1, 12))):
        image[data.draw(st.integers(0x40, 0x500))] = data.draw(
            st.sampled_from([0, 1, 0x20, 0x2E, 0x7F, 0xFF])
        )
    try:
        uki = read(bytes(image))
        section_events(uki, SHA256)
        final_initrd(uki)
        kernel_version(uki.sections[".linux"])
        _ = uki.command_line
    except EvidenceError:
        pass
