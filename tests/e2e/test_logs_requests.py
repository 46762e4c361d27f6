"""One id for a request, wherever it leaves a trace; and no secret in any of them."""

from __future__ import annotations

import io
import json
import re

import pytest
import structlog

from tests.harness import Guest, boot_log, running, settings_for
from verifier.errors import StoreUnavailable
from verifier.logs import configure_logs
from verifier.ports import Scope

GIVEN = "vm-42.boot_7-a1b2c3"


def lines(log) -> list[dict]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def of(log, request_id) -> list[dict]:
    return [line for line in lines(log) if line.get("request_id") == request_id]


@pytest.fixture
async def logged(tmp_path, clock):
    async with running(settings_for(tmp_path, LOG_ACCESS="true"), clock) as harness:
        yield harness


async def test_every_line_of_one_attestation_has_its_id_its_attester_and_its_tenant(logged, log):
    guest = await logged.guest(2, log=boot_log(secure=False))
    answer = await logged.post(
        "/v1/attestations", guest.evidence(await guest.challenge()), headers={"X-Request-Id": GIVEN}
    )
    assert answer.status == 200
    assert answer.headers["X-Request-Id"] == GIVEN
    told = of(log, GIVEN)
    assert {line["event"] for line in told} >= {"verdict.recorded", "http.request"}
    assert all((line["attester"], line["tenant"]) == (guest.attester_id, "default") for line in told)
    (access,) = [line for line in told if line["event"] == "http.request"]
    assert (access["method"], access["route"], access["status"]) == ("POST", "/v1/attestations", 200)
    assert 0 < access["seconds"] < 60
    others = [line for line in lines(log) if line.get("request_id") != GIVEN]
    assert "verdict.recorded" not in {line["event"] for line in others}


async def test_a_line_names_the_route_and_an_attester_only_where_there_is_one(logged, log):
    guest = await logged.guest()
    await logged.get(f"/v1/attesters/{guest.attester_id}")
    await logged.get("/v1/attesters/att-nobody")
    await logged.get("/no/such/path")
    found, unknown, nowhere = [line for line in lines(log) if line["event"] == "http.request"][-3:]
    assert (found["route"], found["attester"], found["status"]) == (
        "/v1/attesters/{id}",
        guest.attester_id,
        200,
    )
    assert (unknown["route"], unknown["status"], "attester" in unknown) == ("/v1/attesters/{id}", 404, False)
    assert (nowhere["route"], nowhere["status"], nowhere["operation"]) == (None, 404, "unmatched")


