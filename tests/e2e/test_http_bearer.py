"""Bearer tokens of an issuer as credentials of the API, from a real issuer over HTTPS; and every way to forge one."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from joserfc import jwt

from tests.harness import FakeClock, running, settings_for
from tests.oidc_provider import b64url, ec_key, hs256, provider_running, rsa_key, unsigned

AUDIENCE = "attest-api"
ROLES = [
    "readers=relying-party",
    "operators=operator",
    "operators=auditor",
    "globex=dashboard@globex",
    "home=dashboard",
    "attest-operators=operator",
]


@asynccontextmanager
async def verifier_with(folder, provider, clock, extra=""):
    lines = [
        f"issuer = {provider.issuer!r}",
        f"audience = {AUDIENCE!r}",
        f"roles = {json.dumps(ROLES)}",
        f"ca = {str(provider.tls.ca)!r}",
        extra,
    ]
    async with running(settings_for(folder, "[bearer]\n" + "\n".join(lines)), clock) as harness:
        yield harness


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def provider(tmp_path, clock):
    folder = tmp_path / "issuer"
    folder.mkdir()
    async with provider_running(folder, clock.now) as running_provider:
        yield running_provider


@pytest.fixture
async def verifier(tmp_path, provider, clock):
    async with verifier_with(tmp_path, provider, clock) as harness:
        yield harness


def claims(provider, **changes):
    now = int(provider.now().timestamp())
    told = {
        "iss": provider.issuer,
        "aud": AUDIENCE,
        "sub": "svc-web",
        "iat": now,
        "exp": now + 600,
        "roles": ["readers"],
    } | changes
    return {key: value for key, value in told.items() if value is not None}


def token(provider, key=None, header=None, **changes):
    key = key or provider.key
    return jwt.encode(
        {"alg": key.get("alg"), "kid": key.kid} | (header or {}),
        claims(provider, **changes),
        key,
        algorithms=[key.get("alg")],
    )


async def ask(verifier, text, path="/v1/verdicts?limit=1", method="GET"):
    return await verifier.call(method, path, token=text)


async def test_a_role_opens_what_it_is_granted_and_nothing_else(verifier, provider):
    reader, operator = token(provider), token(provider, sub="anna", roles=["operators", "unknown"])
    assert (await ask(verifier, reader)).status == 200
    refused = await ask(verifier, reader, "/v1/audit")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert (await ask(verifier, operator, "/v1/audit")).status == 200


async def test_what_it_does_is_in_the_audit_log_under_its_subject(verifier, provider):
    guest = await verifier.guest()
    text = token(provider, sub="anna", roles=["operators"])
    answer = await verifier.call(
        "POST", f"/v1/attesters/{guest.attester_id}/revoke", token=text, json={"reason": "test"}
    )
    assert answer.status < 300, answer.content
    assert "oidc:anna" in (await verifier.get("/v1/audit")).content.decode()


async def test_it_sees_the_tenant_its_role_is_granted_in(verifier, provider):
    await verifier.guest()
    own = (await ask(verifier, token(provider, roles=["home"]), "/v1/attesters")).json
    other = (await ask(verifier, token(provider, roles=["globex"]), "/v1/attesters")).json
    assert len(own["attesters"]) == 1
    assert other["attesters"] == []
    both = await ask(verifier, token(provider, roles=["globex", "home"]))
    assert (both.status, both.code) == (401, "unauthenticated"), "which tenant is meant cannot be told"


async def test_tokens_of_the_verifier_itself_still_work(verifier):
    assert (await verifier.get("/v1/verdicts")).status == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "attest-verifier"}, {"aud": ["a", "b"]}, {"aud": None}, {"iss": "https://elsewhere.test"}, {"iss": None},
        {"exp": 1}, {"exp": None}, {"exp": "soon"}, {"nbf": 9_999_999_999}, {"sub": None}, {"sub": 5}, {"sub": "a\nb"}, {"sub": "x" * 300},
        {"roles": ["stranger"]}, {"roles": None}, {"roles": {"readers": True}},
    ],
    ids=[
        "client of the issuer", "others", "no audience", "issuer", "no issuer", "expired", "no end", "no time", "not yet", "no subject",
        "number as subject", "line break", "long subject", "role", "no roles", "roles as object",
    ],
)  # fmt: skip
async def test_claims_that_do_not_hold_open_nothing(verifier, provider, changes):
    answer = await ask(verifier, token(provider, **changes))
    assert (answer.status, answer.code) == (401, "unauthenticated")


async def test_one_audience_of_several_is_enough(verifier, provider):
    assert (await ask(verifier, token(provider, aud=["other", AUDIENCE]))).status == 200


def spliced(provider, header):
    """Another header before the payload and signature of a good token."""
    _, payload, signature = token(provider).split(".")
    return ".".join((b64url(json.dumps(header).encode()), payload, signature))


def embedded(provider):
    """Signed by a key that comes with the token (RFC 7515, section 4.1.3)."""
    own = ec_key(provider.key.kid)
    return token(provider, own, {"jwk": own.as_dict(private=False)})


def by_url(provider):
    own = ec_key("elsewhere")
    return token(
        provider, own, {"jku": "https://attacker.test/keys", "x5u": "https://attacker.test/chain.pem"}
    )


def nameless(provider):
    """Of a key that is not published, and which of the published ones it is meant to be is not said."""
    key = rsa_key("other")
    return jwt.encode({"alg": "RS256"}, claims(provider), key, algorithms=["RS256"])


ALGORITHMS = {
    "none": lambda provider: unsigned(provider, claims(provider)),
    "none in another case": lambda provider: spliced(provider, {"alg": "nOnE", "kid": provider.key.kid}),
    "HS256 with the public key": lambda provider: hs256(
        provider, claims(provider), provider.key.as_pem(private=False)
    ),
    "HS256 with nothing": lambda provider: hs256(provider, claims(provider), b""),
    "HS256 with zeros": lambda provider: hs256(provider, claims(provider), b"\0\0\0"),
    "of an EC key over an RSA one": lambda provider: spliced(
        provider, {"alg": "ES256", "kid": provider.key.kid}
    ),
}
KEYS = {
    "a file": lambda provider: token(provider, rsa_key("../../dev/null")),
    "SQL": lambda provider: token(provider, rsa_key("x' OR '1'='1")),
    "a URL": lambda provider: token(provider, rsa_key("https://attacker.test/keys")),
    "no text": lambda provider: spliced(provider, {"alg": "RS256", "kid": ["first"]}),
    "none, and another key": nameless,
    "that of a published key, another key": lambda provider: token(provider, ec_key(provider.key.kid)),
    "key embedded": embedded,
    "keys by URL": by_url,
}
FORGERIES = {
    "unknown critical header": lambda provider: spliced(
        provider, {"alg": "RS256", "kid": provider.key.kid, "crit": ["x"], "x": 1}
    ),
    "changed payload": lambda provider: ".".join(
        (
            *token(provider).split(".")[:1],
            b64url(json.dumps(claims(provider, roles=["operators"])).encode()),
            token(provider).split(".")[2],
        )
    ),
    "no signature": lambda provider: token(provider).rpartition(".")[0] + ".",
    "not base64": lambda provider: "a.b.c",
}


async def opens_nothing(verifier, provider, text):
    answer = await ask(verifier, text)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert not [path for path in provider.asked if not path.startswith("/realm")]


@pytest.mark.parametrize("forge", ALGORITHMS.values(), ids=ALGORITHMS.keys())
async def test_attack_jwt_alg_confusion(verifier, provider, forge):
    """The header says how it is to be checked: not at all, or by a key that everybody has."""
    await opens_nothing(verifier, provider, forge(provider))


@pytest.mark.parametrize("forge", KEYS.values(), ids=KEYS.keys())
async def test_attack_jwt_kid_injection(verifier, provider, forge):
    """The header says by which key: one of the attacker's, or one that is found where the name leads."""
    await opens_nothing(verifier, provider, forge(provider))


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_attack_forged_bearer_tokens(verifier, provider, forge):
    await opens_nothing(verifier, provider, forge(provider))


