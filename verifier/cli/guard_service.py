"""What `attestctl guard` runs."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

import msgspec
from aiohttp import web

from verifier.cli import output
from verifier.cli.guard import Asking, Callers, Demands
from verifier.cli.remote import Remote
from verifier.client.callers import UNIX, ForwardedCertificate, Naming, PresentedEar, Proxies, Source
from verifier.client.client import AttestationClient
from verifier.client.gate import Gate, Verdicts
from verifier.client.guard import guard_app
from verifier.client.requirement import Denied, Requirement
from verifier.client.results import Tier
from verifier.durations import Duration

_ASK_TIMEOUT: Final = 5.0


def run(listen: str, remote: Remote, callers: Callers, demands: Demands, asking: Asking) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        ValueError, OSError: what was told cannot be done.
    """
    client = AttestationClient(
        remote.server, remote.token, ca=remote.ca_file, issuer=asking.issuer, timeout=_ASK_TIMEOUT
    )
    gate = Gate(
        client,
        _requirement(demands),
        _sources(callers, client),
        live=asking.live,
        verdicts=Verdicts(
            client, fresh_for=Duration.parse(asking.fresh_for), outlive=Duration.parse(asking.outlive)
        ),
    )
    return asyncio.run(_serve(listen, client, gate))


def _sources(callers: Callers, client: AttestationClient) -> list[Source]:
    found: list[Source] = []
    if callers.audience is not None:
        found.append(PresentedEar(client, callers.audience, bearer=callers.bearer))
    if callers.certificates:
        found.append(ForwardedCertificate(Proxies(callers.proxy), Naming(issuer=client.issuer)))
    if not found:
        raise ValueError("nobody could be let in: pass --audience NAME, --certificates, or both")
    return found


def _requirement(demands: Demands) -> Requirement:
    max_age = None if demands.max_age is None else Duration.parse(demands.max_age)
    return Requirement(min_tier=Tier(demands.min_tier), policies=frozenset(demands.policy), max_age=max_age)


async def _serve(listen: str, client: AttestationClient, gate: Gate) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(guard_app(gate, _tell), access_log=None, shutdown_timeout=2.0)
    async with client:
        await runner.setup()
        try:
            await _site(runner, listen).start()
            output.err.print(f"deciding on {listen} by what {client.issuer} says", markup=False)
            await stop.wait()
        except OSError as error:
            output.err.print(f"error: cannot listen on {listen}: {error}", markup=False)
            return output.EXIT_UNAVAILABLE
        finally:
            await runner.cleanup()
    return 0


def _site(runner: web.AppRunner, listen: str) -> web.BaseSite:
    kind, _, path = listen.partition(":")
    if kind == UNIX and path:
        return web.UnixSite(runner, path)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise OSError("not HOST:PORT or unix:PATH")
    return web.TCPSite(runner, host.strip("[]"), int(port))


def _tell(denied: Denied) -> None:
    """One line of JSON per denial on stderr; never a token."""
    line = {"denied": denied.refusal, "cause": denied.cause, "attester": denied.attester_id}
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
    sys.stderr.flush()
