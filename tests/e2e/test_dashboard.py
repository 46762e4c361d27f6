"""Sessions and forms of the dashboard: what cannot be fixed, forged, or sent from elsewhere; who sees what."""

from __future__ import annotations

import base64
import re

import pytest

from tests.harness import Guest, boot_log, running, settings_for
from verifier.ports import Scope
from verifier.web.dashboard.handlers import PAGES
from verifier.web.dashboard.sessions import COOKIE

READABLE = [
    page.path for page in PAGES if page.method == "GET" and page.scopes and page.path != "/dashboard/live"
]
CHANGING = [page.path for page in PAGES if page.method == "POST" and page.scopes]


async def submit(verifier, path, cookie=None, headers=None, **fields):
    headers = dict(headers or {}) | ({} if cookie is None else {"Cookie": f"{COOKIE}={cookie}"})
    return await verifier.call("POST", path, data=fields, headers=headers, allow_redirects=False)


async def look(verifier, path, cookie):
    return await verifier.call("GET", path, headers={"Cookie": f"{COOKIE}={cookie}"}, allow_redirects=False)


async def session(verifier, scope=Scope.OPERATOR, **options):
    """A cookie, and the token behind it."""
    token = await verifier.token(scope, **options)
    answer = await submit(verifier, "/dashboard/login", token=token)
    assert answer.status == 303, answer.content
    return re.match(rf"{COOKIE}=([^;]+)", answer.headers["Set-Cookie"])[1], token


async def csrf(verifier, cookie, path="/dashboard"):
    return re.search(r'name="csrf" value="([^"]+)"', (await look(verifier, path, cookie)).content.decode())[1]


def concrete(path, guest=None):
    return path.replace("{sequence}", "1").replace("{id}", guest.attester_id if guest else "some-id")


async def test_a_session_s_cookie_is_out_of_reach_of_scripts_and_other_sites(verifier):
    token = await verifier.token(Scope.DASHBOARD)
    answer = await submit(verifier, "/dashboard/login", token=token)
    attributes = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
    assert not any(part.startswith("domain") for part in attributes)
    assert token not in answer.headers["Set-Cookie"]
    assert token.removeprefix("vta1.") not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("path", READABLE)
async def test_without_a_session_every_page_asks_to_sign_in(verifier, path):
    for cookie in ("", "x", "A" * 120, base64.urlsafe_b64encode(b"x" * 80).decode()):
        answer = await look(verifier, concrete(path), cookie)
        assert answer.status == 303
        assert answer.headers["Location"].startswith("/dashboard/login?next=")


