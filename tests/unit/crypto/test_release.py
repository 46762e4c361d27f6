"""Sealing a secret to a TPM and a process: both ends agree, each lock is needed, and the published formula is the true one."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from agent.release import ANSWERED, ASKED, begin
from tests.simulator import SoftwareTpm
from tests.simulator.keys import EkProfile
from verifier.crypto import release
from verifier.crypto.release import REPLY_KEY_SIZE, Answer, asked, read_reply_key, seal
from verifier.errors import MalformedInputError
from verifier.tcg.public import parse_public

NONCE = bytes(range(32))
TPM = SoftwareTpm("release")


def answer(over: bytes) -> Answer:
    return Answer(asked=over, attester_id="att-1", sequence=7, revision=3)


def sealed(secret: bytes, asking, over: bytes, tpm: SoftwareTpm = TPM):
    return seal(
        secret,
        ek=parse_public(tpm.ek_public),
        ak_name=tpm.ak_name,
        reply_key=read_reply_key(asking.reply_key),
        answer=answer(over),
        random=os.urandom,
    )


def by_the_book(made, asking, over: bytes, half: bytes) -> bytes:
    """As docs/api.md has it, with nothing of ours: HKDF (RFC 5869) by hand."""
    context = hashlib.sha256(
        b"vtpm-attest secret answered v1\0"
        + over
        + made.verifier_key
        + (7).to_bytes(8, "big")
        + (3).to_bytes(8, "big")
        + b"att-1"
    ).digest()
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), made.verifier_key)
    shared = asking.private.exchange(ec.ECDH(), theirs)
    extracted = hmac.digest(bytes(32), half + shared, "sha256")
    key = hmac.digest(extracted, context + b"\x01", "sha256")
    return AESGCM(key).decrypt(bytes(12), made.ciphertext, context)


@given(st.binary(min_size=1, max_size=300), st.text("abc.-_9", min_size=1, max_size=64))
def test_whoever_has_both_halves_reads_it_as_the_documentation_says(secret, name):
    asking = begin(name)
    over = asking.over(NONCE)
    assert over == asked(NONCE, name, asking.reply_key)
    assert (
        over
        == hashlib.sha256(
            b"vtpm-attest secret asked v1\0" + NONCE + asking.reply_key + name.encode()
        ).digest()
    )
    made = sealed(secret, asking, over)
    half = TPM.activate(made.credential_blob, made.encrypted_secret)
    assert by_the_book(made, asking, over, half) == secret


def test_both_ends_use_the_same_labels():
    assert (ASKED, ANSWERED) == (release.ASKED, release.ANSWERED)


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_no_two_answers_have_anything_in_common(kind):
    tpm = SoftwareTpm("release", ek=EkProfile(kind=kind))
    asking = begin("disk")
    over = asking.over(NONCE)
    one, two = (sealed(bytes(64), asking, over, tpm) for _ in range(2))
    for field in dataclasses.fields(one):
        assert getattr(one, field.name) != getattr(two, field.name), field.name


@pytest.mark.parametrize(
    "point", [b"", bytes(REPLY_KEY_SIZE), b"\x04" + bytes(64), b"\x02" + bytes(32), b"\x04" + b"\xff" * 64]
)
def test_a_reply_key_that_is_no_point_is_refused(point):
    with pytest.raises(MalformedInputError):
        read_reply_key(point)
