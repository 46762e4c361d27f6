"""Guests of the bench of long IMA lists, in a process of their own: `python -m tests.bench.ima_guests URL TOKEN`.

Says `ready` when all are enrolled; then a line on stdin names what to do: `others` lets 50 guests attest for some
seconds, `list` does too while one guest sends its first list. Each is answered with the number of attestations.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import aiohttp

from agent.wire.codec import MSGPACK, encode
from agent.wire.messages import AttestationRequest, GuestIdentity, ImaPart, LogPart, PcrBank
from tests.harness import Guest, Harness, unb64
from tests.ima_guest import MeasuringGuest

OTHERS: Final = 50
ENTRIES: Final = 100_000
SECONDS: Final = 4.0
_HASTE: Final = 0.02
"""Pause of each guest between attestations."""


LIBRARY: Final = "/usr/lib/x86_64-linux-gnu/libexample-%d.so.6"
PROGRAM: Final = "/usr/bin/more-%d"
PROGRAMS: Final = 1_000


def every_path() -> Iterator[str]:
    """What the guests run."""
    yield from (LIBRARY % number for number in range(ENTRIES))
    yield from (PROGRAM % number for number in range(PROGRAMS))


class Client(Harness):
    """The calls of a guest, without a verifier in this process."""

    def __init__(self, url: str, session: aiohttp.ClientSession, join: str) -> None:
        self.url, self.session, self.join = url, session, join

    async def token(self, *_: Any, **__: Any) -> str:
        return self.join


def message(guest: MeasuringGuest, challenge: Any) -> bytes:
    """The body that the agent sends."""
    body = guest.evidence(challenge)
    part = body["ima_log"]
    return encode(
        AttestationRequest(
            attester_id=body["attester_id"],
            nonce=unb64(body["nonce"]),
            attest=unb64(body["attest"]),
            signature=unb64(body["signature"]),
            pcrs=[
                PcrBank(
                    bank=bank["bank"], values={pcr: unb64(value) for pcr, value in bank["values"].items()}
                )
                for bank in body["pcrs"]
            ],
            boot_log=LogPart(content=unb64(body["boot_log"]["content"])),
            ima_log=ImaPart(content=memoryview(unb64(part["content"])), offset=part.get("offset", 0)),
            identity=GuestIdentity(**body["identity"]),
            boot_id=body["boot_id"],
            kernel_command_line=body["kernel_command_line"],
        ),
        MSGPACK,
    )


async def attest(guest: MeasuringGuest) -> None:
    """One attestation over a fresh challenge; it has to be affirming."""
    challenge = await guest.guest.challenge()
    await send(guest, message(guest, challenge))


async def send(guest: MeasuringGuest, body: bytes) -> None:
    answer = await guest.guest.harness.call(
        "POST", "/v1/attestations", data=body, headers={"Content-Type": MSGPACK}
    )
    if answer.status != 200 or answer.json["verdict"]["status"] != "affirming":
        raise AssertionError(answer.content[:2000])


async def keep_on(guest: MeasuringGuest, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        guest.run(PROGRAM % (count % PROGRAMS))
        await attest(guest)
        count += 1
        await asyncio.sleep(_HASTE)
    return count


async def main(url: str, join: str) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(url, session, join)
        guests = [await made(client, number) for number in range(OTHERS)]
        for guest in guests:
            await attest(guest)
        long = await made(client, OTHERS)
        for number in range(ENTRIES):
            long.run(LIBRARY % number)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        say("ready")
        while wanted := (await lines.readline()).decode().strip():
            until = time.monotonic() + SECONDS
            body = message(long, await long.guest.challenge())
            work = [keep_on(guest, until) for guest in guests]
            if wanted == "list":
                work.append(one(long, body))
            say(str(sum(await asyncio.gather(*work))))


async def one(guest: MeasuringGuest, body: bytes) -> int:
    await asyncio.sleep(SECONDS / 4)
    await send(guest, body)
    return 1


async def made(client: Client, number: int) -> MeasuringGuest:
    guest = Guest.booted(client, number)
    guest.keeps_ratchet = False
    await guest.enroll()
    return MeasuringGuest.on(guest)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