async def test_a_changed_cookie_is_no_session(verifier):
    cookie, _ = await session(verifier)
    assert (await look(verifier, "/dashboard", cookie)).status == 200
    raw = bytearray(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
    for position in range(0, len(raw), 5):
        changed = bytearray(raw)
        changed[position] ^= 1
        forged = base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")
        assert (await look(verifier, "/dashboard", forged)).status == 303


async def test_signing_in_always_begins_a_new_session(verifier):
    """Whoever put a cookie into the browser before does not share what comes after."""
    token = await verifier.token(Scope.DASHBOARD)
    fixed, _ = await session(verifier)
    answer = await submit(verifier, "/dashboard/login", fixed, token=token)
    begun = re.match(rf"{COOKIE}=([^;]+)", answer.headers["Set-Cookie"])[1]
    assert begun != fixed
    again = await submit(verifier, "/dashboard/login", token=token)
    assert re.match(rf"{COOKIE}=([^;]+)", again.headers["Set-Cookie"])[1] != begun


async def test_a_session_ends_with_its_token_and_after_eight_hours(verifier, clock):
    cookie, token = await session(verifier)
    (record,) = [
        r for r in await verifier.service.services.tokens.list("default") if Scope.OPERATOR in r.scopes
    ]
    await verifier.service.services.tokens.revoke("default", record.id, "test")
    assert (await look(verifier, "/dashboard", cookie)).status == 303
    other, _ = await session(verifier)
    clock.advance(hours=7, minutes=59)
    assert (await look(verifier, "/dashboard", other)).status == 200
    clock.advance(minutes=2)
    assert (await look(verifier, "/dashboard", other)).status == 303
    assert token


@pytest.mark.parametrize("scope", [Scope.JOIN, Scope.RELYING_PARTY])
async def test_a_token_for_something_else_opens_nothing(verifier, scope):
    answer = await submit(verifier, "/dashboard/login", token=await verifier.token(scope))
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("path", CHANGING)
async def test_no_form_is_taken_without_its_session_s_secret(verifier, path):
    guest = await verifier.guest()
    cookie, _ = await session(verifier, Scope.ADMIN)
    other, _ = await session(verifier, Scope.ADMIN)
    before = verifier.rows()
    for secret in ("", "x", await csrf(verifier, other)):
        answer = await submit(verifier, concrete(path, guest), cookie, csrf=secret)
        assert answer.status == 403
    foreign = {"Sec-Fetch-Site": "cross-site"}
    answer = await submit(verifier, concrete(path, guest), cookie, foreign, csrf=await csrf(verifier, cookie))
    assert answer.status == 403
    elsewhere = {"Origin": "https://elsewhere.example"}
    answer = await submit(
        verifier, concrete(path, guest), cookie, elsewhere, csrf=await csrf(verifier, cookie)
    )
    assert answer.status == 403
    assert verifier.rows() == before


async def test_who_may_only_look_changes_nothing(verifier):
    guest = await verifier.guest()
    cookie, _ = await session(verifier, Scope.DASHBOARD)
    secret = await csrf(verifier, cookie)
    for path in CHANGING:
        if path != "/dashboard/logout":
            assert (await submit(verifier, concrete(path, guest), cookie, csrf=secret)).status == 403
    assert (await look(verifier, "/dashboard/audit", cookie)).status == 403


async def test_another_tenant_sees_nothing_of_it(verifier):
    guest = await verifier.guest()
    await guest.attest()
    cookie, _ = await session(verifier, Scope.ADMIN, tenant="other")
    for path in ("/dashboard/attesters/{id}", "/dashboard/attesters/{id}/boots/{sequence}"):
        assert (await look(verifier, concrete(path, guest), cookie)).status == 404
    for path in ("/dashboard", "/dashboard/attesters"):
        assert guest.attester_id.encode() not in (await look(verifier, path, cookie)).content
    revoke = concrete("/dashboard/attesters/{id}/revoke", guest)
    assert (await submit(verifier, revoke, cookie, csrf=await csrf(verifier, cookie))).status == 404


@pytest.mark.parametrize(
    ("target", "led_to"),
    [
        ("/dashboard/attesters?status=none", "/dashboard/attesters?status=none"),
        ("https://elsewhere.example/", "/dashboard"),
        ("//elsewhere.example/dashboard", "/dashboard"),
        ("/dashboard.elsewhere.example", "/dashboard"),
        ("/dashboard/\\elsewhere", "/dashboard"),
        ("/v1/tokens", "/dashboard"),
        ("/dashboard/\r\nSet-Cookie: a=b", "/dashboard"),
    ],
)
async def test_signing_in_leads_to_pages_of_ours_alone(verifier, target, led_to):
    answer = await submit(
        verifier, "/dashboard/login", token=await verifier.token(Scope.DASHBOARD), next=target
    )
    assert (answer.status, answer.headers["Location"]) == (303, led_to)


async def test_every_page_forbids_what_it_does_not_need(verifier):
    guest = await verifier.guest()
    await guest.attest()
    cookie, _ = await session(verifier)
    for path in READABLE:
        answer = await look(verifier, concrete(path, guest), cookie)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        text = answer.content.decode()
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|https?://(?!www\.w3\.org)", text), path


async def test_what_a_guest_says_of_itself_is_text_and_never_markup(verifier):
    guest = Guest.booted(verifier)
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    body = guest.enrollment(await verifier.token(Scope.JOIN), identity={"hostname": hostile, "os": hostile})
    begun = (await verifier.post("/v1/enrollments", body)).json
    guest.attester_id = (await guest.activate(begun)).json["attester_id"]
    await guest.attest(identity={"hostname": hostile, "os": hostile})
    cookie, _ = await session(verifier)
    for path in ("/dashboard", "/dashboard/attesters", f"/dashboard/attesters/{guest.attester_id}"):
        assert b"<script>alert" not in (await look(verifier, path, cookie)).content
        assert b"<img" not in (await look(verifier, path, cookie)).content


@pytest.mark.parametrize(
    "query",
    [
        "attesters?status=unheard-of",
        "attesters?search=" + "a" * 200,
        "attesters?label=novalue",
        "attesters?label==x",
        "attesters?cursor=forged",
        "attesters?cursor=" + "A" * 600,
        "audit?before=x",
        "audit?before=-1",
        "audit?before=" + "9" * 19,
    ],
)
async def test_a_filter_that_makes_no_sense_is_told_on_a_page(verifier, query):
    cookie, _ = await session(verifier)
    answer = await look(verifier, f"/dashboard/{query}", cookie)
    assert answer.status == 400
    assert b"What to do" in answer.content


@pytest.mark.parametrize("sequence", ["0", "2", "-1", "x", "9" * 30])
async def test_a_boot_that_is_not_there_is_not_found(verifier, sequence):
    guest = await verifier.guest()
    await guest.attest()
    cookie, _ = await session(verifier)
    answer = await look(verifier, f"/dashboard/attesters/{guest.attester_id}/boots/{sequence}", cookie)
    assert answer.status == 404


async def test_yesterday_s_boot_and_today_s_are_compared_event_by_event(verifier, clock):
    guest = await verifier.guest()
    await guest.attest()
    clock.advance(minutes=5)
    guest.reboot(boot_log(line="root=/dev/vda2 quiet init=/bin/sh"))
    await guest.attest(kernel_command_line="root=/dev/vda2 quiet init=/bin/sh")
    cookie, _ = await session(verifier)
    page = (
        await look(verifier, f"/dashboard/attesters/{guest.attester_id}/boots/2", cookie)
    ).content.decode()
    changes = page[page.index("Since the boot before") : page.index('id="events"')]
    assert "root=/dev/vda2 quiet init=/bin/sh" in changes
    assert changes.count('scope="row"') == 1
    first = (await look(verifier, f"/dashboard/attesters/{guest.attester_id}/boots/1", cookie)).content
    assert b"No earlier boot is kept" in first


async def test_revoking_takes_a_form_and_is_seen(verifier):
    guest = await verifier.guest()
    await guest.attest()
    cookie, _ = await session(verifier)
    secret = await csrf(verifier, cookie)
    path = f"/dashboard/attesters/{guest.attester_id}"
    answer = await submit(verifier, f"{path}/revoke", cookie, csrf=secret)
    assert (answer.status, answer.headers["Location"]) == (303, path)
    assert b"an operator revoked this attester" in (await look(verifier, path, cookie)).content


async def test_the_plot_has_a_sample_a_minute_and_one_per_minute_only(verifier, clock):
    await (await verifier.guest()).attest()
    samples = verifier.service.services.samples
    for _ in range(3):
        await samples.take("default")
    clock.advance(minutes=1)
    await samples.take("default")
    cookie, _ = await session(verifier)
    page = (await look(verifier, "/dashboard", cookie)).content.decode()
    assert verifier.rows()["fleet_sample"] == 2
    assert '<polygon class="band affirming"' in page


async def test_static_files_are_kept_by_browsers_and_only_under_their_digest(verifier):
    page = (await verifier.call("GET", "/dashboard/login")).content.decode()
    for path in re.findall(r'(?:href|src)="(/dashboard/static/[^"]+)"', page):
        answer = await verifier.call("GET", path)
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        other = re.sub(r"static/\w+", "static/" + "0" * 16, path)
        assert (await verifier.call("GET", other)).status == 404
    assert (await verifier.call("GET", "/dashboard/static/x/..%2f..%2fsetup.py")).status == 404


async def test_an_open_page_is_told_of_a_change_and_an_open_stream_does_not_hold_up_the_end(tmp_path, clock):
    async with running(settings_for(tmp_path), clock) as verifier:
        guest = await verifier.guest()
        cookie, _ = await session(verifier, Scope.DASHBOARD)
        headers = {"Cookie": f"{COOKIE}={cookie}"}
        stream = await verifier.session.get(verifier.url + "/dashboard/live", headers=headers)
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        await guest.attest()
        assert b"event: change" in await stream.content.readuntil(b"\n")


async def test_the_overview_says_how_the_transparency_log_stands(verifier):
    cookie, _ = await session(verifier)
    sequencer = verifier.service.services.sequencer

    async def page():
        return (await look(verifier, "/dashboard", cookie)).content.decode()

    assert "Nothing is signed yet" in await page()
    guest = await verifier.guest()
    await guest.attest()
    await sequencer.extend()
    assert f"{(await sequencer.figures()).size} leaves, signed" in await page()
    assert "No witnesses." in await page()
    sequencer.damage = "tile 0/0 <is> missing"
    assert "tile 0/0 &lt;is&gt; missing" in await page()


async def test_the_overview_shows_at_once_who_became_contraindicated_here(verifier):
    guests = [await verifier.guest(seed) for seed in (1, 2)]
    cookie, _ = await session(verifier)
    shown = []
    for guest in guests:
        guest.reboot(boot_log(secure=False))
        await guest.attest()
        shown.append(await contraindicated(verifier, cookie))
    path = f"/v1/attesters/{guests[0].attester_id}/revoke"
    await verifier.call("POST", path, scope=Scope.OPERATOR)
    shown.append(await contraindicated(verifier, cookie))
    assert shown == [{"guest-1"}, {"guest-1", "guest-2"}, {"guest-2"}]


async def contraindicated(verifier, cookie) -> set[str]:
    """Whom the overview lists as such."""
    page = (await look(verifier, "/dashboard", cookie)).content.decode()
    return set(re.findall(r"guest-\d", page.partition('id="bad"')[2]))
