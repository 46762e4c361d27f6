"""EARs as relying parties read them, key sets and events of a verifier as its clients do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta

from joserfc import jws
from joserfc.jwk import ECKey

from tests.fuzz.corpora import choices, corpus
from tests.fuzz.targets import Bound
from tests.simulator.keys import private_key
from tests.unit.client.test_ear import KID, NOW, RULES, Published, claims, jwk
from verifier.client import EarVerifier
from verifier.client.client import _event
from verifier.client.errors import AttestationError
from verifier.client.keys import KeySet, _read
from verifier.client.sse import SseReader
from verifier.client.transport import Reply, _problem

RAISES = (AttestationError,)
RUNS = 600
MEMORY = Bound(100, 2 << 20)
CALLS = Bound(100, 50_000)
PRIVATE = private_key("p256", "fuzz ear")
LOOP = asyncio.new_event_loop()


VERIFIER = EarVerifier(KeySet(Published(jwk(PRIVATE)), lambda: NOW, timedelta(minutes=15)), lambda: NOW)


def signed(**changes: object) -> bytes:
    payload = json.dumps(claims(**changes)).encode()
    return jws.serialize_compact(
        {"alg": "ES256", "kid": KID, "typ": "eat+jwt"}, payload, ECKey.import_key(PRIVATE)
    ).encode()


def seeds() -> Iterator[bytes]:
    tokens = [signed(), signed(exp=10**40), signed(exp=2**62), signed(aud=[]), signed(submods={})]
    key_set = json.dumps({"keys": [jwk(PRIVATE), jwk(PRIVATE, kty="RSA"), 1]}).encode()
    event = b'id: 1\nevent: verdict.changed\ndata: {"type":"io.vtpm-attest.verdict.changed","time":"2026-11-28T12:00:00Z","data":{"attester_id":"att-1"}}\n\n'
    problem = b'{"code":"not-found","title":"t","status":404,"detail":"d"}'
    yield from choices(
        {
            0: [*tokens, *corpus("ear", longest=8_000)],
            1: [key_set],
            2: [event, event.replace(b"\n", b"\r\n")],
            3: [problem],
        }
    )


def target(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    if kind == b"\x01":
        _read(Reply(200, {"Content-Type": "application/json"}, data))
    elif kind == b"\x02":
        for received in SseReader().feed(data):
            _event(received)
    elif kind == b"\x03":
        assert isinstance(_problem(data, 404).code, str)
    else:
        believed(data)


def believed(data: bytes) -> None:
    ear = LOOP.run_until_complete(VERIFIER.verify(data.decode("utf-8", "surrogateescape"), RULES))
    assert ear.standing.attester_id
