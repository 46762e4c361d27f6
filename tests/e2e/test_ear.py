"""EARs as relying parties read them, with libraries that nobody here wrote: PyJWT, joserfc, cwt, and Node's jose."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess

import cwt
import jwt
import pytest
from cwt import COSEKey
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from tests.conftest import ROOT
from tests.harness import boot_log
from verifier.ports import Scope

JWT = "application/eat+jwt"
CWT = "application/eat+cwt"
NODE = ROOT / "build" / "node"


async def ear(verifier, guest, accept=JWT, **query):
    return await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict",
        Scope.RELYING_PARTY,
        headers={"Accept": accept},
        params=query,
    )


async def jwks(verifier):
    """Found as a stock OpenID Connect library finds it."""
    discovery = (await verifier.call("GET", "/.well-known/openid-configuration")).json
    assert discovery["issuer"] == "https://verifier.test"
    assert discovery["jwks_uri"] == "https://verifier.test/.well-known/jwks.json"
    return (await verifier.call("GET", "/.well-known/jwks.json")).json


async def test_two_python_libraries_accept_the_token_for_its_audience_only(verifier):
    guest = await verifier.guest()
    await guest.attest()
    token = (await ear(verifier, guest, audience="payments")).content.decode()
    keys = await jwks(verifier)
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    options = {"algorithms": ["ES256"], "issuer": "https://verifier.test"}
    claims = jwt.decode(token, key, audience="payments", **options)
    assert claims["sub"] == guest.attester_id
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, key, audience="another", **options)
    decoded = joserfc_jwt.decode(token, joserfc_jwk.KeySet.import_key_set(keys))
    assert decoded.claims == claims
    requirements = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": "https://verifier.test"},
        aud={"essential": True, "value": "payments"},
    )
    requirements.validate(decoded.claims)


async def test_every_part_that_was_judged_is_a_submodule(verifier):
    guest = await verifier.guest()
    await guest.attest()
    claims = jwt.decode((await ear(verifier, guest)).content, options={"verify_signature": False})
    assert {name: part["ear_status"] for name, part in claims["submods"].items()} == {"vtpm": 2, "boot": 2}
    guest.reboot(boot_log(secure=False))
    await guest.attest()
    claims = jwt.decode((await ear(verifier, guest)).content, options={"verify_signature": False})
    assert {name: part["ear_status"] for name, part in claims["submods"].items()} == {"vtpm": 96, "boot": 96}


@pytest.mark.parametrize("profile", ["veraison", "tag:github.com,2023:veraison/ear"])
async def test_the_older_profile_on_request(verifier, profile):
    guest = await verifier.guest()
    await guest.attest()
    claims = jwt.decode(
        (await ear(verifier, guest, profile=profile, nonce="0123456789")).content,
        options={"verify_signature": False},
    )
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert claims["eat_nonce"] == "0123456789"
    assert claims["ear.verifier-id"]["developer"] == "vtpm-attest"
    assert claims["submods"]["vtpm"]["ear.status"] == "affirming"
    assert claims["submods"]["vtpm"]["ear.trustworthiness-vector"]["configuration"] == 2
    assert not {"ear_verifier_id", "ear_status"} & (set(claims) | set(claims["submods"]["vtpm"]))


async def test_a_cwt_says_the_same_in_numbers(verifier):
    guest = await verifier.guest()
    await guest.attest()
    answer = await ear(verifier, guest, CWT, nonce="0123456789")
    assert answer.headers["Content-Type"] == CWT
    (published,) = (await jwks(verifier))["keys"]
    key = COSEKey.from_jwk(published)
    claims = cwt.decode(answer.content, key)
    words = jwt.decode((await ear(verifier, guest)).content, options={"verify_signature": False})
    assert (claims[1], claims[2], claims[4]) == (words["iss"], words["sub"], words["exp"])
    assert claims[265] == words["eat_profile"]
    assert claims[10] == b"0123456789"
    assert claims[1004] == {0: "vtpm-attest", 1: words["ear_verifier_id"]["build"]}
    part, same = claims[266]["vtpm"], words["submods"]["vtpm"]
    assert part[1000] == same["ear_status"] == 2
    order = ["instance-identity", "configuration", "executables", "file-system", "hardware"]
    vector = same["ear_trustworthiness_vector"]
    assert part[1001] == {order.index(name): value for name, value in vector.items()}
    assert part[1003] == same["ear_appraisal_policy_ids"]


@pytest.mark.parametrize(
    ("query", "accept"),
    [
        ({"profile": "unheard-of"}, JWT),
        ({"audience": ""}, JWT),
        ({"audience": "a" * 257}, JWT),
        ({"audience": "two words"}, JWT),
        ({"nonce": "short"}, JWT),
        ({"profile": "veraison"}, CWT),
    ],
)
async def test_what_cannot_be_asked_for_is_a_typed_refusal(verifier, query, accept):
    guest = await verifier.guest()
    await guest.attest()
    answer = await ear(verifier, guest, accept, **query)
    assert (answer.status, answer.code) == (400, "malformed-request")


async def test_what_says_the_same_has_the_same_tag_and_what_does_not_another(verifier):
    guest = await verifier.guest()
    await guest.attest()
    queries = [{}, {"audience": "a"}, {"audience": "b"}, {"profile": "veraison"}]
    tags = [(await ear(verifier, guest, **query)).headers["ETag"] for query in queries]
    tags.append((await ear(verifier, guest, CWT)).headers["ETag"])
    assert len(set(tags)) == len(tags)
    assert (await ear(verifier, guest)).headers["ETag"] == tags[0]
    again = await verifier.get(
        f"/v1/attesters/{guest.attester_id}/verdict",
        Scope.RELYING_PARTY,
        headers={"Accept": JWT, "If-None-Match": tags[0]},
    )
    assert again.status == 304


@pytest.fixture(scope="session")
def node() -> str:
    """Node with its jose, from the npm registry into `build/`; a loud skip where that cannot be had."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("SKIPPED FOR WANT OF NODE: node and npm are not installed, so jose did not verify an EAR")
    if not (NODE / "node_modules" / "jose").exists():
        NODE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "verify_ear.mjs"):
            shutil.copy(ROOT / "tests" / "node" / name, NODE / name)
        done = subprocess.run(
            [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=NODE,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            pytest.skip(f"SKIPPED FOR WANT OF JOSE: npm could not install it: {done.stderr[-200:]}")
    shutil.copy(ROOT / "tests" / "node" / "verify_ear.mjs", NODE / "verify_ear.mjs")
    return program


async def asked_of_node(node, verifier, token, audience):
    process = await asyncio.create_subprocess_exec(
        node,
        NODE / "verify_ear.mjs",
        f"{verifier.url}/.well-known/jwks.json",
        "https://verifier.test",
        audience,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate(token)
    return json.loads(out)


async def test_node_s_jose_accepts_it_and_refuses_a_changed_one(verifier, node):
    guest = await verifier.guest()
    await guest.attest()
    token = (await ear(verifier, guest, audience="gateway")).content
    good = await asked_of_node(node, verifier, token, "gateway")
    assert good["payload"]["submods"]["vtpm"]["ear_status"] == 2
    assert good["protectedHeader"]["typ"] == "eat+jwt"
    assert await asked_of_node(node, verifier, token, "another") == {
        "refused": "ERR_JWT_CLAIM_VALIDATION_FAILED"
    }
    head, body, signature = token.decode().split(".")
    forged = f"{head}.{body[:-2] + ('AA' if body[-2:] != 'AA' else 'BB')}.{signature}".encode()
    assert await asked_of_node(node, verifier, forged, "gateway") == {
        "refused": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"
    }
