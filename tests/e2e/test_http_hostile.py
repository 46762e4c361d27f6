"""Hostile input over HTTP: a typed error with its place, a 4xx, and nothing stored."""

from __future__ import annotations

import asyncio
import json

import pytest
import zstandard

from tests.eventually import eventually
from tests.harness import b64, running, settings_for, unb64

# --- rule 9: hostile input


def _mangle(**changes):
    def change(body):
        body = body | {key: value for key, value in changes.items() if not callable(value)}
        return body | {key: value(body[key]) for key, value in changes.items() if callable(value)}

    return change


HOSTILE = {
    "attest truncated": (_mangle(attest=lambda t: b64(unb64(t)[:40])), "malformed-structure", True),
    "attest with trailing bytes": (
        _mangle(attest=lambda t: b64(unb64(t) + b"\0")),
        "malformed-structure",
        True,
    ),
    "attest of another magic": (
        _mangle(attest=lambda t: b64(b"\0\0\0\0" + unb64(t)[4:])),
        "quote-magic",
        True,
    ),
    "attest empty": (_mangle(attest=""), "malformed-structure", True),
    "signature empty": (_mangle(signature=""), "malformed-structure", True),
    "signature of an unknown scheme": (
        _mangle(signature=lambda t: b64(b"\x77\x77" + unb64(t)[2:])),
        "unsupported-algorithm",
        True,
    ),
    "nonce of another length": (_mangle(nonce="AAAA"), "malformed-request", False),
    "bank twice": (_mangle(pcrs=lambda banks: banks * 2), "malformed-request", False),
    "bank nobody knows": (_mangle(pcrs=[{"bank": "md5", "values": {}}]), "malformed-request", False),
    "PCR value of another length": (
        _mangle(pcrs=[{"bank": "sha256", "values": {"0": "A" * 28}}]),
        "malformed-request",
        False,
    ),
    "PCR 32": (
        _mangle(pcrs=[{"bank": "sha256", "values": {"32": "A" * 43 + "="}}]),
        "malformed-request",
        False,
    ),
    "log neither whole nor named": (_mangle(boot_log={}), "malformed-request", False),
    "log from an offset": (_mangle(boot_log={"content": "AAAA", "offset": 9}), "malformed-request", False),
    "log whose digest is another's": (
        _mangle(boot_log={"content": "AAAA", "sha256": "A" * 43 + "="}),
        "malformed-request",
        False,
    ),
    "unknown field": (_mangle(root=True), "malformed-request", False),
    "attester nobody knows": (_mangle(attester_id="att-nobody"), "nonce-foreign", False),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_rule_9_evidence_that_cannot_be_read_gets_a_code_and_changes_nothing(verifier, name):
    change, code, has_offset = HOSTILE[name]
    guest = await verifier.guest()
    body = guest.evidence(await guest.challenge())
    before = verifier.rows()
    answer = await verifier.post("/v1/attestations", change(body))
    assert answer.code == code
    assert answer.status in {400, 403}
    assert ("offset" in answer.json) is has_offset
    assert verifier.rows() == before
    assert (await verifier.post("/v1/attestations", body)).status == 200


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b"{", 1),
        (b'{"attester_id":"a",}', 19),
        (b"\xff\xfe", 0),
        (b"[" * 200_000, None),
        (b"{}x", None),
    ],
)
async def test_rule_9_a_body_that_is_no_message_names_the_byte(verifier, body, offset):
    answer = await verifier.call(
        "POST", "/v1/challenges", data=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.code) == (400, "malformed-request")
    assert answer.json.get("offset") == offset


async def test_rule_9_a_bomb_is_refused_while_it_expands(verifier):
    bomb = zstandard.compress(bytes(100_000_000))
    assert len(bomb) < 20_000
    headers = {"Content-Type": "application/json", "Content-Encoding": "zstd"}
    answer = await verifier.call("POST", "/v1/attestations", data=bomb, headers=headers)
    assert (answer.status, answer.code) == (413, "body-too-large")


async def test_rule_9_a_body_over_the_limit_is_refused_before_it_is_read(verifier):
    body = b"x" * (256 * 1024 + 1)
    headers = {"Content-Type": "application/json"}
    answer = await verifier.call("POST", "/v1/challenges", data=body, headers=headers)
    assert (answer.status, answer.code) == (413, "body-too-large")

    async def chunks():
        for _ in range(70):
            yield b"x" * 4096

    streamed = await verifier.call("POST", "/v1/challenges", data=chunks(), headers=headers)
    assert (streamed.status, streamed.code) == (413, "body-too-large")


