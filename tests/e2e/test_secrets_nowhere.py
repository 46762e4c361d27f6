"""No secret comes out but where it belongs: logs at level debug, errors, metrics, traces, audit log, events, pages, commands.

A verifier with everything on lives a whole life, the secrets are sent to the wrong places as well, and its database fails
below it. Then everything that came out is searched for every secret, in each form it could have been written in.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import sqlite3
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from joserfc import jwt

from tests import oidc_provider as op
from tests.e2e.test_dashboard import look, session, submit
from tests.e2e.test_dashboard_sign_in import ROLES, Browser
from tests.e2e.test_http_webhooks import add, delivering
from tests.e2e.test_telemetry import Memory
from tests.harness import POLICY, Guest, b64, running, settings_for, unb64
from tests.postgresql import started
from tests.receivers import receiving
from tests.secrets import KEY, NAME, grant, put, question
from verifier import telemetry
from verifier.cli.attest_verifier import main
from verifier.logs import configure_logs
from verifier.ports import Scope
from verifier.web.dashboard.sessions import COOKIE
from verifier.web.dashboard.sign_in_pages import RETURN

PASSWORD = "pw-Zebra-4711"
LEAST = 12
"""Characters that are a secret already."""


def forms(secret: str | bytes) -> set[str]:
    """How a secret could be written."""
    raw = secret.encode() if isinstance(secret, str) else secret
    texts = {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()}
    texts |= {repr(raw[:LEAST])[2:-1], json.dumps(raw.decode("latin-1"))[1:-1]}
    if isinstance(secret, str):
        texts |= {secret, quote(secret, safe=""), *secret.split(".")}
    return {text.rstrip("=") for text in texts if len(text.rstrip("=")) >= LEAST}


@dataclass
class Watch:
    """What is secret, and what came out."""

    secrets: dict[str, set[str]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def secret(self, name: str, value: str | bytes) -> None:
        self.secrets.setdefault(name, set()).update(forms(value))

    def out(self, where: str, text: str | bytes) -> None:
        self.seen.append((where, text.decode("utf-8", "replace") if isinstance(text, bytes) else text))

    def found(self) -> list[str]:
        """Where which secret is, and what stands before it."""
        return sorted(
            f"{name} in {where}: {text[max(0, at - 120) : at + 5]}"
            for name, parts in self.secrets.items()
            for part in parts
            for where, text in self.seen
            if (at := text.find(part)) >= 0
        )


async def misuse(verifier, watch: Watch, secret: str) -> None:
    """Send a secret wherever it does not belong; whatever comes back is searched."""
    told = secret[:4000]
    attempts = [
        ("GET", f"/v1/attesters/{quote(told, safe='')}", {}),
        ("GET", f"/v1/attesters?search={quote(told, safe='')}", {}),
        ("GET", f"/v1/status?{quote(told, safe='')}=1", {}),
        ("GET", f"/{quote(told, safe='')}", {}),
        (quote(told, safe="")[:40].replace("%", ""), "/v1/status", {}),
        ("GET", "/v1/status", {"headers": {"Authorization": f"Bearer {told}x"}}),
        ("GET", "/v1/status", {"headers": {"Authorization": f"Basic {told}"}}),
        (
            "GET",
            "/v1/status",
            {"headers": {"traceparent": told, "User-Agent": told, "Cookie": f"{COOKIE}={told}"}},
        ),
        ("GET", "/v1/events", {"headers": {"Last-Event-ID": told[:20]}}),
        ("POST", "/v1/tokens", {"json": {"scopes": [told], "label": "x"}}),
        ("POST", "/v1/tokens", {"json": {told: 1}}),
        (
            "POST",
            "/v1/tokens",
            {"data": f'{{"scopes": "{told}', "headers": {"Content-Type": "application/json"}},
        ),
        (
            "POST",
            "/v1/policies",
            {"data": f"{told}: {told}", "headers": {"Content-Type": "application/yaml"}},
        ),
        ("POST", "/v1/challenges", {"data": told, "headers": {"Content-Type": told[:60]}}),
        ("POST", "/v1/challenges", {"json": {"attester_id": told}}),
        ("POST", "/v1/enrollments", {"json": {"join_token": told, "ek_public": told}}),
        ("POST", f"/v1/enrollments/{quote(told, safe='')[:200]}/activation", {"json": {"proof": told}}),
        ("PUT", f"/v1/secrets/{NAME}", {"json": {"content": f"!{told}"}}),
        ("POST", "/v1/webhooks", {"json": {"url": f"https://x:{quote(told, safe='')[:60]}@[x/"}}),
        ("POST", "/dashboard/login", {"data": {"token": told, "next": "/dashboard"}}),
        ("GET", f"{RETURN}?code={quote(told, safe='')}&state={quote(told, safe='')}", {}),
        ("GET", "/dashboard", {"headers": {"Cookie": f"{COOKIE}={told}"}, "allow_redirects": False}),
    ]
    for method, path, options in attempts:
        if "Authorization" not in options.get("headers", {}) and path.startswith("/v1/"):
            options["scope"] = Scope.ADMIN
        answer = await verifier.call(method, path, **options)
        # Pages and messages may show people what they typed or what path they asked for; logs never may.
        watch.out(f"headers of {method} {path[:20]}", str({**answer.headers}))


@asynccontextmanager
async def estate(folder, clock, monkeypatch):
    """A verifier with everything on, its provider and its receiver."""
    memory = Memory()
    monkeypatch.setattr(telemetry, "otlp", lambda _: memory)
    for name, text in {
        "client-secret": op.SECRET,
        "headers": f"Authorization: Bearer {PASSWORD}-otlp",
    }.items():
        (folder / name).write_text(f"{text}\n")
    (folder / "secret-key").write_bytes(os.urandom(32))
    async with op.provider_running(folder / "provider", clock.now) as provider:
        provider.secret = op.SECRET
        provider.redirects.add("https://verifier.test" + RETURN)
        toml = (
            f'[oidc]\nissuer = "{provider.issuer}"\nclient_id = "{op.CLIENT}"\nca = "{provider.tls.ca}"\n{ROLES}\n'
            f'client_secret_file = "{folder / "client-secret"}"\n'
            f'[bearer]\nissuer = "{provider.issuer}"\naudience = "attest-api"\nca = "{provider.tls.ca}"\n'
            'roles = ["readers=relying-party"]\n'
            f'[secrets]\nkeys = ["{folder / "secret-key"}"]\n'
            '[telemetry]\nendpoint = "http://127.0.0.1:1"\n'
            f'headers_file = "{folder / "headers"}"\n'
            "[webhooks]\nallow_http = true\nallow_private = true\nattempts = 1\n"
        )
        settings = settings_for(folder, toml, LOG_ACCESS="true")
        async with running(settings, clock) as verifier, delivering(verifier), receiving() as receiver:
            yield verifier, provider, receiver, memory


def keys_of(watch: Watch, folder) -> None:
    """Whatever is private in the state directory."""
    found = [
        path for path in (folder / "state").rglob("*") if path.is_file() and path.stat().st_mode & 0o077 == 0
    ]
    for path in found:
        content = path.read_bytes()
        if b"PRIVATE KEY" in content:
            for line in content.decode().splitlines()[1:-1]:
                watch.secret(path.name, line)
        elif not path.name.startswith("verifier.db") and len(content) <= 1024:
            watch.secret(path.name, content)
    assert {"server.key", "ca.key"} <= set(watch.secrets), found
    watch.secret("the key of secrets", (folder / "secret-key").read_bytes())


async def live(verifier, provider, receiver, watch: Watch) -> list[str]:
    """A machine's life, a person's, a service's. Gives the secrets that are texts."""
    join, operator = await verifier.token(Scope.JOIN), await verifier.token(Scope.OPERATOR)
    guest = Guest.booted(verifier)
    begun = await verifier.post("/v1/enrollments", guest.enrollment(join))
    proof = guest.proof(begun.json)
    await verifier.post(
        f"/v1/enrollments/{begun.json['enrollment_id']}/activation", {"proof": b64(bytes(32))}
    )
    done = await guest.activate(begun.json)
    guest.attester_id = done.json["attester_id"]
    challenge = await guest.challenge()
    assert (await guest.attest(challenge)).status == 200
    assert (await guest.attest(challenge)).status == 409
    await put(verifier)
    await grant(verifier, attester=guest.attester_id)
    asked = await question(guest)
    released = await asked.send()
    assert asked.open(released) == KEY
    made = (
        await verifier.post("/v1/tokens", {"scopes": ["dashboard"], "label": "x"}, scope=Scope.ADMIN)
    ).json
    _, webhook = await add(verifier, receiver.url)
    await add(verifier, "http://127.0.0.1:9/unreachable")
    await verifier.call(
        "POST", f"/v1/attesters/{guest.attester_id}/revoke", scope=Scope.OPERATOR, json={"reason": "x"}
    )
    await receiver.next()
    cookie, token = await session(verifier)
    for path in (
        "/dashboard",
        "/dashboard/audit",
        "/dashboard/no-such-page",
        f"/dashboard/attesters/{guest.attester_id}",
    ):
        watch.out(path, (await look(verifier, path, cookie)).content)
    browser = Browser(verifier, provider)
    back = await browser.consent(await browser.begin())
    await browser.get(back.replace("code=", "code=x"))
    browser.cookies.clear()
    await browser.sign_in()
    assert browser.signed_in
    now = int(provider.now().timestamp())
    claims = {"iss": provider.issuer, "aud": "attest-api", "sub": "svc", "iat": now, "exp": now + 600}
    header = {"alg": provider.key.get("alg"), "kid": provider.key.kid}
    jwts = [
        jwt.encode(header, claims | {"roles": roles}, provider.key, algorithms=[header["alg"]])
        for roles in (["readers"], ["nothing"])
    ]
    for text, status in zip([*jwts, jwts[0][:-8] + "AAAAAAAA"], [200, 401, 401], strict=True):
        assert (await verifier.call("GET", "/v1/verdicts", token=text)).status == status
    for name, value in {
        "join token": join,
        "operator's token": operator,
        "a token made over the API": made["token"],
        "token behind a session": token,
        "cookie": cookie,
        "cookie of a sign-in": browser.cookies[COOKIE],
        "webhook's secret": webhook,
        "JWT": jwts[0],
        "JWT of nobody": jwts[1],
        "client secret": op.SECRET,
        "password of traces": f"{PASSWORD}-otlp",
        "proof of activation": proof,
        "secret of a machine": KEY,
        "nonce": unb64(challenge["nonce"]),
    }.items():
        watch.secret(name, value)
    watch.secret("code of a sign-in", back.partition("code=")[2].partition("&")[0])
    return [join, operator, made["token"], webhook, *jwts, cookie, b64(proof)]


