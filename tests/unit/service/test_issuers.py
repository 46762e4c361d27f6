"""Which issuers are asked for, how often, and for how long an answer counts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests import pki
from tests.harness import FakeClock
from tests.simulator import SoftwareTpm
from tests.unit.crypto.test_aia import at, leaf
from verifier.crypto.aia import FetchRules
from verifier.crypto.anchors import TrustAnchors
from verifier.ports_trust import AnchorPurpose
from verifier.service.anchor_sets import TrustedAnchors
from verifier.service.endorsement import Candidate
from verifier.service.issuers import MAX_FETCHES, IssuerFinder
from verifier.tcg.public import parse_public
from verifier.trust import issuer_finder

TPM = SoftwareTpm(1)
EK, AK = parse_public(TPM.ek_public), parse_public(TPM.ak_public)
ROOT = pki.Ca.root("Issuers Root")
UPPER = ROOT.below("Issuers Upper")
LOWER = UPPER.below("Issuers Lower", extra=(at("http://pki.example/upper"),))
TRUSTED = TrustedAnchors({AnchorPurpose.EK: TrustAnchors.from_der([ROOT.der])})
WEB = {"http://pki.example/lower": LOWER.der, "http://pki.example/upper": UPPER.der}


class Web:
    """An `IssuerSource` over a table, that counts."""

    def __init__(self, answers: dict[str, bytes], *, slow: bool = False) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        if not slow:
            self.gate.set()

    async def fetch(self, url: str, timeout: timedelta) -> bytes | None:
        self.asked.append(url)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self.gate.wait()
        except TimeoutError:
            return None
        return self.answers.get(url)


def candidate(*certificates: bytes, issuers: tuple[bytes, ...] = ()) -> Candidate:
    return Candidate(ek=EK, ak=AK, ek_certificates=certificates, issuers=issuers)


def finder(source: Web, *hosts: str, clock: FakeClock | None = None, seconds: float = 20) -> IssuerFinder:
    rules = FetchRules(frozenset(hosts or {"pki.example"}))
    return IssuerFinder(source, rules, clock or FakeClock(), timeout=timedelta(seconds=seconds))


MINE = leaf(LOWER, at("http://pki.example/lower"))


async def test_missing_issuers_are_asked_for_one_after_the_other_up_to_an_anchor():
    web = Web(WEB)
    done = await finder(web).complete(candidate(MINE), TRUSTED)
    assert done.issuers == (LOWER.der, UPPER.der)
    assert web.asked == ["http://pki.example/lower", "http://pki.example/upper"]


async def test_what_the_machine_brings_is_not_asked_for():
    web = Web(WEB)
    await finder(web).complete(candidate(MINE, issuers=(LOWER.der, UPPER.der)), TRUSTED)
    assert web.asked == []


async def test_a_host_that_is_not_listed_is_never_asked():
    web = Web(WEB)
    done = await finder(web, "other.example").complete(candidate(MINE), TRUSTED)
    assert (web.asked, done.issuers) == ([], ())


async def test_without_an_anchor_nobody_is_asked():
    web = Web(WEB)
    await finder(web).complete(candidate(MINE), TrustedAnchors({}))
    assert web.asked == []


async def test_an_answer_is_kept_for_a_day_and_a_failure_for_a_minute():
    web, clock = Web(dict(WEB)), FakeClock()
    held = finder(web, clock=clock)
    for _ in range(3):
        await held.complete(candidate(MINE), TRUSTED)
    assert len(web.asked) == 2
    clock.advance(days=1, seconds=1)
    web.answers.clear()
    for _ in range(2):
        assert (await held.complete(candidate(MINE), TRUSTED)).issuers == ()
    assert len(web.asked) == 3
    clock.advance(seconds=61)
    await held.complete(candidate(MINE), TRUSTED)
    assert len(web.asked) == 4


async def test_a_rush_of_machines_asks_once():
    web = Web(WEB, slow=True)
    held = finder(web)
    rush = [asyncio.create_task(held.complete(candidate(MINE), TRUSTED)) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert web.asked == ["http://pki.example/lower"]
    web.gate.set()
    assert all(done.issuers == (LOWER.der, UPPER.der) for done in await asyncio.gather(*rush))
    assert len(web.asked) == 2


async def test_one_that_gives_up_takes_the_answer_from_nobody():
    web = Web(WEB, slow=True)
    held = finder(web)
    gone, stays = (asyncio.create_task(held.complete(candidate(MINE), TRUSTED)) for _ in range(2))
    await asyncio.sleep(0.05)
    gone.cancel()
    web.gate.set()
    assert (await stays).issuers == (LOWER.der, UPPER.der)


async def test_a_slow_source_costs_an_enrolment_no_more_than_the_time_allowed():
    done = await finder(Web(WEB, slow=True), seconds=0.05).complete(candidate(MINE), TRUSTED)
    assert done.issuers == ()


async def test_a_chain_without_end_is_not_followed():
    tower, answers = ROOT.below("Issuers 0", seed="other root"), {}
    lowest = tower
    for level in range(1, 10):
        answers[f"http://pki.example/{level - 1}"] = lowest.der
        lowest = lowest.below(f"Issuers {level}", extra=(at(f"http://pki.example/{level - 1}"),))
    answers["http://pki.example/9"] = lowest.der
    web = Web(answers)
    await finder(web).complete(candidate(leaf(lowest, at("http://pki.example/9"))), TRUSTED)
    assert len(web.asked) == MAX_FETCHES


@pytest.mark.parametrize("hosts", [(), ("pki.example",)])
def test_it_is_off_unless_a_host_is_listed(hosts):
    made = issuer_finder(hosts, private=False, timeout=timedelta(seconds=1), clock=FakeClock())
    assert (made is None) is (not hosts)
