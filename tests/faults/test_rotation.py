"""Keys that are rotated under a running verifier: by a command that dies or fails at every one of its writes, and half written."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from tests.eventually import eventually
from tests.faults.ledger import query
from tests.faults.site import BIN, Site, site
from tests.faults.striking import Strike, Striker
from tests.faults.test_half_written_keys import half
from tests.harness import FakeClock, Guest, Harness
from verifier.ports import Scope
from verifier.transparency import checkpoint
from verifier.transparency.notes import VerifierKey

MOST = 200


@dataclass
class Keyed(Harness):
    """A client of one real verifier, and the operator of its keys."""

    site: Site = field(kw_only=True)
    striker: Striker = field(kw_only=True)

    async def token(self, scope: Scope, **_: Any) -> str:
        return await self.site.token(scope.value)

    async def command(self, *arguments: str, struck: bool = False) -> tuple[int, Any]:
        """`attest-verifier keys …`; with `struck` as the striker says."""
        more = self.striker.environment if struck else {}
        done = await asyncio.create_subprocess_exec(
            BIN, "keys", *arguments, "--config", self.site.replicas[0].config, "--json",
            stdout=PIPE, stderr=DEVNULL, env={**os.environ, **more},
        )  # fmt: skip
        out, _ = await done.communicate()
        assert done.returncode is not None
        return done.returncode, json.loads(out) if done.returncode == 0 else None

    async def published(self) -> dict[str, Any]:
        keys = (await self.get("/.well-known/jwks.json")).json["keys"]
        return {key["kid"]: jwt.PyJWK(key) for key in keys}

    async def signs(self, guest: Guest) -> str:
        """Who signs the EAR of the next attestation: a key that is published."""
        answer = await guest.attest(want_ear=True)
        assert answer.json["verdict"]["status"] == "affirming"
        token = answer.json["ear"]
        kid = str(jwt.get_unverified_header(token)["kid"])
        jwt.decode(token, (await self.published())[kid], algorithms=["ES256"])
        return kid

    async def signs_log(self) -> str:
        """The newest key of the log, and that the newest checkpoint is signed by all it says it is."""
        code, keys = await self.command("log")
        assert code == 0
        trusted = [VerifierKey.parse(one["key"]) for one in keys]

        async def signed() -> bool:
            note = (await self.get("/v1/log/checkpoint", Scope.AUDITOR)).content
            try:
                opened = checkpoint.opened(note, trusted)
            except ValueError:
                return False
            return trusted[0] in opened.signed_by

        await eventually(signed)
        return str(keys[0]["key"])

    def recorded(self, key: str) -> bool:
        """Whether the audit log names it."""
        named = query(self.site, "SELECT subject FROM audit WHERE action = 'key.rotated'")
        return any(subject == key for (subject,) in named)


@asynccontextmanager
async def keyed(directory: Path) -> AsyncIterator[Keyed]:
    striker = Striker(directory)
    async with site(directory) as made:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=made.tls())) as session:
            yield Keyed(
                None, FakeClock(), made.replicas[0].url, session,  # type: ignore[arg-type]
                site=made, striker=striker,
            )  # fmt: skip
        assert "Traceback" not in made.log


async def signer(verifier: Keyed, command: str, guest: Guest) -> str:
    """The subject by which the audit log names the key that signs now."""
    return f"ear:{await verifier.signs(guest)}" if command == "rotate" else await verifier.signs_log()


@pytest.mark.slow
@pytest.mark.parametrize("what", [Strike.KILL, Strike.FULL, Strike.BROKEN], ids=lambda one: one.name.lower())
@pytest.mark.parametrize("command", ["rotate", "rotate-log"])
async def test_a_rotation_that_is_struck_at_every_write(tmp_path, command, what):
    """Something that is published signs, and nothing that the audit log does not name; to run it again works."""
    async with keyed(tmp_path) as verifier:
        guest = await verifier.guest(901)
        now = await signer(verifier, command, guest)
        assert not verifier.recorded(now), "the first key was not rotated to"
        for after in range(MOST):
            before = now
            verifier.striker.arm(what, after)
            code, made = await verifier.command(command, struck=True)
            reached = verifier.striker.disarm() > after
            if code == 0:
                key = f"ear:{made['kid']}" if command == "rotate" else made["key"]

                async def taken_up(expected=key) -> bool:
                    return await signer(verifier, command, guest) == expected

                await eventually(taken_up)
            now = await signer(verifier, command, guest)
            assert now == before or verifier.recorded(now), (
                f"{what.name} at {after}: {now} was never recorded"
            )
            if not reached:
                assert code == 0
                break
        assert after > 5, "a rotation writes a key, an index and the database"
        (replica,) = verifier.site.replicas
        replica.kill()
        await replica.ended()
        await replica.start()
        assert await signer(verifier, command, guest) == now


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["index", "key"])
async def test_keys_that_are_damaged_under_a_running_service(tmp_path, spoilt):
    """What was read before signs on; the file is named, and what is whole again counts."""
    async with keyed(tmp_path) as verifier:
        guest = await verifier.guest(902)
        first, log_key = await verifier.signs(guest), await verifier.signs_log()
        for folder, command in (("keys", "rotate"), ("log", "rotate-log")):
            code, _ = await verifier.command(command)
            assert code == 0
            newest = json.loads((verifier.site.state / folder / "keys.json").read_text())[0]
            name = f"ear-{newest['kid']}.pem" if folder == "keys" else _log_file(newest["key"])
            file = verifier.site.state / folder / ("keys.json" if spoilt == "index" else name)
            whole = file.read_bytes()
            half(file)
            os.utime(verifier.site.state / folder / "keys.json")
            if folder == "keys":
                assert await verifier.signs(guest) == first
            assert (await guest.attest(want_ear=True)).json["verdict"]["status"] == "affirming"
            await eventually(lambda name=file.name: name in verifier.site.log)
            file.write_bytes(whole)
        assert await verifier.signs(guest) != first
        assert await verifier.signs_log() != log_key


def _log_file(key: str) -> str:
    return f"log-{VerifierKey.parse(key).key_id.hex()}.pem"