async def broken(verifier, watch: Watch) -> None:
    """Every write fails, with what it was to write."""
    machine, admin = Guest.booted(verifier, 9), await verifier.token(Scope.ADMIN)
    guest, join = await verifier.guest(10), await verifier.token(Scope.JOIN)
    begun = (await verifier.post("/v1/enrollments", machine.enrollment(join))).json
    proof = machine.proof(begun)
    path = verifier.service.settings.state_dir / "verifier.db"
    with sqlite3.connect(path) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        for number, (table, verb) in enumerate(itertools.product(tables, ("insert", "update"))):
            database.execute(
                f"create trigger broken{number} before {verb} on {table} begin select raise(abort, 'broken'); end"
            )
    attempts = [
        ("POST", f"/v1/enrollments/{begun['enrollment_id']}/activation", {"json": {"proof": b64(proof)}}),
        ("POST", "/v1/enrollments", {"json": Guest.booted(verifier, 11).enrollment(join)}),
        ("POST", "/v1/attestations", {"json": guest.evidence(await guest.challenge())}),
        ("PUT", f"/v1/secrets/{NAME}", {"json": {"content": b64(KEY)}}),
        ("POST", f"/v1/secrets/{NAME}/grants", {"json": {"attester": guest.attester_id}}),
        ("POST", "/v1/webhooks", {"json": {"url": "http://127.0.0.1:9/"}}),
        ("POST", "/v1/tokens", {"json": {"scopes": ["admin"], "label": "x"}}),
        ("POST", "/v1/policies", {"data": POLICY + " ", "headers": {"Content-Type": "application/yaml"}}),
        ("POST", f"/v1/attesters/{guest.attester_id}/revoke", {"json": {"reason": "x"}}),
    ]
    for method, path, options in attempts:
        answer = await verifier.call(method, path, **{"token": admin} | options)
        assert answer.status >= 500, (path, answer.content)
        watch.out(f"{method} {path[:30]} that cannot be stored", answer.content)
    for name, value in {"last proof": proof, "last admin": admin, "last join token": join}.items():
        watch.secret(name, value)


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_secret_comes_out_of_a_whole_life(tmp_path, clock, monkeypatch, form):
    stream, watch = io.StringIO(), Watch()
    configure_logs(form, "debug", stream)
    async with estate(tmp_path, clock, monkeypatch) as (verifier, provider, receiver, memory):
        texts = await live(verifier, provider, receiver, watch)
        for text in texts:
            await misuse(verifier, watch, text)
        for path in (
            "/metrics",
            "/v1/audit?limit=200",
            "/v1/tokens",
            "/v1/webhooks",
            "/v1/secrets",
            f"/v1/secrets/{NAME}",
        ):
            watch.out(path, (await verifier.get(path)).content)
        watch.out("/openapi.json", (await verifier.call("GET", "/openapi.json")).content)
        watch.out("what receivers get", str([(one.headers, one.body) for one in receiver.received]))
        await submit(verifier, "/dashboard/login", token=texts[1])
        await broken(verifier, watch)
        keys_of(watch, tmp_path)
    watch.out(
        "traces",
        str(
            [
                (
                    one.name,
                    dict(one.attributes),
                    [event.attributes for event in one.events],
                    one.status.description,
                )
                for one in memory.spans
            ]
        ),
    )
    watch.out("the log", stream.getvalue())
    assert len(memory.spans) > 50
    assert stream.getvalue().count("\n") > 200
    assert "parameters: " not in stream.getvalue()
    assert watch.found() == []


