"""The process that `tests.bench.web` measures: a verifier with a fleet, and a bare application beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from aiohttp import web
from msgspec import structs

from tests.contract.records import enrol, recording
from tests.harness import settings_for
from verifier import background
from verifier.logs import configure_logs
from verifier.main import open_service
from verifier.ports import DEFAULT_TENANT, Recording, Scope


async def _bare(_: web.Request) -> web.Response:
    return web.Response(status=304, headers={"ETag": '"x"'})


async def _listen(app: web.Application, context) -> int:
    runner = web.AppRunner(app, auto_decompress=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    return runner.addresses[0][1]


def _quiet(item: Recording) -> Recording:
    """Without findings: those of the store's own tests are not all that the wire has."""
    return structs.replace(item, verdict=structs.replace(item.verdict, findings=()))


async def serve(folder: Path, attesters: int) -> None:
    async with open_service(settings_for(folder, LIMITS_CALLS_PER_IDENTITY="1000000")) as service:
        now = datetime.now(UTC)
        for number in range(attesters):
            await enrol(service.store, f"att-{number}", now=now, expires_at=now + timedelta(hours=1))
        await asyncio.gather(
            *(service.store.record(_quiet(recording(f"att-{number}", at=now))) for number in range(attesters))
        )
        _, token = await service.services.tokens.create(
            tenant=DEFAULT_TENANT,
            scopes=frozenset({Scope.DASHBOARD}),
            label="",
            lifetime=None,
            uses=None,
            actor="bench",
        )
        context = service.tls.context()
        port = await _listen(service.app(), context)
        bare = web.Application()
        bare.router.add_get("/", _bare)
        tasks = background.start(service.services, lambda: None)
        ready = {
            "port": port,
            "bare": await _listen(bare, context),
            "token": token,
            "attester": "att-0",
            "ca": str(service.tls.ca),
            "tags": await _tags(service, token, port),
        }
        print(json.dumps(ready), flush=True)
        await asyncio.gather(*tasks)


async def _tags(service, token: str, port: int) -> dict[str, str]:
    import ssl

    import aiohttp

    context = ssl.create_default_context(cafile=str(service.tls.ca))
    paths = {"verdict": "/v1/attesters/att-0/verdict", "status": "/v1/status"}
    headers = {"Authorization": f"Bearer {token}"}
    tags = {}
    async with aiohttp.ClientSession(headers=headers) as session:
        for name, path in paths.items():
            async with session.get(f"https://localhost:{port}{path}", ssl=context) as reply:
                tags[name] = reply.headers["ETag"]
    return tags


if __name__ == "__main__":
    configure_logs("json", "error", sys.stderr)
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
