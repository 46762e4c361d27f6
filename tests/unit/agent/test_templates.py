"""Templates and policies against tpm2-pytss and the EK Credential Profile's constants."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.templates import (
    EK_SLOTS,
    AkKind,
    TemplateError,
    activation_branches,
    ak_template,
    name_of,
    normalised,
    parse_public,
    policy_or_digest,
    policy_secret_digest,
    with_nonce,
)
from tests.conftest import ROOT
from verifier.tcg.public import ak_attribute_problems
from verifier.tcg.public import parse_public as verifier_parse

# TCG EK Credential Profile 2.5, B.3 (PolicyA) and B.6 (PolicyB for each name algorithm)
POLICY_A = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
POLICY_B = {
    "sha256": "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
    "sha384": "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
    "sha512": (
        "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4"
        "29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea"
    ),
}
PYTSS_NAMES = {
    "ecc-p256": "EK-ECC256",
    "ecc-p256-high": "EK-HIGH-ECC256",
    "ecc-p384-high": "EK-HIGH-ECC384",
    "ecc-p521-high": "EK-HIGH-ECC521",
    "rsa-2048": "EK-RSA2048",
    "rsa-2048-high": "EK-HIGH-RSA2048",
    "rsa-3072-high": "EK-HIGH-RSA3072",
    "rsa-4096-high": "EK-HIGH-RSA4096",
}
EVIDENCE = ROOT / "policies" / "evidence" / "uki-sb-on"
TEMPLATES = [slot.template for slot in EK_SLOTS if slot.template]


@pytest.mark.parametrize("slot", [slot for slot in EK_SLOTS if slot.template], ids=lambda slot: slot.name)
def test_ek_templates_are_byte_for_byte_those_of_the_tss(slot):
    templates = pytest.importorskip("tpm2_pytss.internal.templates")
    theirs = templates.ek_template.lookup(PYTSS_NAMES[slot.name])
    assert slot.template == theirs.template.marshal()
    assert slot.certificate_index == int(theirs.cert_index)
    assert slot.nonce_index == (None if theirs.nonce_index is None else int(theirs.nonce_index))


def test_policy_digests_are_the_profile_s():
    assert policy_secret_digest("sha256").hex() == POLICY_A
    assert {name: policy_or_digest(name).hex() for name in POLICY_B} == POLICY_B


def test_low_range_needs_no_branch_high_range_both_and_a_foreign_policy_is_refused():
    by_name = {slot.name: parse_public(slot.template) for slot in EK_SLOTS if slot.template}
    assert activation_branches(by_name["rsa-2048"]) == ()
    first, second = activation_branches(by_name["ecc-p384-high"])
    assert first == policy_secret_digest("sha384")
    assert len(second) == 48
    with pytest.raises(TemplateError, match="none of the EK Credential Profile"):
        activation_branches(parse_public(ak_template(AkKind.ECC_P256, 0)))


@pytest.mark.parametrize("kind", list(AkKind))
def test_one_generation_makes_one_template_for_ever(kind):
    assert ak_template(kind, 0) == ak_template(kind, 0) != ak_template(kind, 1)
    # Changing this changes the AK of every enrolled machine.
    known = {
        "ecc-p256": "cd3ff84f57c6ff1d48f17e91c73c2b0ac7682929a3f5258b9e1551c08f61f6b5",
        "rsa-2048": "54613748b5b2e896df6b1364a029b5fc6b6d9da80f7b22c05c9f136f324ac4dd",
    }
    assert hashlib.sha256(ak_template(kind, 0)).hexdigest() == known[kind]


def test_the_ak_is_what_the_verifier_demands():
    template = ak_template(AkKind.ECC_P256, 0)
    assert ak_attribute_problems(verifier_parse(template)) == ()
    assert parse_public(template).attributes == parse_public(ak_template(AkKind.RSA_2048, 0)).attributes


@pytest.mark.parametrize("name", ["ak_ecc", "ak_rsa"])
def test_names_are_those_the_tpm_gave(name):
    """Captured from a real TPM: the public area and the Name it computed."""
    public = (EVIDENCE / f"{name}.pub").read_bytes()
    assert name_of(public).hex() == (EVIDENCE / f"{name}.name").read_text().strip()


@pytest.mark.parametrize("name", ["rsa-2048", "ecc-p256"])
def test_a_nonce_begins_unique_and_is_padded(name):
    (template,) = (slot.template for slot in EK_SLOTS if slot.name == name)
    made = parse_public(with_nonce(template, b"nonce"))
    size = len(parse_public(template).key[0])
    assert made.key[0] == b"nonce" + bytes(size - 5)
    assert all(set(part) == {0} for part in made.key[1:])
    with pytest.raises(TemplateError):
        with_nonce(template, bytes(size + 1))


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_in_nv_may_have_its_size_or_not(template):
    assert normalised(template) == template
    assert normalised(template[2:]) == template


@given(st.sampled_from(TEMPLATES), st.data())
def test_a_damaged_public_area_parses_or_raises_the_one_error(template, data):
    position = data.draw(st.integers(0, len(template) - 1))
    cut = data.draw(st.integers(0, len(template)))
    damaged = bytearray(template[:cut])
    if position < cut:
        damaged[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(TemplateError):
        parse_public(bytes(damaged))


@given(st.binary(max_size=300))
def test_any_nv_content_is_a_template_or_the_one_error(content):
    with contextlib.suppress(TemplateError):
        assert parse_public(normalised(content))
