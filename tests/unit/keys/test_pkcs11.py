"""EAR keys in a PKCS#11 token: SoftHSM's real library, tokens made for the test."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import jwt
import pytest

from verifier.errors import VerifierFault
from verifier.keys.fixed_signer import open_fixed
from verifier.keys.pkcs11 import parse_uri

MODULES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"))
MODULE = next((path for path in MODULES if path.exists()), None)
PIN = "a pin nobody may see"
needs_softhsm = pytest.mark.skipif(
    MODULE is None, reason="SKIPPED FOR WANT OF A TOKEN: softhsm2 is not installed, no PKCS#11 key was used"
)


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with a P-256 key `ear` and a P-384 key `other`. The library reads its configuration once a process."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "vtpm attest",
        "--so-pin",
        "1234",
        "--pin",
        PIN,
    ]
    subprocess.run(command, check=True, capture_output=True)
    with pkcs11.lib(str(MODULE)).get_token(token_label="vtpm attest").open(rw=True, user_pin=PIN) as session:
        for label, curve in (("ear", "secp256r1"), ("other", "secp384r1")):
            parameters = session.create_domain_parameters(
                pkcs11.KeyType.EC,
                {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
                local=True,
            )
            parameters.generate_keypair(store=True, label=label)
    (folder / "pin").write_text(PIN + "\n")
    yield folder
    patch.undo()


def uri(token, label="ear", **changes):
    query = {"module-path": str(MODULE), "pin-source": f"file:{token / 'pin'}"} | changes
    listed = "&".join(f"{name.replace('_', '-')}={value}" for name, value in query.items())
    return f"pkcs11:token=vtpm%20attest;object={label}?{listed}"


@needs_softhsm
def test_the_token_signs_and_a_library_verifies(token):
    signer = open_fixed(uri(token), ())
    text = asyncio.run(signer.sign_jwt({"sub": "a"}))
    keys = jwt.PyJWKSet.from_dict(dict(signer.jwks()))
    key = keys[jwt.get_unverified_header(text)["kid"]]
    assert jwt.decode(text, key, algorithms=["ES256"]) == {"sub": "a"}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBB"), key, algorithms=["ES256"])


@needs_softhsm
async def test_many_at_once_are_all_good(token):
    signer = open_fixed(uri(token), ())
    (published,) = signer.jwks()["keys"]
    key = jwt.PyJWK(published)
    texts = await asyncio.gather(*(signer.sign_jwt({"n": number}) for number in range(20)))
    assert [jwt.decode(text, key, algorithms=["ES256"])["n"] for text in texts] == list(range(20))


@needs_softhsm
@pytest.mark.parametrize(
    ("label", "changes", "told"),
    [
        ("nobody", {}, "NoSuchKey"),
        ("other", {}, "P-256"),
        ("ear", {"pin_source": "file:/nonexistent/pin"}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_without_the_pin(token, label, changes, told):
    with pytest.raises(VerifierFault, match=told) as caught:
        open_fixed(
            uri(token, label, **{name.replace("_", "-"): value for name, value in changes.items()}), ()
        )
    assert PIN not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pkcs11:token=a;object=b", "module-path"),
        ("pkcs11:object=b?module-path=/m", "token"),
        ("pkcs11:token=a?module-path=/m", "id or object"),
        ("pkcs11:token=a;object=b;slot-id=1?module-path=/m", "slot-id"),
        ("pkcs11:token=a;token=c;object=b?module-path=/m", "given twice"),
        ("pkcs11:token=a;object=b?module-path=/m&pin-value=1&pin-source=f", "both"),
    ],
)
def test_a_uri_that_cannot_name_a_key_is_refused(text, told):
    with pytest.raises(VerifierFault, match=told):
        parse_uri(text)


def test_a_uri_is_read_as_rfc_7512_writes_it():
    found = parse_uri("pkcs11:token=The%20Token;object=ear;id=%01%ff?module-path=/m&pin-value=1%3B2")
    assert found == {
        "token": "The Token",
        "object": "ear",
        "id": "01ff",
        "module-path": "/m",
        "pin-value": "1;2",
    }
