"""Sign-in through a provider over HTTPS: who gets in and as what; and every answer that must get nobody in."""

from __future__ import annotations

import asyncio
import html
import re
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from tests import oidc_provider as op
from tests.harness import Guest, Harness, running, settings_for
from verifier.ports import Scope
from verifier.web.dashboard.sessions import COOKIE
from verifier.web.dashboard.sign_in_pages import COOKIE as ATTEMPT
from verifier.web.dashboard.sign_in_pages import RETURN, START

ROLES = 'roles = ["attest-viewers=dashboard", "attest-operators=operator", "attest-auditors=auditor"]'


@dataclass
class Browser:
    """Keeps cookies as browsers do: by name, until they are dropped."""

    verifier: Harness
    provider: op.Provider
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path, **headers):
        return await self._send("GET", path, headers)

    async def submit(self, path, **fields):
        return await self._send("POST", path, {}, data=fields)

    async def _send(self, method, path, headers, **options):
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.verifier.call(
            method, path, headers=headers | {"Cookie": cookie}, allow_redirects=False, **options
        )
        for line in answer.headers.getall("Set-Cookie", []):
            name, value = re.match(r'([^=]+)="?([^;"]*)', line).groups()
            if value and "Max-Age=0" not in line:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    async def begin(self, target="", **headers):
        """To the provider's address."""
        answer = await self.get(f"{START}?next={target}" if target else START, **headers)
        assert answer.status == 303, answer.content
        return answer.headers["Location"]

    async def consent(self, address):
        """Sign in there; the address one is sent back to, within the verifier."""
        context = ssl.create_default_context(cafile=str(self.provider.tls.ca))
        async with aiohttp.ClientSession() as session:
            async with session.get(address, ssl=context) as page:
                text = await page.text()
                assert page.status == 200, text
            fields = dict(re.findall(r'name="([^"]+)" value="([^"]+)"', text))
            fields = {name: html.unescape(value) for name, value in fields.items()}
            url = address.partition("?")[0]
            async with session.post(url, data=fields, ssl=context, allow_redirects=False) as reply:
                assert reply.status == 303
                back = reply.headers["Location"]
        assert back.startswith("https://verifier.test" + RETURN)
        return back.removeprefix("https://verifier.test")

    async def sign_in(self, target=""):
        return await self.get(await self.consent(await self.begin(target)))

    @property
    def signed_in(self):
        return COOKIE in self.cookies


@asynccontextmanager
async def estate(folder, clock, more="", secret=op.SECRET, roles=ROLES, timeout="20s"):
    (folder / "secret").write_text(f"{op.SECRET}\n")
    async with op.provider_running(folder / "provider", clock.now) as provider:
        provider.secret = secret
        provider.redirects.add("https://verifier.test" + RETURN)
        toml = (
            f'[oidc]\nissuer = "{provider.issuer}"\nclient_id = "{op.CLIENT}"\nca = "{provider.tls.ca}"\n'
            f'timeout = "{timeout}"\nname = "Anna & Sons"\n{roles}\n'
        )
        if secret is not None:
            toml += f'client_secret_file = "{folder / "secret"}"\n'
        toml += more
        async with running(settings_for(folder, toml), clock) as verifier:
            yield Browser(verifier, provider)


@pytest.fixture
async def browser(request, tmp_path, clock):
    timeout = "2s" if "hangs" in request.node.name else "20s"
    async with estate(tmp_path, clock, timeout=timeout) as made:
        yield made


def told(answer):
    """What the page says went wrong."""
    text = answer.content.decode()
    assert "Set-Cookie" not in answer.headers or f"{COOKIE}=" not in answer.headers["Set-Cookie"]
    return html.unescape(re.search(r'role="alert">(.*?)</p>', text, re.DOTALL)[1])


async def test_who_has_a_role_is_let_in_as_what_it_allows(browser):
    page = (await browser.get("/dashboard/login?next=%2Fdashboard%2Fattesters")).content.decode()
    assert f'href="{START}?next=/dashboard/attesters">Sign in with Anna &amp; Sons</a>' in page
    answer = await browser.sign_in("/dashboard/attesters")
    assert (answer.status, answer.headers["Location"]) == (303, "/dashboard/attesters")
    assert (await browser.get("/dashboard/attesters")).status == 200
    assert ATTEMPT not in browser.cookies
    (token,) = await browser.verifier.service.services.tokens.list("default")
    assert token.label == "anna"
    assert token.scopes == {Scope.OPERATOR}
    assert token.id.startswith("ses-")


