"""A whole verifier over HTTP with a real SQLite store, a clock tests can turn, and guests with software TPMs."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import pickle
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
from aiohttp import web

from tests.logs import EV_EFI_BOOT_SERVICES_APPLICATION, EV_IPL, Written, agile_log, secure_boot, separators
from tests.once import migrated
from tests.simulator import SoftwareCa, SoftwareTpm
from verifier.main import Service, following, open_service, register_policies
from verifier.ports import DEFAULT_TENANT, Scope, Workers
from verifier.ports_observe import QueueState
from verifier.ports_runtime import RuntimeReferences
from verifier.serving.sockets import address_of, listen
from verifier.settings import Settings, load_settings
from verifier.web.acceptor import DOOR, Acceptor
from verifier.web.runner import Runner
from verifier.wiring import balancers_of, client_anchors

A = TypeVar("A")
T = TypeVar("T")
BIN = Path(sys.executable).parent
RATCHET_ATTRIBUTES = 0x02060044
"""authwrite, nt=extend, ownerread, authread, noda."""
LINE = "root=/dev/vda2 quiet"
PCRS = [0, 4, 7, 8, 9]
POLICY = """\
schema: vtpm-attest/policy/1
id: secure-boot
description: Secure Boot has to be on
validity: 10m
quote:
  bank: sha256
  pcrs: [0, 4, 7, 8, 9]
boot_log: optional
rules:
  - id: secure-boot
    severity: contraindicated
    claim: configuration
    secure_boot: enabled
unjudged:
  - pcrs: [0, 4, 7, 8, 9]
    why: a policy for tests of the service, not of machines