@pytest.mark.parametrize(
    "given",
    [
        "short",
        "x" * 65,
        "with space in it",
        'quote"quote"',
        "-leading-dash",
        "ümlaut-ümlaut",
        "a\tb-a\tb-a",
        "",
    ],
)
async def test_an_id_that_is_not_well_formed_is_replaced(verifier, log, given):
    answer = await verifier.call("GET", "/no/such/path", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    assert not given or json.dumps(given)[1:-1] not in log.getvalue()


async def test_problem_log_and_audit_say_the_same_id(verifier, log, monkeypatch):
    headers = {"X-Request-Id": GIVEN}
    guest = await verifier.guest()
    await verifier.call(
        "PUT",
        f"/v1/attesters/{guest.attester_id}/labels",
        json={"labels": {"a": "b"}},
        scope=Scope.OPERATOR,
        headers=headers,
    )
    (entry,) = await verifier.decisions(guest.attester_id)
    assert entry["detail"]["request_id"] == GIVEN

    async def gone(*_):
        raise StoreUnavailable("gone")

    monkeypatch.setattr(verifier.service.store, "attester_state", gone)
    answer = await verifier.post("/v1/challenges", {"attester_id": guest.attester_id}, headers=headers)
    assert (answer.status, answer.json["request_id"]) == (503, GIVEN)
    assert [line["code"] for line in of(log, GIVEN) if line["event"] == "http.fault"] == [
        "verifier-unavailable"
    ]


async def test_decisions_that_the_store_records_itself_carry_the_id_too(tmp_path, clock, log):
    settings = settings_for(tmp_path, ENROLLMENT_METHODS="certificate,approve")
    async with running(settings, clock) as verifier:
        guest = Guest.booted(verifier)
        begun = await verifier.post("/v1/enrollments", guest.enrollment(None))
        await guest.activate(begun.json)
        enrollment = begun.json["enrollment_id"]
        answer = await verifier.post(
            f"/v1/enrollments/{enrollment}/approve",
            {"reason": "known"},
            scope=Scope.OPERATOR,
            headers={"X-Request-Id": GIVEN},
        )
        assert answer.status == 200, answer.content
        (entry,) = (await verifier.get(f"/v1/audit?subject={enrollment}")).json["entries"]
        assert (entry["action"], entry["detail"]["request_id"]) == ("enrollment.approved", GIVEN)


async def test_no_secret_is_ever_logged(logged, log):
    """A whole life at level debug with the access log on: tokens, nonces, proofs, signatures, wherever they are sent."""
    operator, join = await logged.token(Scope.OPERATOR), await logged.token(Scope.JOIN)
    guest = Guest.booted(logged)
    await guest.enroll(join)
    challenge = await guest.challenge()
    evidence = guest.evidence(challenge)
    await guest.attest(challenge)
    await guest.attest(challenge)  # spent already
    await logged.call("GET", f"/v1/attesters?search={operator}", token=operator)
    await logged.call("GET", f"/v1/{operator}", token=operator)
    await logged.call("GET", "/v1/status", token=operator + "x")
    await logged.call("GET", "/v1/status", headers={"X-Request-Id": f"{operator} {join}"}, token=operator)
    await logged.post("/v1/enrollments", guest.enrollment("vtj1.nobody-knows-it.at-all"))
    await logged.call("POST", "/v1/challenges", data=join.encode(), headers={"Content-Type": join[:60]})
    made = await logged.post("/v1/tokens", {"scopes": ["dashboard"], "label": "x"}, scope=Scope.ADMIN)
    assert made.status == 201
    secrets = [operator, join, made.json["token"], challenge["nonce"], evidence["signature"]]
    text = log.getvalue()
    assert len(text.splitlines()) > 20
    assert "vtj1.nobody" not in text
    for secret in secrets:
        parts = {secret, *(part for part in secret.split(".") if len(part) > 20)}
        assert [part for part in parts if part in text] == []


@pytest.mark.parametrize(("every", "good"), [("1", 12), ("4", 3), ("1000", 0)])
async def test_the_access_log_can_be_sampled_but_never_hides_what_went_wrong(
    tmp_path, clock, log, every, good
):
    settings = settings_for(tmp_path, LOG_ACCESS="true", LOG_ACCESS_SAMPLE=every)
    async with running(settings, clock) as verifier:
        for number in range(16):
            path = "/healthz" if number % 4 else "/nowhere"
            await verifier.call("GET", path)
    told = [line["status"] for line in lines(log) if line["event"] == "http.request"]
    assert told.count(404) == 4
    assert abs(told.count(200) - good) <= 1


class Terminal(io.StringIO):
    """Somebody looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "form", "is_json"),
    [
        (io.StringIO, "auto", True),
        (Terminal, "auto", False),
        (Terminal, "json", True),
        (io.StringIO, "console", False),
    ],
)
def test_people_on_a_terminal_get_text_and_machines_get_json(stream, form, is_json):
    out = stream()
    configure_logs(form, "info", out)
    structlog.get_logger("x").info("some.event", number=7)
    text = out.getvalue()
    assert text.count("\n") == 1
    if is_json:
        assert json.loads(text)["number"] == 7
    else:
        assert text.index("some.event") < text.index("number")
        assert ("\x1b[" in text) == isinstance(out, Terminal)
