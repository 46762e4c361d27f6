"""A real verifier with real guests, and a real headless Chromium that looks at it.

In a process of their own (`make test` sees to it): the browser's driver keeps an event loop, beside which no asynchronous test
can run.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import ssl
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.demo import Verifier, attest, guest_tpm, run_agent, token
from tests import swtpm
from tests.conftest import ROOT
from tests.oidc_provider import CLIENT, SECRET, provider_beside
from verifier.web.dashboard.sign_in_pages import RETURN

CHROMIUM = shutil.which("chromium")
SHOTS = ROOT / "build" / "screenshots"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 780}}


@dataclass
class Fleet:
    """The verifier, and ids of what is in it."""

    verifier: Verifier
    good: str
    bad: str
    operator: str
    dashboard: str
    again: Callable[[], object]
    """The good guest attests once more."""

    @property
    def url(self) -> str:
        return f"{self.verifier.url}/dashboard"


@dataclass
class Errors:
    """What the browser complained of."""

    seen: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    if not swtpm.available():
        pytest.skip("SKIPPED FOR WANT OF A TPM: swtpm or its tools are not installed")
    work = tmp_path_factory.mktemp("dashboard")
    tpms = [guest_tpm(work, number) for number in (1, 2)]
    machines = work / "machines.json"
    write_machines(machines, "web-01", "not yet known")
    more = f'[[inventory]]\nkind = "file"\nname = "rack"\npath = "{machines}"\ninterval = "1s"\n'
    with tpms[0] as first, tpms[1] as second, Verifier.running(work, more=more) as verifier:
        good = attest(verifier, first, 1, "uki-sb-on")
        bad = attest(verifier, second, 2, "uki-sb-on-cmdline-tampered")
        write_machines(machines, "web-01", good["verdict"]["attester_id"], ek_of(verifier, good))
        operator = token(verifier.config, "operator")
        # Of nobody here: there is something to show, and no verdict is another.
        assigned = {"policy": "grub-strict", "mode": "observe", "selector": {"site": "north", "tier": "web"}}
        ask(verifier, "PUT", "/v1/assignments", operator, assigned)
        remember_samples(work / "verifier" / "verifier.db")
        yield Fleet(
            verifier,
            good["verdict"]["attester_id"],
            bad["verdict"]["attester_id"],
            operator,
            verifier.dashboard_token,
            lambda: attest_again(work, first),
        )


def remember_samples(database: Path) -> None:
    """What the verifier would have noted over the last hours of a large fleet, so that there is a plot to look at."""
    now = int(time.time())
    rows = [
        (
            "default",
            (now - 1800 * back) * 1_000_000,
            json.dumps({"affirming": 41_000, "stale": 9_000 - 100 * back}),
        )
        for back in range(1, 9)
    ]
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.executemany("INSERT INTO fleet_sample VALUES (?, ?, ?)", rows)


def ek_of(verifier: Verifier, answer) -> str:
    """SHA-256 of the EK of whoever was given this answer."""
    path = f"/v1/attesters/{answer['verdict']['attester_id']}"
    return ask(verifier, "GET", path, verifier.dashboard_token)["endorsement"]["ek_sha256"]


def ask(verifier: Verifier, method: str, path: str, token: str, body=None):
    """A call of the API, answered by JSON."""
    request = urllib.request.Request(
        verifier.url + path,
        method=method,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode(),
    )
    context = ssl.create_default_context(cafile=str(verifier.ca))
    with urllib.request.urlopen(request, context=context) as reply:
        return json.load(reply)


def write_machines(path: Path, name: str, remark: str, *keys: str) -> None:
    """An inventory of one machine that is there and one that is not."""
    gone = {"name": "db-09", "smbios_uuid": "4c4c4544-0042-3510-8052-b4c04f4b3132"}
    listed = {"name": name, "labels": {"attester": remark}} | (
        {"ek_sha256": list(keys)} if keys else {"smbios_uuid": "4c4c4544-0042-3510-8052-b4c04f4b9999"}
    )
    path.write_text(json.dumps([listed, gone]))


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """An OpenID Connect provider."""
    with provider_beside(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="session")
def bare(tmp_path_factory, provider):
    """A verifier without guests and inventory, where people sign in through the provider."""
    if not swtpm.available():
        pytest.skip("SKIPPED FOR WANT OF A TPM: swtpm or its tools are not installed")
    work = tmp_path_factory.mktemp("bare")
    swtpm.manufacture(work / "tpm", work / "tpm-vendor-ca")
    (work / "secret").write_text(SECRET)
    more = (
        f'[oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT}"\nca = "{provider.tls.ca}"\n'
        f'client_secret_file = "{work / "secret"}"\nname = "Example SSO"\nroles = ["attest-operators=operator"]\n'
    )
    with Verifier.running(work, more=more) as verifier:
        provider.redirects.add(verifier.url + RETURN)
        yield Fleet(
            verifier, "", "", token(verifier.config, "operator"), verifier.dashboard_token, lambda: None
        )


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("SKIPPED FOR WANT OF A BROWSER: chromium is not installed, so no page was looked at")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def sessions():
    """Cookies by token: signing in is tested by itself."""
    return {}


@pytest.fixture(params=list(SIZES))
def size(request):
    return request.param


@pytest.fixture
def open_page(browser, fleet, request):
    """Opens a page; the test fails if the browser complains of anything on it."""
    contexts, errors = [], Errors()
    sessions = request.getfixturevalue("sessions")

    def opened(*, size="desktop", scheme="light", script=True, token=None):
        context = browser.new_context(
            viewport=SIZES[size], color_scheme=scheme, java_script_enabled=script, ignore_https_errors=True
        )
        if token in sessions:
            context.add_cookies(sessions[token])
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: errors.seen.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: errors.seen.append(str(error)))
        if token is not None and token not in sessions:
            sign_in(page, fleet, token)
            sessions[token] = context.cookies()
        elif token is not None:
            page.goto(fleet.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    expected = request.node.get_closest_marker("expects_errors")
    assert expected or errors.seen == [], errors.seen


def attest_again(work: Path, tpm) -> None:
    options = ["--tcti", tpm.tcti, "--root", str(work / "guest1" / "root")]
    run_agent("attest", "--once", *options, "--state-dir", str(work / "guest1" / "agent"), "--json")


def sign_in(page, fleet: Fleet, token: str) -> None:
    page.goto(f"{fleet.url}/login")
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(r"/dashboard(?!/login)"))


def shoot(page, name: str) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
