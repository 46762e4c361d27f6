"""Deviant boot logs over HTTP: a verdict with the quirk's name, kept and told again; damaged ones a 4xx."""

from __future__ import annotations

import hashlib

import pytest

from tests.harness import b64, boot_log
from tests.logs import EV_IPL, Written, agile_event
from verifier.ports import Scope

LOG = boot_log()
YAML = {"Content-Type": "application/yaml"}


def quirks(verdict):
    return {(each["code"], each["quirk"], each.get("pcr")) for each in verdict["findings"] if "quirk" in each}


def content(log):
    return {"content": b64(log)}


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"", ("boot-log-empty", "zero-length-log", None)),
        (bytes(4096), ("boot-log-empty", "zero-length-log", None)),
        (LOG[:-3], ("boot-log-cut", "truncated-log", None)),
        (
            LOG + agile_event(Written(8, EV_IPL, b"never extended")),
            ("boot-log-mismatch", "extra-tail-events", 8),
        ),
    ],
    ids=["no byte", "no event", "cut", "tail"],
)
async def test_a_deviant_log_is_a_verdict_with_its_name(verifier, log, expected):
    guest = await verifier.guest()
    answer = await guest.attest(boot_log=content(log))
    assert answer.status == 200
    assert answer.json["verdict"]["status"] in {"contraindicated", "none"}
    assert expected in quirks(answer.json["verdict"])
    stored = await verifier.get(f"/v1/attesters/{guest.attester_id}/verdict", Scope.RELYING_PARTY)
    assert quirks(stored.json) == quirks(answer.json["verdict"])
    remedies = {each["quirk"]: each["remedy"] for each in stored.json["findings"] if "quirk" in each}
    assert remedies[expected[1]].endswith(".")


async def test_an_empty_log_can_be_named_by_its_digest_like_any_other(verifier, clock):
    guest = await verifier.guest()
    first = await guest.attest(boot_log=content(b""))
    clock.advance(minutes=5)
    again = await guest.attest(
        first.json["challenge"], boot_log={"sha256": b64(hashlib.sha256(b"").digest())}
    )
    assert again.status == 200
    assert quirks(again.json["verdict"]) == quirks(first.json["verdict"])


async def test_a_log_that_is_damaged_before_its_end_changes_nothing(verifier):
    guest = await verifier.guest()
    before = verifier.rows()
    answer = await guest.attest(boot_log=content(LOG[:200] + b"\xee" * 40 + LOG[240:]))
    assert (answer.status, answer.code) == (400, "malformed-structure")
    assert answer.json["offset"] >= 200
    assert verifier.rows()["attestation"] == before["attestation"]


async def test_a_policy_tolerates_a_quirk_and_the_verdict_says_so(verifier):
    guest = await verifier.guest()
    log = LOG + agile_event(Written(8, EV_IPL, b"never extended"))
    plain = (
        "schema: vtpm-attest/policy/1\nid: quirks\nquote: {pcrs: [0, 7, 8]}\nrules:\n"
        "  - {id: sb, claim: configuration, secure_boot: enabled}\n"
        "unjudged:\n  - {pcrs: [0, 7, 8], why: not what this test is about}\n"
    )
    leave = (
        "tolerate:\n  - {quirk: extra-tail-events, pcrs: [8], why: its boot loader writes one record more}\n"
    )
    statuses = []
    for source in (plain, plain + leave):
        made = await verifier.call(
            "POST", "/v1/policies", data=source.encode(), headers=YAML, scope=Scope.OPERATOR
        )
        assert made.status == 201, made.content
        path = f"/v1/attesters/{guest.attester_id}/policy"
        await verifier.call("PUT", path, json={"policy": "quirks"}, scope=Scope.OPERATOR)
        answer = await guest.attest(boot_log=content(log))
        statuses.append(answer.json["verdict"]["status"])
    assert statuses == ["contraindicated", "warning"]
    assert quirks(answer.json["verdict"]) == {("boot-log-quirk", "extra-tail-events", 8)}
