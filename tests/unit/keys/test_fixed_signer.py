"""EAR keys that an operator brings: a PEM file, with others published beside it."""

from __future__ import annotations

import asyncio
import subprocess

import cwt
import jwt
import pytest
from cwt import COSEKey

from verifier.errors import VerifierFault
from verifier.keys.fixed_signer import open_fixed

ALGORITHMS = {"p256": ["EC", "ec_paramgen_curve:P-256"], "p384": ["EC", "ec_paramgen_curve:P-384"]}


def openssl_key(path, kind="p256"):
    algorithm, option = ALGORITHMS[kind]
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", path], check=True
    )
    public = path.with_suffix(".pub")
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", public], check=True)
    return public


def test_a_rotation_by_hand_leaves_no_gap(tmp_path):
    """Next key published, then it signs and the old one is published: every token verifies at every time."""
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    old_public, new_public = openssl_key(old), openssl_key(new)
    steps = [(old, ()), (old, (new_public,)), (new, (old_public,)), (new, ())]
    signers = [open_fixed(str(key), published) for key, published in steps]
    tokens = [asyncio.run(signer.sign_jwt({"step": number})) for number, signer in enumerate(signers)]
    for at in range(3):
        keys = jwt.PyJWKSet.from_dict(dict(signers[at].jwks()))
        following = jwt.PyJWKSet.from_dict(dict(signers[at + 1].jwks()))
        kid = jwt.get_unverified_header(tokens[at])["kid"]
        assert jwt.decode(tokens[at], keys[kid], algorithms=["ES256"]) == {"step": at}
        if at < 2:
            assert kid in {key.key_id for key in following.keys}
    assert [len(signer.jwks()["keys"]) for signer in signers] == [1, 2, 2, 1]


def test_a_cwt_library_verifies_what_is_signed(tmp_path):
    public = openssl_key(tmp_path / "key.pem")
    signer = open_fixed(str(tmp_path / "key.pem"), ())
    token = asyncio.run(signer.sign_cwt({1: "https://v", 265: "p"}))
    kid = signer.jwks()["keys"][0]["kid"].encode()
    key = COSEKey.from_pem(public.read_text(), alg="ES256", kid=kid)
    assert cwt.decode(token, key) == {1: "https://v", 265: "p"}
    openssl_key(tmp_path / "stranger.pem")
    stranger = COSEKey.from_pem((tmp_path / "stranger.pub").read_text(), alg="ES256", kid=kid)
    with pytest.raises(cwt.VerifyError):
        cwt.decode(token, stranger)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: openssl_key(path, "p384"), "P-256"),
        (lambda path: path.write_text("no key"), "not an unencrypted PEM private key"),
        (lambda path: None, "ear.key: cannot read"),
    ],
)
def test_another_kind_of_key_stops_the_start(tmp_path, write, told):
    write(tmp_path / "key.pem")
    with pytest.raises(VerifierFault, match=told):
        open_fixed(str(tmp_path / "key.pem"), ())