def command(capsys, monkeypatch, *arguments) -> str:
    monkeypatch.setattr(sys, "argv", ["attest-verifier", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code not in {0, None}
    return "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://attest:{PASSWORD}@127.0.0.1:1/attest",
        f"postgresql://attest:{PASSWORD}@127.0.0.1:port/attest",
        f"postgresql://attest:{PASSWORD}@127.0.0.1:1/attest?nonsense=1",
        f"postgresql://attest:{PASSWORD}@127.0.0.1:1/attest?sslmode=nonsense",
        f"postgresql://attest@127.0.0.1:1/attest?password={PASSWORD}",
        f"mysql://attest:{PASSWORD}@127.0.0.1/attest",
        f"postgresql:/attest:{PASSWORD}@127.0.0.1",
        f"attest:{PASSWORD}@127.0.0.1",
    ],
    ids=["gone", "port", "option", "sslmode", "query", "kind", "slash", "no URL"],
)
def test_commands_that_cannot_use_a_database_do_not_repeat_its_password(tmp_path, capsys, monkeypatch, url):
    config = tmp_path / "verifier.toml"
    config.write_text(f'state_dir = "{tmp_path / "state"}"\ndatabase = "{url}"\n')
    for arguments in (("tokens", "list"), ("db", "status"), ("db", "upgrade")):
        assert PASSWORD not in command(capsys, monkeypatch, *arguments, "--config", config), arguments


