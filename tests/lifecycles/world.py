"""The verifier's side: the real service on SQLite, and a wire that loses, doubles and delays what it carries."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.errors import RefusedError, UnreachableError
from agent.wire.codec import MSGPACK, decode, encode
from agent.wire.messages import (
    ActivationRequest,
    AttestationRequest,
    ChallengeRequest,
    EnrollmentRequest,
)
from tests.harness import FakeClock, boot_log, settings_for
from tests.lifecycles.machine import Machine
from verifier.errors import EvidenceError, NotFoundError, StoreUnavailable, VerifierFault
from verifier.main import open_service, register_policies
from verifier.ports import DEFAULT_TENANT, Scope
from verifier.web import wire_codec
from verifier.web.problems import problem_of

THREADS = 8


class World:
    """One verifier and all machines that speak to it."""

    def __init__(self, service: Any, clock: FakeClock, folder: Path, join_token: str) -> None:
        self.service, self.clock, self.folder, self.join_token = service, clock, folder, join_token
        self.loop = asyncio.get_running_loop()
        self.seen: Counter[str] = Counter()
        self.log = boot_log()
        self._folders = itertools.count()

    def fresh_folder(self) -> Path:
        return self.folder / f"m{next(self._folders)}"

    def machine(self, seed: str, rng: random.Random) -> Machine:
        return Machine(self, seed, rng, self.log, "root=/dev/vda2 quiet", self.fresh_folder())

    def transport(self, machine: Machine) -> Wire:
        return Wire(self, machine)

    def call(self, coroutine: Any) -> Any:
        """From a machine's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    async def handle(self, path: str, body: bytes) -> bytes:
        """As the routes do it."""
        services = self.service.services
        match path.strip("/").split("/"):
            case ["v1", "enrollments"]:
                message = decode(body, EnrollmentRequest, MSGPACK)
                command = wire_codec.enrollment_command(message, "192.0.2.1")
                reply = wire_codec.enrollment_reply(await services.enrollment.begin(command))
            case ["v1", "enrollments", number, "activation"]:
                message = decode(body, ActivationRequest, MSGPACK)
                reply = wire_codec.activation_reply(
                    await services.enrollment.activate(number, message.proof), None
                )
            case ["v1", "challenges"]:
                message = decode(body, ChallengeRequest, MSGPACK)
                reply = wire_codec.challenge_reply(await services.challenges.issue(message.attester_id))
            case _:
                message = decode(body, AttestationRequest, MSGPACK)
                command = wire_codec.attest_command(message, "192.0.2.1")
                reply = wire_codec.attestation_reply(await services.attestations.attest(command), None)
        return encode(reply, MSGPACK)

    async def state(self, attester_id: str) -> Any:
        return await self.service.store.attester_state(attester_id)


class Wire:
    """The agent's transport. What it does to the next request is in `machine.plan`."""

    server = "https://verifier.test"

    def __init__(self, world: World, machine: Machine) -> None:
        self._world, self._machine = world, machine

    def post(self, path: str, message: Any, kind: Any, media_type: str = MSGPACK) -> Any:
        del media_type
        plan = self._machine.__dict__.pop("plan", None) if path == "/v1/attestations" else None
        body = encode(message, MSGPACK)
        if plan == "lost request":
            raise _unreachable()
        reply = self._machine.faults.step(path, lambda: self._exchange(path, body, plan))
        if plan == "lost reply":
            raise _unreachable()
        return decode(reply, kind, MSGPACK)

    def _exchange(self, path: str, body: bytes, plan: str | None) -> bytes:
        world = self._world
        try:
            if plan == "doubled request":
                return world.call(_twice(world, path, body))
            return world.call(world.handle(path, body))
        except (EvidenceError, NotFoundError, StoreUnavailable, VerifierFault) as error:
            document = problem_of(error, "request").document
            if document.status >= 500:
                raise AssertionError(f"a fault of the verifier: {error!r}") from error
            world.seen[f"refused: {document.code}"] += 1
            raise RefusedError(document) from error

    def close(self) -> None: ...


async def _twice(world: World, path: str, body: bytes) -> bytes:
    """A proxy sent the request again: one of both is judged."""
    answers = await asyncio.gather(world.handle(path, body), world.handle(path, body), return_exceptions=True)
    good = [answer for answer in answers if isinstance(answer, bytes)]
    assert len(good) <= 1, "evidence was judged twice"
    if good:
        return good[0]
    raise next(answer for answer in answers if isinstance(answer, BaseException))


def _unreachable() -> UnreachableError:
    return UnreachableError("the network is down", "wait")


@asynccontextmanager
async def world(folder: Path):
    """A verifier with an empty database."""
    clock = FakeClock()
    async with open_service(settings_for(folder), clock=clock) as service:
        await register_policies(service)
        _, token = await service.services.tokens.create(
            scopes=frozenset({Scope.JOIN}),
            label="",
            actor="test",
            uses=None,
            lifetime=None,
            tenant=DEFAULT_TENANT,
        )
        machines = folder / "machines"
        machines.mkdir()
        yield World(service, clock, machines, token)