async def test_each_sign_in_has_secrets_of_its_own_and_shows_none_to_the_provider_before_its_time(browser):
    first = parse_qs(urlsplit(await browser.begin()).query)
    second = parse_qs(urlsplit(await browser.begin()).query)
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
    assert first["response_type"] == ["code"]
    assert first["code_challenge_method"] == ["S256"]
    assert "code_verifier" not in first


async def test_the_cookie_of_an_attempt_is_out_of_reach_and_short_lived(browser):
    answer = await browser.get(START)
    attributes = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"secure", "httponly", "samesite=lax", "path=/", "max-age=600"} <= attributes
    assert answer.headers["Cache-Control"] == "no-store"


async def test_whatever_session_a_browser_had_before_is_another_afterwards(browser):
    """Neither a session that was put there nor one of one's own goes on."""
    await browser.sign_in()
    fixed = browser.cookies[COOKIE]
    await browser.sign_in()
    assert browser.cookies[COOKIE] != fixed


@pytest.mark.parametrize("target", ["https://elsewhere.example/", "//elsewhere.example", "/v1/tokens",
                                    "/dashboard/%5C%5Celsewhere", "/dashboard/%0D%0AX:y", "/dashboard?" + "a" * 2000])  # fmt: skip
async def test_signing_in_leads_to_pages_of_ours_alone(browser, target):
    answer = await browser.sign_in(target)
    assert (answer.status, answer.headers["Location"]) == (303, "/dashboard")


async def test_another_site_begins_no_sign_in(browser):
    for site in ("cross-site", "same-site"):
        answer = await browser.get(START, **{"Sec-Fetch-Site": site})
        assert answer.headers["Location"] == "/dashboard/login"
        assert not browser.cookies
    assert (await browser.begin(**{"Sec-Fetch-Site": "same-origin"})).startswith(browser.provider.issuer)


async def test_an_answer_is_taken_only_where_its_sign_in_was_begun(browser):
    """Login CSRF: an attacker's answer, brought into somebody else's browser."""
    attacker = Browser(browser.verifier, browser.provider)
    back = await attacker.consent(await attacker.begin())
    assert "begun no sign-in" in told(await browser.get(back))
    await browser.begin()
    assert "another sign-in" in told(await browser.get(back))
    assert not browser.signed_in
    assert ATTEMPT in browser.cookies, "an answer that is not its own ends no attempt"
    assert "/realm/token" not in browser.provider.asked
    assert (await attacker.get(back)).status == 303


@pytest.mark.parametrize("state", ["", "x", "A" * 43, "ä" * 43])
async def test_a_wrong_state_is_refused_before_anything_is_asked(browser, state):
    back = await browser.consent(await browser.begin())
    answer = await browser.get(re.sub(r"state=[^&]+", f"state={state}", back))
    assert answer.status == 403
    assert "another sign-in" in told(answer)
    assert "/realm/token" not in browser.provider.asked


async def test_a_forged_cookie_begins_nothing(browser):
    back = await browser.consent(await browser.begin())
    sealed = browser.cookies[ATTEMPT]
    for cookie in ("", "x", sealed[:-4] + "AAAA", "A" * 5000):
        browser.cookies[ATTEMPT] = cookie
        assert "begun no sign-in" in told(await browser.get(back))
    await browser.begin()
    await browser.sign_in()
    browser.cookies[ATTEMPT] = browser.cookies[COOKIE]
    assert "begun no sign-in" in told(await browser.get(back)), "what is sealed for a session is no attempt"


async def test_a_code_is_good_once(browser):
    address = await browser.begin()
    back, attempt = await browser.consent(address), browser.cookies[ATTEMPT]
    assert (await browser.get(back)).status == 303
    thief = Browser(browser.verifier, browser.provider, {ATTEMPT: attempt})
    answer = await thief.get(back)
    assert answer.status == 403
    assert "invalid_grant" in told(answer)
    assert not thief.signed_in
    assert "begun no sign-in" in told(await browser.get(back))


