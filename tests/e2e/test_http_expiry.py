"""What ends is told in time: as metrics all along, and once per threshold in the audit log, on whichever replica."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from tests import pki
from tests.harness import FakeClock, Harness, running, settings_for
from verifier.ports import DEFAULT_TENANT, Scope

DAY = 86_400
SERIES = re.compile(r"^(vtpm_attest_expiry_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "nothing").mkdir()
    return settings_for(tmp_path, TRUST_ANCHORS=str(tmp_path / "nothing"))


def lab(clock: FakeClock, **left: float) -> pki.Ca:
    return pki.Ca.root("Lab", not_after=pki.time(clock.now() + timedelta(**left)))


async def put(verifier: Harness, data: bytes, query: str = "set=lab") -> None:
    answer = await verifier.call(
        "POST",
        f"/v1/trust-anchors?{query}",
        data=data,
        headers={"Content-Type": "application/octet-stream"},
        scope=Scope.OPERATOR,
    )
    assert answer.status == 200, answer.content


async def tell(verifier: Harness) -> list[tuple[str, int]]:
    """What is told now: whose end, within how many days."""
    told = await verifier.service.services.expiry.tell(DEFAULT_TENANT)
    return [(one.ending.subject, one.threshold_days) for one in told]


async def metrics(verifier: Harness) -> dict[tuple[str, ...], float]:
    text = (await verifier.get("/metrics")).content.decode()
    found = {}
    for name, labels, value in SERIES.findall(text):
        shown = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        order = ("kind", "holder", "subject", "within_days")
        found[(name, *(shown[key] for key in order if key in shown))] = float(value)
    return found


async def audit(verifier: Harness) -> list[tuple[str, object]]:
    entries = (await verifier.get("/v1/audit?subject=lab")).json["entries"]
    return [(one["action"], one["detail"].get("within_days")) for one in reversed(entries)]


async def test_an_anchor_is_announced_at_90_30_and_7_days_and_when_it_is_over(settings):
    clock = FakeClock()
    async with running(settings, clock) as verifier:
        await put(verifier, lab(clock, days=91, hours=1).der)
        assert await tell(verifier) == []
        for days, expected in ((1.5, [90]), (30, []), (30, [30]), (22, []), (2, [7]), (3, []), (3, [0])):
            clock.advance(days=days)
            told = [within for subject, within in await tell(verifier) if subject == "CN=Lab"]
            assert told == expected, clock.at
        assert await tell(verifier) == []
        assert await audit(verifier) == [
            ("anchors.assigned", None),
            ("expiry.near", 90),
            ("expiry.near", 30),
            ("expiry.near", 7),
            ("expiry.ended", 0),
        ]


async def test_one_replica_tells_and_a_restart_does_not_repeat_it(settings):
    clock = FakeClock()
    async with running(settings, clock) as first, running(settings, clock) as second:
        await put(first, lab(clock, days=5).der)
        both = await asyncio.gather(tell(first), tell(second))
        assert sorted(both) == [[], [("CN=Lab", 7)]]
    async with running(settings, clock) as restarted:
        assert await tell(restarted) == []
        assert (await audit(restarted)).count(("expiry.near", 7)) == 1


async def test_a_subscriber_in_the_process_hears_it(settings):
    clock = FakeClock()
    async with running(settings, clock) as verifier:
        await put(verifier, lab(clock, days=5).der)
        heard = verifier.service.services.recorder._events.subscribe_alarms()
        first = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        await tell(verifier)
        alarm = await asyncio.wait_for(first, 5)
        assert (alarm.ending.subject, alarm.ending.holder, alarm.threshold_days) == ("CN=Lab", "lab", 7)
        await heard.aclose()


async def test_days_and_alarms_are_metrics_at_every_scrape(settings):
    clock = FakeClock()
    async with running(settings, clock) as verifier:
        authority = lab(clock, days=40)
        overdue = pki.crl(authority, next_update=clock.now() + timedelta(days=1))
        await put(verifier, pki.pem("CERTIFICATE", authority.der) + pki.pem("X509 CRL", overdue))
        found = await metrics(verifier)
        assert found["vtpm_attest_expiry_seconds", "anchor", "lab", "CN=Lab"] == pytest.approx(
            40 * DAY, abs=60
        )
        assert found["vtpm_attest_expiry_seconds", "crl", "lab", "CN=Lab"] == pytest.approx(DAY, abs=60)
        assert found["vtpm_attest_expiry_alarms", "anchor", "90"] == 1
        assert found["vtpm_attest_expiry_alarms", "crl", "0"] == 0
        clock.advance(days=2)
        found = await metrics(verifier)
        assert found["vtpm_attest_expiry_seconds", "crl", "lab", "CN=Lab"] == pytest.approx(-DAY, abs=60)
        assert found["vtpm_attest_expiry_alarms", "crl", "0"] == 1
        assert ("CN=Lab", 0) in await tell(verifier)
        await verifier.call("DELETE", "/v1/trust-anchors/lab", scope=Scope.OPERATOR)
        found = await metrics(verifier)
        assert ("vtpm_attest_expiry_seconds", "anchor", "lab", "CN=Lab") not in found
        assert found["vtpm_attest_expiry_alarms", "anchor", "90"] == 0


async def test_the_verifiers_own_certificates_are_watched(settings):
    clock = FakeClock()
    async with running(settings, clock) as verifier:
        found = await metrics(verifier)
        kinds = {key[1] for key in found if key[0] == "vtpm_attest_expiry_seconds"}
        assert kinds == {"tls", "tls-ca", "ak-ca"}
        assert await tell(verifier) == []
        clock.advance(days=85)  # nobody renewed the server's certificate of 90 days
        assert await tell(verifier) == [("CN=vtpm-attest verifier", 7)]