"""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


def boot_log(line: str = LINE, *, secure: bool = True) -> bytes:
    return agile_log(
        [
            Written(0, 0x8, b"1\0"),
            secure_boot(on=secure),
            *separators(),
            Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"device path", b"loader"),
            Written(8, EV_IPL, f"kernel_cmdline: {line}\0".encode(), line.encode()),
        ]
    )


OF_COURSE = frozenset({"token.created", "policy.added", "attester.enrolled"})
"""Actions in the audit log that tests of something else do not ask about."""


@dataclass
class FakeClock:
    """The `Clock` port: starts at the time of day, so that libraries agree with it, and is turned by hand."""

    at: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def now(self) -> datetime:
        return self.at

    def advance(self, **span: float) -> None:
        self.at += timedelta(**span)


class Here:
    """The `Workers` port without other processes: what goes in and comes out is sent there and back all the same."""

    queue = QueueState()

    async def run(self, work: Callable[[A], T], given: A) -> T:
        await asyncio.sleep(0)
        result: T = _sent(work(_sent(given)))
        return result

    async def close(self) -> None:
        """Nothing to end."""


def _sent(value: T) -> T:
    """What arrives of a value."""
    made: T = pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    return made


@dataclass
class Answer:
    """One HTTP reply, read."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """Of a problem document; anything else fails the test."""
        assert self.headers["Content-Type"] == "application/problem+json", self.content
        assert self.json["status"] == self.status
        return self.json["code"]


@dataclass
class Command:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


@dataclass
class Harness:
    """A running verifier and a client of it."""

    service: Service
    clock: FakeClock
    url: str
    session: aiohttp.ClientSession
    secure_url: str = ""
    tokens: dict[Scope, str] = field(default_factory=dict)
    runner: web.AppRunner | None = None

    async def token(self, scope: Scope, **options: Any) -> str:
        options = {"uses": None, "lifetime": None, "tenant": DEFAULT_TENANT} | options
        _, text = await self.service.services.tokens.create(
            scopes=frozenset({scope}), label="", actor="test", **options
        )
        return text

    async def call(
        self, method: str, path: str, *, scope: Scope | None = None, token: str | None = None, **options: Any
    ) -> Answer:
        headers = dict(options.pop("headers", {}))
        if scope is not None:
            if scope not in self.tokens:
                self.tokens[scope] = await self.token(scope)
            token = self.tokens[scope]
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.session.request(method, self.url + path, headers=headers, **options) as reply:
            return Answer(reply.status, reply.headers.copy(), await reply.read())

    async def get(self, path: str, scope: Scope = Scope.ADMIN, **options: Any) -> Answer:
        return await self.call("GET", path, scope=scope, **options)

    async def decisions(
        self, subject: str | None = None, scope: Scope = Scope.AUDITOR, **options: Any
    ) -> list[dict[str, Any]]:
        """The audit log, newest first, without what comes by itself with each token, policy and enrolment."""
        query = "" if subject is None else f"?subject={subject}"
        entries = (await self.get(f"/v1/audit{query}", scope, **options)).json["entries"]
        return [one for one in entries if one["action"] not in OF_COURSE]

    async def post(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("POST", path, json=body, **options)

    async def guest(self, seed: int = 1, **options: Any) -> Guest:
        """An enrolled guest that has booted with Secure Boot."""
        guest = Guest.booted(self, seed, **options)
        await guest.enroll()
        return guest

    async def attestctl(self, *arguments: str | Path, scope: Scope = Scope.OPERATOR) -> Command:
        """Run the command as people do, against this verifier."""
        process = await self.attestctl_running(*arguments, scope=scope)
        out, err = await process.communicate()
        return Command(process.returncode or 0, out.decode(), err.decode())

    async def attestctl_running(
        self, *arguments: str | Path, scope: Scope = Scope.OPERATOR, **options: Any
    ) -> asyncio.subprocess.Process:
        """Begin the command; its output comes through pipes unless the options say otherwise."""
        return await asyncio.create_subprocess_exec(
            BIN / "attestctl",
            *map(str, arguments),
            **{"env": await self.surroundings(scope), "stdout": PIPE, "stderr": PIPE} | options,
        )

    async def surroundings(self, scope: Scope) -> dict[str, str]:
        """Environment variables with which attestctl finds this verifier."""
        if scope not in self.tokens:
            self.tokens[scope] = await self.token(scope)
        # Those that run tests in parallel set the size of a terminal, which counts for more than the real one's.
        outside = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        return outside | {
            "TERM": "xterm",
            "ATTESTCTL_SERVER": self.secure_url,
            "ATTESTCTL_CA": str(self.service.tls.ca),
            "ATTESTCTL_TOKEN": self.tokens[scope],
        }

    def rows(self) -> dict[str, int]:
        """How many rows every table has: what was stored; not where the log has brought it by now, by itself."""
        path = self.service.settings.state_dir / "verifier.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            names = [
                row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")
            ]
            return {
                name: connection.execute(f'select count(*) from "{name}"').fetchone()[0]
                for name in names
                if not name.startswith("sqlite_") and name not in ("log_tile", "log_checkpoint", "log_head")
            }


@dataclass
class Guest:
    """A machine: its TPM, the log of its boot, and what it was given at enrolment."""

    harness: Harness
    tpm: SoftwareTpm
    log: bytes
    attester_id: str = ""
    keeps_ratchet: bool = True
    hints: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    """Content of the ratchet to what led to it: step, content before, nonce."""

    boot_id: str = field(default_factory=lambda: str(uuid4()))
    identity: dict[str, str] = field(default_factory=dict)
    carried: Any = None
    """The challenge that came with the last verdict, as an agent holds it that keeps running."""

    def __post_init__(self) -> None:
        self.identity = {
            "hostname": f"guest-{self.tpm.seed}",
            "smbios_uuid": f"uuid-{self.tpm.seed}",
        } | self.identity

    def copied(self, *, running: bool = False, **identity: str) -> Guest:
        """A clone of this machine: TPM state, disk and, if it is `running`, memory. It lives on by itself."""
        other = replace(self, tpm=self.tpm.clone(), hints=dict(self.hints), identity=self.identity | identity)
        if not running:
            other.reboot()
        return other

    @classmethod
    def booted(cls, harness: Harness, seed: int = 1, log: bytes | None = None, **options: Any) -> Guest:
        tpm = SoftwareTpm(seed, **options)
        log = boot_log() if log is None else log
        tpm.replay_log(log)
        return cls(harness, tpm, log)

    def reboot(self, log: bytes | None = None, **options: Any) -> None:
        self.tpm.reboot(**options)
        self.boot_id, self.carried = str(uuid4()), None
        self.log = self.log if log is None else log
        self.tpm.replay_log(self.log)

    def enrollment(self, token: str | None, **changes: Any) -> dict[str, Any]:
        body = {
            "ek_public": b64(self.tpm.ek_public),
            "ak_public": b64(self.tpm.ak_public),
            "ek_certificates": [b64(self.tpm.ek_certificate)],
            "identity": self.identity,
        }
        if token is not None:
            body["join_token"] = token
        return {key: value for key, value in (body | changes).items() if value is not None}

    def proof(self, reply: Any, **options: Any) -> bytes:
        """Open the credential in the TPM and answer as the wire asks."""
        secret = self.tpm.activate(
            unb64(reply["credential_blob"]), unb64(reply["encrypted_secret"]), **options
        )
        name = options["ak"].name if "ak" in options else self.tpm.ak_name
        return hmac.digest(
            secret, b"vtpm-attest activation v1" + reply["enrollment_id"].encode() + name, "sha256"
        )

    async def enroll(self, token: str | None = None) -> None:
        token = token or await self.harness.token(Scope.JOIN)
        begun = await self.harness.post("/v1/enrollments", self.enrollment(token))
        assert begun.status == 201, begun.content
        done = await self.activate(begun.json)
        assert done.status == 200, done.content
        self.attester_id = done.json["attester_id"]

    async def activate(self, reply: Any) -> Answer:
        path = f"/v1/enrollments/{reply['enrollment_id']}/activation"
        return await self.harness.post(path, {"proof": b64(self.proof(reply))})

    async def challenge(self) -> Any:
        answer = await self.harness.post("/v1/challenges", {"attester_id": self.attester_id})
        assert answer.status == 200, answer.content
        return answer.json

    def evidence(
        self,
        challenge: Any,
        *,
        over: bytes | None = None,
        selection: Any = None,
        quote: Any = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """The body of an attestation over this challenge; `over`: what is quoted instead of its nonce."""
        over = over or unb64(challenge["nonce"])
        selections = {part["bank"]: part["pcrs"] for part in challenge["selection"]}
        attest, signature = self.tpm.quote(over, selection or selections, **(quote or {}))
        values = self.tpm.pcrs("sha256")
        body = {
            "ratchet": self.ratchet(challenge, over),
            "attester_id": self.attester_id,
            "nonce": challenge["nonce"],
            "attest": b64(attest),
            "signature": b64(signature),
            "pcrs": [
                {"bank": "sha256", "values": {str(pcr): b64(values[pcr]) for pcr in selections["sha256"]}}
            ],
            "boot_log": {"content": b64(self.log)},
            "identity": self.identity,
            "boot_id": self.boot_id,
            "kernel_command_line": LINE,
        }
        return {key: value for key, value in (body | changes).items() if value is not None}

    def ratchet(self, challenge: Any, over: bytes) -> dict[str, Any] | None:
        """The ratchet's index, made at first use, moved on and certified over what is quoted, as the agent does."""
        number = challenge.get("ratchet_index")
        if number is None or not self.keeps_ratchet:
            return None
        if self.tpm.nv_index(number) is None:
            self.tpm.nv_define_extend(number, RATCHET_ATTRIBUTES)
            self.tpm.nv_extend(number, uuid4().bytes)
        index, handed = self.tpm.nv_index(number), challenge.get("ratchet")
        if handed is not None and unb64(handed["base"]) == index.value:
            self.tpm.nv_extend(number, unb64(handed["value"]))
            hint = {"step": handed["step"], "base": handed["base"], "nonce": challenge["nonce"]}
            self.hints[index.value] = hint
        attest, signature = self.tpm.nv_certify(over, number)
        return {"attest": b64(attest), "signature": b64(signature)} | self.hints.get(index.value, {})

    async def attest(self, challenge: Any = None, **changes: Any) -> Answer:
        challenge = challenge or await self.challenge()
        return await self.harness.post("/v1/attestations", self.evidence(challenge, **changes))

    async def speak(self, **changes: Any) -> Any:
        """Attest as an agent that keeps running does: over the challenge it holds, over another if that is void."""
        held, self.carried = self.carried, None
        answer = await self.attest(held, **changes)
        if answer.status != 200 and held is not None:
            assert answer.code in {"nonce-reused", "evidence-overtaken", "nonce-expired"}, answer.content
            answer = await self.attest(**changes)
        assert answer.status == 200, answer.content
        self.carried = answer.json["challenge"]
        return answer.json["verdict"]