async def test_a_code_of_another_sign_in_is_refused_by_pkce(browser):
    """A stolen code, injected into an attempt of one's own."""
    victim = Browser(browser.verifier, browser.provider)
    stolen = parse_qs(urlsplit(await victim.consent(await victim.begin())).query)["code"][0]
    back = await browser.consent(await browser.begin())
    answer = await browser.get(re.sub(r"code=[^&]+", f"code={stolen}", back))
    assert "invalid_grant" in told(answer)
    assert not browser.signed_in


async def test_a_sign_in_that_takes_too_long_is_begun_again(browser, clock):
    back = await browser.consent(await browser.begin())
    clock.advance(minutes=10)
    assert "longer than 10 minutes" in told(await browser.get(back))


HOSTILE = {
    "altered": (None, op.altered_afterwards, "signature"),
    "another key of that name": (None, op.signed_by_another_key_of_the_same_name, "signature"),
    "audience": (lambda claims: claims.update(aud="another-app"), None, "another application"),
    "audiences": (lambda claims: claims.update(aud=[op.CLIENT, "another-app"]), None, "another application"),
    "dated in the future": (lambda claims: claims.update(iat=claims["iat"] + 120), None, "future"),
    "empty audience": (lambda claims: claims.update(aud=[]), None, "another application"),
    "expired": (lambda claims: claims.update(exp=claims["iat"] - 61), None, "expired"),
    "garbage": (None, op.no_token, "cannot be read"),
    "HS256 with the client's secret": (
        None,
        op.signed_with_the_client_s_secret,
        "in a way that is not accepted",
    ),
    "HS256 with the public key": (None, op.signed_with_the_public_key, "in a way that is not accepted"),
    "issuer": (lambda claims: claims.update(iss="https://elsewhere.example"), None, "another issuer"),
    "no expiry": (lambda claims: claims.pop("exp"), None, "lacks the claim exp"),
    "no nonce": (lambda claims: claims.pop("nonce"), None, "lacks the claim nonce"),
    "no subject": (lambda claims: claims.pop("sub"), None, "lacks the claim sub"),
    "none": (None, op.unsigned, "in a way that is not accepted"),
    "nonce": (lambda claims: claims.update(nonce="A" * 43), None, "does not answer this sign-in"),
    "not yet": (lambda claims: claims.update(nbf=claims["iat"] + 120), None, "not hold yet"),
    "odd expiry": (lambda claims: claims.update(exp="tomorrow"), None, "'exp'"),
    "odd subject": (lambda claims: claims.update(sub={"a": 1}), None, "'sub'"),
    "party": (lambda claims: claims.update(azp="another-app"), None, "another application"),
    "unpublished key": (None, op.signed_by_a_key_that_is_not_published, "does not publish"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_an_id_token_that_does_not_hold_lets_nobody_in(browser, name):
    change, sign, expected = HOSTILE[name]
    if change is not None:
        browser.provider.change = change
    browser.provider.sign = sign
    answer = await browser.sign_in()
    assert answer.status == 403
    assert expected in told(answer)
    assert not browser.signed_in
    assert not await browser.verifier.service.services.tokens.list("default")


async def test_what_differs_by_a_little_is_let_in(browser):
    """Clocks a little apart, several audiences with this client as the party, another kind of key."""
    browser.provider.published = [op.ec_key("second")]
    browser.provider.sign = lambda provider, claims: provider.signed(claims, provider.published[0])
    browser.provider.change = lambda claims: claims.update(
        aud=[op.CLIENT, "another-app"], azp=op.CLIENT, iat=claims["iat"] + 30, exp=claims["iat"] - 30
    )
    assert (await browser.sign_in()).status == 303


async def test_an_answer_of_another_provider_is_refused(browser):
    """RFC 9207: which issuer answered is in the answer."""
    back = await browser.consent(await browser.begin())
    answer = await browser.get(re.sub(r"iss=[^&]+", "iss=https%3A%2F%2Felsewhere.example", back))
    assert "another provider" in told(answer)


async def test_a_refusal_is_told_in_the_provider_s_words_as_text(browser):
    state = parse_qs(urlsplit(await browser.begin("/dashboard/audit")).query)["state"][0]
    answer = await browser.get(
        f"{RETURN}?state={state}&error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E"
    )
    assert answer.status == 403
    assert b"<script>alert" not in answer.content
    assert "access_denied: <script>alert(1)</script>" in told(answer)
    assert b'value="/dashboard/audit"' in answer.content, "one can go on where one wanted to"


async def hang():
    await asyncio.sleep(60)
    return web.Response()


DESCRIPTION = "/realm/.well-known/openid-configuration"
FAULTS = {
    "description: 500": (DESCRIPTION, lambda: web.Response(status=500), "answers 500"),
    "description: garbage": (DESCRIPTION, lambda: web.Response(body=b"\xff["), "cannot be read"),
    "description: hangs": (DESCRIPTION, hang, "did not answer within 2 s"),
    "description: huge": (DESCRIPTION, lambda: web.Response(body=b" " * 2_000_000), "too long"),
    "description: redirect": (
        DESCRIPTION, lambda: web.Response(status=302, headers={"Location": "/realm/keys"}), "answers 302",
    ),
    "keys: 404": ("/realm/keys", lambda: web.Response(status=404), "answers 404"),
    "keys: no list": ("/realm/keys", lambda: web.json_response({"keys": 1}), "cannot be read"),
    "token: 200 without a token": ("/realm/token", lambda: web.json_response({}), "cannot be read"),
    "token: 503": ("/realm/token", lambda: web.Response(status=503), "status 503"),
    "token: hangs": ("/realm/token", hang, "did not answer within 2 s"),
    "token: refuses the client": (
        "/realm/token", lambda: web.json_response({"error": "invalid_client"}, status=401), "invalid_client",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_a_provider_that_is_down_or_wrong_is_told_and_tokens_still_open(browser, name, log):
    path, answer, expected = FAULTS[name]
    browser.provider.answers[path] = answer
    if path == "/realm/token":
        reply = await browser.sign_in()
    else:
        reply = await browser.get(START)
    assert reply.status == 502
    assert expected in told(reply)
    assert not browser.signed_in
    assert "dashboard.sign-in-fault" in log.getvalue()
    assert op.SECRET not in log.getvalue()
    token = await browser.verifier.token(Scope.DASHBOARD)
    assert (await browser.submit("/dashboard/login", token=token)).status == 303
    browser.provider.answers.clear()
    assert (await browser.sign_in()).status == 303, "and all is well once it is"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"issuer": "https://elsewhere.example"}, "calls itself 'https://elsewhere.example'"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "no https address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no https address"),
        ({"jwks_uri": "file:///etc/passwd"}, "no https address"),
        ({"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ({"token_endpoint": None}, "cannot be read"),
    ],
    ids=str,
)
async def test_a_description_that_leads_elsewhere_is_not_followed(browser, change, expected):
    browser.provider.description = change
    answer = await browser.get(START)
    assert answer.status == 502
    assert expected in told(answer)


async def test_a_provider_whose_certificate_is_not_trusted_is_not_believed(tmp_path, clock):
    async with op.provider_running(tmp_path / "provider") as provider:
        toml = f'[oidc]\nissuer = "{provider.issuer}"\nclient_id = "{op.CLIENT}"\n{ROLES}\n'
        async with running(settings_for(tmp_path, toml), clock) as verifier:
            answer = await verifier.call("GET", START, allow_redirects=False)
            assert answer.status == 502
            assert "cannot be reached" in told(answer)
            assert provider.asked == []


async def test_the_client_s_secret_is_read_anew_and_never_told(browser, tmp_path):
    (tmp_path / "secret").write_text("another")
    assert "invalid_client" in told(await browser.sign_in())
    (tmp_path / "secret").unlink()
    problem = told(await browser.sign_in())
    assert "client_secret_file cannot be read" in problem
    assert str(tmp_path) not in problem
    (tmp_path / "secret").write_text(op.SECRET)
    assert (await browser.sign_in()).status == 303


async def test_a_secret_goes_into_the_form_where_the_provider_wants_it_there(browser):
    browser.provider.description = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await browser.sign_in()).status == 303


async def test_a_public_client_has_no_secret(tmp_path, clock):
    async with estate(tmp_path, clock, secret=None) as browser:
        assert (await browser.sign_in()).status == 303


async def test_a_new_key_of_the_provider_is_found_and_the_description_is_read_seldom(browser, clock):
    await browser.sign_in()
    await browser.sign_in()
    assert browser.provider.asked.count(DESCRIPTION) == browser.provider.asked.count("/realm/keys") == 1
    clock.advance(seconds=11)
    browser.provider.key = op.rsa_key("rotated")
    assert (await browser.sign_in()).status == 303
    assert browser.provider.asked.count("/realm/keys") == 2
    browser.provider.sign = op.signed_by_a_key_that_is_not_published
    for _ in range(3):
        assert (await browser.sign_in()).status == 403
    assert browser.provider.asked.count("/realm/keys") == 2, "whoever names unknown keys costs no reading"


@pytest.mark.parametrize("roles", [[], ["others"], "others", None, {"a": 1}, [1, {}]], ids=str)
async def test_who_has_no_role_that_counts_is_told_so(browser, roles):
    browser.provider.person |= {"roles": roles}
    answer = await browser.sign_in()
    assert answer.status == 403
    assert "anna is known to the provider, but has no role" in told(answer)
    assert not browser.signed_in


async def test_roles_say_what_one_may_do(browser):
    guest = await browser.verifier.guest()
    revoke = f"/dashboard/attesters/{guest.attester_id}/revoke"

    async def may(*roles):
        browser.provider.person |= {"roles": list(roles)}
        await browser.sign_in()
        page = (await browser.get("/dashboard")).content.decode()
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]
        return (await browser.get("/dashboard/audit")).status, (
            await browser.submit(revoke, csrf=csrf)
        ).status

    assert await may("attest-viewers") == (403, 403)
    assert await may("attest-auditors", "attest-viewers") == (200, 403)
    assert await may("attest-auditors", "attest-operators", "others") == (200, 303)


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["attest-operators"]}}),
        ("https://example.org/roles", {"https://example.org/roles": "attest-operators"}),
    ],
)
async def test_roles_are_found_where_the_provider_has_them(tmp_path, clock, name, claims):
    async with estate(tmp_path, clock, more=f'role_claim = "{name}"') as browser:
        browser.provider.person = {"sub": "4711"} | claims
        assert (await browser.sign_in()).status == 303
        (token,) = await browser.verifier.service.services.tokens.list("default")
        assert token.label == "4711"