NO_TOKENS = {
    "nested": f"{b64url(b'[' * 3000)}.e30.AAAA",
    "bytes that are no text": "\udcff.e30.AAAA",
    "nothing": "..",
}


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS.keys())
async def test_what_is_no_token_at_all_is_refused_and_no_fault_of_ours(verifier, text):
    answer = await raw(verifier, text)
    assert answer.startswith(b"HTTP/1.1 401 "), answer


async def raw(verifier, text):
    """By hand: a client that is honest does not send such headers."""
    host, port = verifier.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"GET /v1/status HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Bearer {text}\r\n\r\n"
    writer.write(head.encode("utf-8", "surrogateescape"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_token_that_ends_after_all_time_is_refused(verifier, provider):
    assert (await ask(verifier, token(provider, exp=10**30))).status == 401


async def test_a_key_that_is_new_at_the_issuer_is_fetched_and_one_that_is_gone_counts_no_more(
    verifier, provider, clock
):
    assert (await ask(verifier, token(provider))).status == 200
    old = provider.key
    provider.key = rsa_key("second")
    clock.advance(seconds=11)
    assert (await ask(verifier, token(provider))).status == 200
    clock.advance(seconds=61)
    assert (await ask(verifier, token(provider, old))).status == 401


async def test_tokens_as_long_as_issuers_with_many_groups_make_them(verifier, provider):
    assert (await ask(verifier, token(provider, groups=["x" * 36] * 130))).status == 200


async def test_an_unknown_key_makes_the_issuer_be_asked_once_in_ten_seconds(verifier, provider):
    for _ in range(20):
        assert (await ask(verifier, token(provider, rsa_key("other")))).status == 401
    assert provider.asked.count("/realm/keys") == 1


async def test_a_token_is_good_until_it_ends_and_no_longer_also_when_it_was_seen_before(
    verifier, provider, clock
):
    text = token(provider, exp=int(clock.now().timestamp()) + 30)
    assert (await ask(verifier, text)).status == 200
    clock.advance(seconds=50)
    assert (await ask(verifier, text)).status == 200, "clocks may differ by a minute"
    clock.advance(seconds=41)
    assert (await ask(verifier, text)).status == 401


async def test_an_issuer_that_is_down_is_a_503_and_no_verdict_on_the_token(verifier, provider):
    provider.answers["/realm/keys"] = lambda: web.Response(status=500)
    answer = await ask(verifier, token(provider))
    assert (answer.status, answer.code) == (503, "verifier-unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert provider.issuer not in answer.content.decode()
    assert (await verifier.get("/v1/verdicts")).status == 200, "own tokens are not concerned"


async def test_names_of_service_accounts_as_roles(tmp_path, provider, clock):
    """A cluster's service accounts have no roles: their subject is granted by name."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    async with verifier_with(folder, provider, clock, 'role_claim = "sub"') as harness:
        assert (await ask(harness, token(provider, sub="readers", roles=None))).status == 200
        assert (await ask(harness, token(provider, sub="default", roles=["readers"]))).status == 401


async def test_without_bearer_settings_a_jwt_is_no_token(tmp_path, provider):
    async with running(settings_for(tmp_path)) as harness:
        answer = await ask(harness, token(provider))
        assert (answer.status, answer.code) == (401, "unauthenticated")
    assert provider.asked == []