def write_anchors(directory: Path, ca: SoftwareCa | None = None) -> Path:
    """A trust folder with the simulator's CA."""
    directory.mkdir(exist_ok=True)
    for number, der in enumerate((ca or SoftwareCa()).anchors_der):
        (directory / f"anchor{number}.der").write_bytes(der)
    return directory


def settings_for(directory: Path, toml: str = "", **changes: str) -> Settings:
    """Settings as an operator would write them: a file, and environment variables without their prefix over it."""
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "secure-boot.yaml").write_text(POLICY)
    values = {
        "STATE_DIR": str(directory / "state"),
        "TRUST_ANCHORS": str(write_anchors(directory / "anchors")),
        "POLICIES_DIR": str(policies),
        "DEFAULT_POLICY": "secure-boot",
        "PUBLIC_URL": "https://verifier.test",
        "METRICS_CACHE": "0s",
    } | changes
    file = directory / "verifier.toml"
    file.write_text(toml)
    return load_settings(file, {f"VTPM_ATTEST_VERIFIER_{name}": value for name, value in values.items()})


@asynccontextmanager
async def running(
    settings: Settings,
    clock: FakeClock | None = None,
    workers: Workers | None = None,
    secure_port: int = 0,
    references: RuntimeReferences | None = None,
) -> AsyncIterator[Harness]:
    """The service on free ports of the loopback: without TLS for the tests' own calls, with it for attestctl."""
    clock = clock or FakeClock()
    if not settings.database:
        migrated(settings.state_dir / "verifier.db")
    async with (
        open_service(settings, clock=clock, workers=workers, references=references) as service,
        following(service),
    ):
        await register_policies(service)
        runner = Runner(service.app(), auto_decompress=False, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ((secure_socket,),) = listen("127.0.0.1", secure_port, 1)
        tls = service.tls.context(client_anchors(settings))
        await Acceptor(runner, secure_socket, runner.app[DOOR], tls, balancers_of(settings)).start()
        ((_, port),) = runner.addresses
        url, secure = f"http://127.0.0.1:{port}", address_of(secure_socket)
        try:
            async with aiohttp.ClientSession() as session:
                yield Harness(service, clock, url, session, secure, runner=runner)
        finally:
            await runner.cleanup()