async def test_who_leaves_in_the_middle_of_a_refused_body_is_gone(verifier):
    """Otherwise the service waits for the rest of it, also when it is to end."""
    server = verifier.runner.server
    server._kwargs["lingering_time"] = 3600.0
    host, _, port = verifier.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/challenges HTTP/1.1\r\nHost: verifier.test\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 9999999\r\n\r\n" + bytes(1000))
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    assert server.connections
    writer.close()
    await eventually(lambda: not server.connections)


async def test_rule_9_a_body_that_does_not_arrive_is_given_up(tmp_path):
    async with running(settings_for(tmp_path, LIMITS_BODY_TIMEOUT="1s")) as verifier:

        async def slow():
            yield b"{"
            await asyncio.sleep(3)
            yield b"}"

        headers = {"Content-Type": "application/json"}
        answer = await verifier.call("POST", "/v1/challenges", data=slow(), headers=headers)
        assert (answer.status, answer.code) == (408, "malformed-request")


async def test_a_long_body_over_a_slow_line_is_waited_for(tmp_path):
    """What has come earns time: a first IMA list takes minutes where a line is slow."""
    async with running(settings_for(tmp_path, LIMITS_BODY_TIMEOUT="1s")) as verifier:

        async def steady():
            for _ in range(3):
                yield b" " * 65_536
                await asyncio.sleep(0.45)
            yield b'{"attester_id": "att-unknown"}'

        headers = {"Content-Type": "application/json"}
        answer = await verifier.call("POST", "/v1/challenges", data=steady(), headers=headers)
        assert (answer.status, answer.code) == (404, "not-found")


async def test_wrong_paths_methods_and_media_types_are_problem_documents(verifier):
    assert (await verifier.call("GET", "/v2/x")).code == "not-found"
    wrong = await verifier.call("GET", "/v1/challenges")
    assert (wrong.status, wrong.code, wrong.headers["Allow"]) == (405, "method-not-allowed", "POST")
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": ""}):
        answer = await verifier.call("POST", "/v1/challenges", data=b"{}", headers=headers)
        assert (answer.status, answer.code) == (415, "unsupported-media-type")
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    answer = await verifier.call("POST", "/v1/challenges", data=b"{}", headers=headers)
    assert (answer.status, answer.code) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "status=green",
        "label=x",
        "cursor=%00",
        "cursor=abc",
        "page=2",
        "limit=1&limit=2",
    ],
)
async def test_a_listing_takes_no_query_it_does_not_understand(verifier, query):
    answer = await verifier.get(f"/v1/attesters?{query}")
    assert (answer.status, answer.code) == (400, "malformed-request")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/attesters?status=null",
        "/v1/audit?before=null",
        "/v1/audit?before=252923261275979382784",
        "/v1/inventory/events?before=9223372036854775808",
        "/v1/inventory/guests?outcome=NULL",
    ],
)
async def test_a_filter_is_refused_rather_than_left_out(verifier, path):
    answer = await verifier.get(path)
    assert (answer.status, answer.code) == (400, "malformed-request")


async def test_history_before_more_than_a_database_counts_is_refused(verifier):
    guest = await verifier.guest()
    answer = await verifier.get(f"/v1/attesters/{guest.attester_id}/history?before=252923261275979382784")
    assert (answer.status, answer.code) == (400, "malformed-request")


async def test_megabytes_of_json_are_refused_before_they_are_decoded_from_whoever_may_be_anyone(verifier):
    """Decoding base64 holds up every other guest; MessagePack of the same size does not."""
    body = b'{"attester_id": "' + b"A" * (9 * 1024 * 1024) + b'"}'
    answer = await verifier.call(
        "POST", "/v1/attestations", data=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status, answer.code) == (413, "body-too-large")
    answer = await verifier.call(
        "POST", "/v1/attestations", data=body, headers={"Content-Type": "application/msgpack"}
    )
    assert answer.status == 400


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"GET /v1/status?label=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: v\r\n\r\n", "longer than 8190 bytes"),
        (
            b"GET /v1/status HTTP/1.1\r\nHost: v\r\nCookie: " + b"a" * 9000 + b"\r\n\r\n",
            "longer than 8190 bytes",
        ),
        (b"\x16\x03\x01 hello\r\n\r\n", "no HTTP request"),
    ],
    ids=["long line", "long header", "no HTTP"],
)
async def test_what_is_no_request_at_all_gets_a_problem_document(verifier, sent, detail):
    host, port = verifier.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Content-Type: application/problem+json" in head
    assert b"Strict-Transport-Security" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("malformed-request", 400)
    assert detail in problem["detail"]