async def test_what_a_person_decides_is_audited_under_their_name(tmp_path, clock):
    async with estate(tmp_path, clock, more='[enrollment]\nmethods = ["approve"]\n') as browser:
        guest = Guest.booted(browser.verifier)
        begun = (await browser.verifier.post("/v1/enrollments", guest.enrollment(None))).json
        await guest.activate(begun)
        browser.provider.person |= {"preferred_username": "<b>anna</b>\n\x00"}
        await browser.sign_in()
        page = (await browser.get("/dashboard/enrollments")).content.decode()
        csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]
        path = f"/dashboard/enrollments/{begun['enrollment_id']}/refuse"
        assert (await browser.submit(path, csrf=csrf, reason="unknown")).status == 303
        (token,) = await browser.verifier.service.services.tokens.list("default")
        entry = (await browser.verifier.service.services.approvals.audit("default", None, None, 5))[0]
        assert (entry.actor, entry.reason) == (f"{token.id} <b>anna</b>", "unknown")
        assert b"<b>anna" not in (await browser.get("/dashboard/audit")).content


async def test_signing_out_ends_copies_of_the_session_too(browser):
    await browser.sign_in()
    copy = Browser(browser.verifier, browser.provider, dict(browser.cookies))
    page = (await browser.get("/dashboard")).content.decode()
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)[1]
    await browser.submit("/dashboard/logout", csrf=csrf)
    assert (await copy.get("/dashboard")).status == 303


async def test_a_session_can_be_revoked_and_ends_by_itself(browser, clock):
    tokens = browser.verifier.service.services.tokens
    await browser.sign_in()
    (token,) = await tokens.list("default")
    await tokens.revoke("default", token.id, "test")
    assert (await browser.get("/dashboard")).status == 303
    await browser.sign_in()
    clock.advance(hours=7, minutes=59)
    assert (await browser.get("/dashboard")).status == 200
    clock.advance(minutes=2)
    assert (await browser.get("/dashboard")).status == 303
    clock.advance(days=29)
    await browser.verifier.service.services.recorder.purge(clock.now())
    assert len(await tokens.list("default")) == 2
    clock.advance(days=2)
    await browser.verifier.service.services.recorder.purge(clock.now())
    assert await tokens.list("default") == ()


async def test_without_a_provider_there_is_no_such_way(verifier):
    assert b"Sign in with" not in (await verifier.call("GET", "/dashboard/login")).content
    for path in (START, RETURN):
        assert (await verifier.call("GET", path)).status == 404
