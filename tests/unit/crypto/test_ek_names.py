"""Names: compared by RFC 5280, section 7.1, and shown without tricks."""

from __future__ import annotations

import pytest

from tests import pki
from tests.conftest import shared_path
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.names import MAX_ATTRIBUTES, attributes, canonical_name, display_name
from verifier.errors import MalformedInputError

CN, ORGANIZATION, UNKNOWN = "2.5.4.3", "2.5.4.10", "1.2.3.4"


def one(tag: int, value: bytes) -> bytes:
    return pki.seq(pki.rdn((CN, pki.tlv(tag, value))))


@pytest.mark.parametrize(
    "other",
    [
        one(0x13, b"Some CA"),
        one(0x16, b"some ca"),
        one(0x0C, b" Some   CA "),
        one(0x1E, "Some CA".encode("utf-16-be")),
        one(0x1C, "Some CA".encode("utf-32-be")),
        one(0x0C, "Ｓome CA".encode()),  # noqa: RUF001 - full width, as a compatibility form
    ],
)
def test_one_name_in_many_writings(other):
    assert canonical_name(one(0x0C, b"Some CA")) == canonical_name(other)


@pytest.mark.parametrize(
    "other",
    [
        one(0x0C, b"SomeCA"),
        one(0x0C, b"Some CA 2"),
        pki.seq(pki.rdn((ORGANIZATION, pki.utf8("Some CA")))),
        pki.seq(pki.rdn((CN, pki.utf8("Some"))), pki.rdn((CN, pki.utf8("CA")))),
        pki.seq(),
        one(0x03, b"\x00Some CA"),
    ],
)
def test_other_names(other):
    assert canonical_name(one(0x0C, b"Some CA")) != canonical_name(other)


def test_no_text_can_pose_as_another_structure():
    """Lengths are part of the form, so that no value can imitate a boundary."""
    joined = pki.seq(pki.rdn((CN, pki.utf8("a")), (CN, pki.utf8("b"))))
    apart = pki.seq(pki.rdn((CN, pki.utf8("a"))), pki.rdn((CN, pki.utf8("b"))))
    assert canonical_name(joined) != canonical_name(apart)


def test_order_inside_an_rdn_does_not_matter_but_order_of_rdns_does():
    first, second = (CN, pki.utf8("a")), (ORGANIZATION, pki.utf8("b"))
    assert canonical_name(pki.seq(pki.rdn(first, second))) == canonical_name(pki.seq(pki.rdn(second, first)))
    ordered, swapped = pki.seq(pki.rdn(first), pki.rdn(second)), pki.seq(pki.rdn(second), pki.rdn(first))
    assert canonical_name(ordered) != canonical_name(swapped)


def test_real_roots_named_by_their_children_in_another_string_type():
    """AMD's intermediates name the root as PrintableString, the root itself as UTF8String."""
    store = shared_path("corpus/tpm-ca-store")
    child = parse_certificate((store / "181c7729a8e1b0db.der").read_bytes())
    root = parse_certificate((store / "b73f14dea3bdaa0b.der").read_bytes())
    assert child.issuer != root.subject
    assert child.issuer_key == root.subject_key


def test_display():
    name = pki.seq(
        pki.rdn((ORGANIZATION, pki.utf8("Acme"))),
        pki.rdn((CN, pki.utf8("Root")), (UNKNOWN, pki.tlv(0x03, b"\x00\x01"))),
    )
    assert display_name(name) == "CN=Root+1.2.3.4=03020001, O=Acme"
    assert display_name(pki.seq()) == ""


def test_display_cannot_move_the_cursor_or_fill_the_screen():
    shown = display_name(pki.common_name("a\x1b[2J\n\u202eb" + "x" * 1000))
    assert shown.isprintable()
    assert len(shown) < 500


def test_text_that_is_none():
    for tag, value in ((0x0C, b"\xff"), (0x1E, b"a"), (0x1C, b"abc")):
        with pytest.raises(MalformedInputError) as caught:
            canonical_name(one(tag, value))
        assert caught.value.structure == "Name"
    assert attributes(one(0x14, b"caf\xe9")) == ((CN, "café"),)


def test_size_is_bounded():
    name = pki.seq(*(pki.rdn((CN, pki.utf8("x"))) for _ in range(MAX_ATTRIBUTES + 1)))
    with pytest.raises(MalformedInputError, match="more than"):
        attributes(name)