async def test_a_database_that_fails_or_goes_takes_no_password_along_into_the_log(tmp_path, clock):
    stream = io.StringIO()
    with started() as cluster:
        cluster.sql("create database attest")
        url = f"postgresql://verifier:{PASSWORD}@/attest?host={cluster.root}"
        async with running(settings_for(tmp_path, DATABASE=url, LOG_ACCESS="true"), clock) as verifier:
            configure_logs("json", "debug", stream)
            guest = await verifier.guest()
            attestation = guest.evidence(await guest.challenge())
            enrollment = Guest.booted(verifier, 2).enrollment(await verifier.token(Scope.JOIN))
            content = {"content": b64(KEY)}
            admin = await verifier.token(Scope.ADMIN)
            body = "begin raise 'broken'; end"
            cluster.sql(
                f"create function broken() returns trigger language plpgsql as $$ {body} $$", "attest"
            )
            for table in ("enrollment", "secret", "attestation"):
                trigger = f"create trigger broken before insert on {table} for each row"
                cluster.sql(f"{trigger} execute function broken()", "attest")
            answers = [
                await verifier.post("/v1/enrollments", enrollment),
                await verifier.call("PUT", f"/v1/secrets/{NAME}", token=admin, json=content),
                await verifier.post("/v1/attestations", attestation),
            ]
            cluster.stop("immediate")
            answers += [
                await verifier.call("GET", "/readyz"),
                await verifier.post("/v1/attestations", attestation),
                await verifier.call("GET", "/metrics", token=admin),
            ]
    assert [one.status for one in answers[:4]] == [500, 500, 500, 503]
    told = stream.getvalue() + "".join(str(one.content) for one in answers)
    assert "INSERT INTO enrollment" in told
    assert "parameters: " not in told
    for secret in (PASSWORD, KEY, admin, unb64(attestation["nonce"]), unb64(attestation["signature"])):
        assert [form for form in forms(secret) if form in told] == []
