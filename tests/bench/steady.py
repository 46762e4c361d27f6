"""What a steady attestation costs between its bytes and those of the reply: decoded, judged, recorded, answered; no HTTP.

Held against the two signatures that it consists of in any case (quote and ratchet). Counted is the CPU time of the event
loop's thread: the store's threads have rows of their own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from agent.wire import messages as m
from agent.wire.codec import MSGPACK, encode
from tests.bench.fleet import host
from tests.bench.fleet.floor import signature_us
from tests.bench.fleet.guest import Guest
from tests.bench.measure import Result
from verifier.logs import configure_logs
from verifier.main import open_service, register_policies
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.service.services import Services
from verifier.serving.memory import settle
from verifier.settings import load_settings
from verifier.web import wire_codec as wire

_GUESTS: Final = 32
_ROUNDS: Final = 40
_RATIO: Final = 3.0


class _Inside:
    """Stands where a guest has its connection, and calls the use cases."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, encode(await self._answer(path, body), MSGPACK)

    async def _answer(self, path: str, body: bytes) -> object:
        services = self._services
        if path == "/v1/attestations":
            evidence = wire.decode_body(body, wire.AttestationRequest, MSGPACK)
            command = wire.attest_command(evidence, "192.0.2.1")
            return wire.attestation_reply(await services.attestations.attest(command), None)
        if path == "/v1/challenges":
            asked = wire.decode_body(body, wire.ChallengeRequest, MSGPACK)
            return wire.challenge_reply(await services.challenges.issue(asked.attester_id))
        if path == "/v1/enrollments":
            machine = wire.decode_body(body, wire.EnrollmentRequest, MSGPACK)
            return wire.enrollment_reply(await services.enrollment.begin(wire.enrollment_command(machine)))
        proof = wire.decode_body(body, wire.ActivationRequest, MSGPACK).proof
        return wire.activation_reply(await services.enrollment.activate(path.split("/")[3], proof), None)


async def _measured(folder: Path) -> float:
    async with open_service(load_settings(host._configuration(folder, None, ""), {})) as service:
        await register_policies(service)
        services = service.services
        _, token = await services.tokens.create(
            tenant=DEFAULT_TENANT,
            scopes=frozenset({Scope.JOIN}),
            label="",
            lifetime=None,
            uses=None,
            actor="bench",
        )
        inside = _Inside(services)
        guests = [Guest(seed, inside) for seed in range(_GUESTS)]
        for guest in guests:
            await guest.enroll(token)
            for _ in range(3):  # until the ratchet is known and the log is held
                await guest.attest()
        settle()
        return min([await _round(inside, guests) for _ in range(_ROUNDS)])


async def _round(inside: _Inside, guests: list[Guest]) -> float:
    """CPU seconds of this thread for each attestation, when all guests attest at once."""
    bodies = [encode(guest.evidence(guest.challenge), MSGPACK) for guest in guests if guest.challenge]
    started = time.thread_time()
    replies = await asyncio.gather(*(inside.post("/v1/attestations", body) for body in bodies))
    spent = time.thread_time() - started
    for guest, (_, _, content) in zip(guests, replies, strict=True):
        reply = wire.decode_body(content, m.AttestationReply, MSGPACK)
        assert reply.verdict.status == "affirming"
        guest.challenge = reply.challenge
    return spent / len(guests)


def steady() -> list[Result]:
    configure_logs("json", "warning", sys.stderr)
    signatures = 2e-6 * signature_us()
    with tempfile.TemporaryDirectory(prefix="vtpm-steady-") as folder:
        cost = asyncio.run(_measured(Path(folder)))
    return [
        Result(
            "a steady attestation on the event loop, without HTTP",
            cost * 1e6,
            "us",
            f"two P-256 signatures {1e6 * signatures:.1f} us",
            cost / signatures,
            f"<= {_RATIO:g}x",
            cost / signatures <= _RATIO,
        )
    ]


BENCHES: Final = {"steady": steady}
