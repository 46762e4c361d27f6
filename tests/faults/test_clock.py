"""The clock of a running verifier jumps, ahead and back, in the middle of a fleet's attestations (libfaketime)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.wire import messages as m
from agent.wire.codec import MSGPACK, decode, encode
from tests.faults.crowd import Crowd, Member
from tests.faults.ledger import check
from tests.faults.site import site

LIBRARY = "faketime/libfaketimeMT.so.1"
HOURS = 3600
DAYS = 24 * HOURS
LATE = {"nonce-expired", "nonce-unknown"}
"""Said of a challenge of another time."""


class Clock:
    """The time of day of every process with this environment. What counts how long something takes goes on as ever."""

    def __init__(self, directory: Path) -> None:
        found = sorted(Path("/usr/lib").glob(f"*/{LIBRARY}"))
        if not found:
            pytest.skip("JUMPING CLOCK NOT TESTED: no libfaketime (Debian package `faketime`)")
        self._library, self._file = found[0], directory / "clock"
        self.turn(0)

    def turn(self, seconds: int) -> None:
        """So much ahead of the real one from now on; negative: behind it."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}")
        written.replace(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@pytest.fixture
def cluster(request):
    """None: SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("durable_cluster")


async def spent(crowd: Crowd, member: Member) -> m.AttestationRequest:
    """Evidence that was accepted."""
    post = member.connections[0].post
    status, _, body = await post(
        "/v1/challenges", encode(m.ChallengeRequest(attester_id=member.guest.attester_id), MSGPACK)
    )
    assert status == 200, body
    challenge = decode(body, m.Challenge, MSGPACK)
    evidence = member.guest.evidence(challenge)
    status, _, body = await post("/v1/attestations", encode(evidence, MSGPACK))
    assert status == 200, body
    crowd.note(member, challenge.nonce, decode(body, m.AttestationReply, MSGPACK))
    return evidence


async def refuse(member: Member, evidence: m.AttestationRequest) -> None:
    """Nothing makes a nonce good again."""
    status, _, body = await member.connections[0].post("/v1/attestations", encode(evidence, MSGPACK))
    assert (status, decode(body, m.Problem).code in {"nonce-reused", *LATE}) == (409, True), body


JUMPS = (3 * HOURS, 0, -3 * HOURS, 0, 400 * DAYS, 0, -400 * DAYS, 0)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["sqlite", "postgresql"], indirect=True)
async def test_the_clock_jumps(tmp_path, cluster):
    clock = Clock(tmp_path)
    async with site(tmp_path, workers=2, cluster=cluster, environment=clock.environment) as verifier:
        crowd = Crowd(verifier)
        crowd.tolerated |= LATE
        await crowd.arrive(honest=4, hostile=1)
        replayer = crowd.members.pop()
        old = [await spent(crowd, replayer)]
        async with crowd.attesting():
            await crowd.several_rounds(1)
            for jump in JUMPS:
                clock.turn(jump)
                for evidence in old:
                    await refuse(replayer, evidence)
                old.append(await spent(crowd, replayer))
                await crowd.several_rounds(2)
        for evidence in old:
            await refuse(replayer, evidence)
        crowd.members.append(replayer)
        check(crowd)
        assert crowd.refusals["nonce-expired"], "nobody noticed"
