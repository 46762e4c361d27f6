"""EARs that must not be believed, made with PyJWT and by hand; the true one they differ from is believed first."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from verifier.client import EarError, EarFault, EarRules, EarVerifier, Tier, UnavailableError
from verifier.client.keys import KeySet
from verifier.client.transport import Reply

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ISSUER = "https://verifier.test"
RULES = EarRules(issuer=ISSUER, audience="payments")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
KID = "the-key"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(private, kid=KID, **changes):
    numbers = private.public_key().public_numbers()
    x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig"} | changes


class Published:
    """A key set that can be changed and taken away, and counts who asks."""

    def __init__(self, *keys, max_age="max-age=300"):
        self.keys, self.asked, self.away, self.max_age = list(keys), 0, False, max_age

    async def get(self, path):
        assert path == "/.well-known/jwks.json"
        self.asked += 1
        if self.away:
            raise UnavailableError("away")
        return Reply(200, {"Cache-Control": self.max_age}, json.dumps({"keys": self.keys}).encode())


class Turned:
    """A clock."""

    at = NOW

    def __call__(self):
        return self.at


def verifier(published=None, now=None, outlive=timedelta(minutes=15)):
    now = now or Turned()
    return EarVerifier(KeySet(published or Published(jwk(PRIVATE)), now, outlive), now)


def claims(**changes):
    at = int(NOW.timestamp())
    private = {
        "lifecycle": "enrolled",
        "sequence": 3,
        "judged_at": at - 60,
        "evidence_sha256": "00" * 32,
        "boot_id": "b",
        "reasons": [],
    }
    whole = {
        "ear_status": 2,
        "ear_trustworthiness_vector": {"configuration": 2},
        "ear_appraisal_policy_ids": ["secure-boot@sha256:" + "11" * 32],
        "vtpm_attest": private,
    }
    base = {
        "eat_profile": "tag:ietf.org,2026:rats/ear#03",
        "iss": ISSUER,
        "sub": "att-1",
        "aud": "payments",
        "iat": at - 5,
        "exp": at + 300,
        "submods": {"vtpm": whole, "boot": {"ear_status": 2}},
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def token(content=None, key=PRIVATE, algorithm="ES256", **header):
    header = {"kid": KID, "typ": "eat+jwt"} | header
    return jwt.encode(content or claims(), key, algorithm=algorithm, headers=header)


def by_hand(header, content=None, sign=lambda _: b"\0" * 64):
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(content or claims()).encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


async def fault(presented, rules=RULES, of=None, **options):
    with pytest.raises(EarError) as refused:
        await (of or verifier()).verify(presented, rules, **options)
    assert refused.value.code == refused.value.fault.value
    assert refused.value.remedy
    return refused.value.fault


async def test_the_true_one_is_believed():
    ear = await verifier().verify(token(), RULES)
    assert (ear.standing.attester_id, ear.standing.tier_at(NOW), ear.standing.sequence) == (
        "att-1",
        Tier.AFFIRMING,
        3,
    )
    assert ear.standing.policy.id == "secure-boot"
    assert ear.standing.judged_at == NOW - timedelta(seconds=60)


PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
POINT = PRIVATE.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    "secret", [PEM, POINT, json.dumps(jwk(PRIVATE)).encode(), b""], ids=["pem", "point", "jwk", "empty"]
)
async def test_a_public_key_is_no_shared_secret(secret):
    forged = by_hand(
        {"alg": "HS256", "kid": KID, "typ": "eat+jwt"}, sign=lambda m: hmac.digest(secret, m, "sha256")
    )
    assert await fault(forged) is EarFault.ALGORITHM


@pytest.mark.parametrize(
    "alg", ["none", "None", "nOnE", "", "ES384", "PS256", "es256", None, 7, ["ES256"], {"a": 1}]
)
async def test_no_other_algorithm(alg):
    assert (
        await fault(by_hand({"alg": alg, "kid": KID, "typ": "eat+jwt"}, sign=lambda _: b""))
        is EarFault.ALGORITHM
    )


async def test_rsa_keys_do_not_count_even_if_published():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    published = Published(
        {"kty": "RSA", "kid": "r", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB"}, jwk(PRIVATE)
    )
    assert (
        await fault(token(key=key, algorithm="RS256", kid="r"), of=verifier(published)) is EarFault.ALGORITHM
    )
    assert await fault(token(kid="r"), of=verifier(published)) is EarFault.KEY


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": jwk(OTHER)},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["AAAA"]},
        {"crit": ["b64"], "b64": False},
        {"zip": "DEF"},
    ],
    ids=lambda extra: next(iter(extra)),
)
async def test_no_token_brings_its_own_key_or_rules(extra):
    assert await fault(token(key=OTHER, **extra)) is EarFault.HEADER
    assert await fault(token(**extra)) is EarFault.HEADER


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "other",
        "../../../dev/null",
        "the-key\0",
        "' OR 1=1 --",
        "https://evil.example/k",
        "K" * 128,
        " the-key",
    ],
)
async def test_a_kid_only_picks_among_published_keys(kid):
    assert await fault(token(kid=kid)) in {EarFault.KEY, EarFault.HEADER}


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "dpop+jwt", "", None])
async def test_no_token_of_another_type(typ):
    assert await fault(token(typ=typ)) is EarFault.HEADER


async def test_neither_a_changed_nor_a_foreign_signature():
    assert await fault(token(key=OTHER)) is EarFault.SIGNATURE
    head, body, signature = token().split(".")
    better = b64(json.dumps(claims(sub="att-2")).encode())
    assert await fault(f"{head}.{better}.{signature}") is EarFault.SIGNATURE
    raw = base64.urlsafe_b64decode(signature + "==")
    for forged in (b"", b"\0" * 64, raw[:-1], raw + b"\0", raw[32:] + raw[:32]):
        assert await fault(f"{head}.{body}.{b64(forged)}") is EarFault.SIGNATURE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": "https://evil.example"}, EarFault.ISSUER),
        ({"iss": "https://verifier.test/"}, EarFault.ISSUER),
        ({"aud": None}, EarFault.AUDIENCE),
        ({"aud": "other"}, EarFault.AUDIENCE),
        ({"aud": "payments.evil"}, EarFault.AUDIENCE),
        ({"aud": []}, EarFault.AUDIENCE),
        ({"aud": ["payments", "other"]}, EarFault.AUDIENCE),
        ({"exp": int(NOW.timestamp())}, EarFault.EXPIRED),
        ({"exp": int(NOW.timestamp()) - 3600}, EarFault.EXPIRED),
        ({"exp": None}, EarFault.PROFILE),
        ({"exp": "4000000000"}, EarFault.PROFILE),
        ({"exp": True}, EarFault.PROFILE),
        ({"exp": 1e300}, EarFault.PROFILE),
        ({"exp": 10**18}, EarFault.PROFILE),
        ({"iat": int(NOW.timestamp()) + 120}, EarFault.TIME),
        ({"iat": None}, EarFault.PROFILE),
        ({"nbf": int(NOW.timestamp()) + 120}, EarFault.TIME),
        ({"eat_profile": "tag:github.com,2023:veraison/ear"}, EarFault.PROFILE),
        ({"eat_profile": None}, EarFault.PROFILE),
        ({"sub": "att-1/../att-2"}, EarFault.PROFILE),
        ({"sub": None}, EarFault.PROFILE),
        ({"submods": {}}, EarFault.PROFILE),
        ({"submods": {"boot": {"ear_status": 2}}}, EarFault.PROFILE),
        ({"submods": {"vtpm": {"ear_status": 2}}}, EarFault.PROFILE),
    ],
)
async def test_no_claim_that_does_not_fit(changes, expected):
    if "submods" not in changes:
        assert await fault(token(claims(**changes))) is expected
    else:
        assert await fault(token(claims() | changes)) is expected


@pytest.mark.parametrize("status", [1, 3, 33, 97, -1])
async def test_no_status_that_is_no_tier(status):
    content = claims()
    content["submods"]["vtpm"]["ear_status"] = status
    assert await fault(token(content)) is EarFault.PROFILE


async def test_a_part_that_is_worse_than_the_whole_counts():
    content = claims()
    content["submods"]["boot"]["ear_status"] = 96
    ear = await verifier().verify(token(content), RULES)
    assert ear.standing.tier_at(NOW) is Tier.CONTRAINDICATED


@pytest.mark.parametrize(
    ("lifecycle", "tier"), [("stale", "none"), ("revoked", "contraindicated"), ("retired", "none")]
)
async def test_an_affirming_token_of_who_is_over_does_not_affirm(lifecycle, tier):
    content = claims()
    content["submods"]["vtpm"]["vtpm_attest"]["lifecycle"] = lifecycle
    assert (await verifier().verify(token(content), RULES)).standing.tier_at(NOW) == tier


async def test_a_token_for_somebody_is_not_for_everybody():
    rules = EarRules(issuer=ISSUER, audience=None)
    assert await fault(token(), rules) is EarFault.AUDIENCE
    assert (await verifier().verify(token(claims(aud=None)), rules)).standing.attester_id == "att-1"


async def test_a_nonce_that_was_expected_must_be_there():
    assert await fault(token(), nonce="0123456789") is EarFault.NONCE
    assert await fault(token(claims(eat_nonce="9876543210")), nonce="0123456789") is EarFault.NONCE
    await verifier().verify(token(claims(eat_nonce="0123456789")), RULES, nonce="0123456789")


def framed(text):
    return [
        text + ".",
        "." + text,
        text + "=",
        text + "\n",
        " " + text,
        text.replace(".", "..", 1),
        "é" + text,
    ]


@pytest.mark.parametrize("text", [*framed(token()), "", ".", "..", "a.b.c", "A" * 20_000, '{"payload": ""}'])
async def test_nothing_but_one_compact_token(text):
    assert await fault(text) in {EarFault.UNREADABLE, EarFault.SIGNATURE, EarFault.ALGORITHM}


HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "jwk", "x"]),
    st.sampled_from(["ES256", KID, "eat+jwt", None, 1, [], {}]),
)


@given(st.one_of(st.text(), HEADERS.map(by_hand), st.binary().map(lambda b: f"{b64(b)}.{b64(b)}.{b64(b)}")))
async def test_whatever_comes_is_refused_by_the_one_error(text):
    await fault(text)


async def test_invented_kids_do_not_make_it_ask_the_verifier():
    published, clock = Published(jwk(PRIVATE)), Turned()
    of = verifier(published, clock)
    await of.verify(token(), RULES)
    clock.at += timedelta(seconds=11)
    for number in range(50):
        assert await fault(token(key=OTHER, kid=f"k{number}"), of=of) is EarFault.KEY
    assert published.asked == 2


async def test_a_new_key_is_fetched_when_a_token_names_it_and_a_withdrawn_one_ends():
    published, clock = Published(jwk(OTHER, "old")), Turned()
    of = verifier(published, clock)
    await of.verify(token(key=OTHER, kid="old"), RULES)
    published.keys = [jwk(PRIVATE)]
    clock.at += timedelta(seconds=11)
    await of.verify(token(), RULES)
    assert await fault(token(key=OTHER, kid="old"), of=of) is EarFault.KEY


async def test_keys_outlive_an_outage_only_for_a_while():
    published, clock = Published(jwk(PRIVATE)), Turned()
    of = verifier(published, clock, outlive=timedelta(minutes=2))
    await of.verify(token(), RULES)
    published.away = True
    clock.at += timedelta(minutes=6)
    at = int(clock.at.timestamp())
    fresh = token(claims(iat=at, exp=at + 600))
    await of.verify(fresh, RULES)
    clock.at += timedelta(minutes=2)
    with pytest.raises(UnavailableError):
        await of.verify(fresh, RULES)
    published.away = False
    clock.at += timedelta(seconds=11)
    await of.verify(fresh, RULES)


@pytest.mark.parametrize(
    "changes", [{"crv": "P-384"}, {"kty": "OKP"}, {"use": "enc"}, {"alg": "ES384"}, {"x": "AA"}]
)
async def test_a_key_that_is_not_for_ear_signatures_is_not_taken(changes):
    published = Published(jwk(PRIVATE, **changes), jwk(OTHER, "other"))
    assert await fault(token(), of=verifier(published)) is EarFault.KEY
