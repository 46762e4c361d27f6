"""Every message of the API, as JSON and as MessagePack; and what an agent's becomes inside."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agent.wire import codec
from tests.fuzz.targets import Bound
from tests.harness import Guest, boot_log
from tests.simulator import SoftwareTpm
from verifier.errors import EvidenceError
from verifier.web import wire_codec as wire
from verifier.web.app import ROUTES

RAISES = (EvidenceError,)
RUNS = 1200
MEMORY = Bound(100, 1 << 20)
KINDS = sorted(
    {route.request for route in ROUTES if route.request is not None}, key=lambda kind: kind.__name__
)
ENCODINGS = (wire.JSON, wire.MSGPACK)


def seeds() -> Iterator[bytes]:
    for number, kind in enumerate(KINDS):
        for sample in samples(kind):
            yield bytes([2 * number]) + msgspec.json.encode(sample)
            yield bytes([2 * number + 1]) + packed(kind, sample)


def packed(kind: type, sample: object) -> bytes:
    """The same as MessagePack; where it is no such message, as it stands."""
    try:
        return codec.encode(codec.decode(msgspec.json.encode(sample), kind), codec.MSGPACK)
    except codec.WireError:
        return codec.encode(sample, codec.MSGPACK)


def samples(kind: type) -> Iterator[object]:
    tpm = SoftwareTpm("fuzz")
    guest = Guest(None, tpm, boot_log(), attester_id="att-1")  # type: ignore[arg-type] - it is not asked for anything
    if kind is wire.EnrollmentRequest:
        yield guest.enrollment("vtj1." + "A" * 43)
    elif kind is wire.ActivationRequest:
        yield {"proof": "A" * 43 + "="}
    elif kind is wire.ChallengeRequest:
        yield {"attester_id": "att-1"}
    elif kind in {wire.AttestationRequest, wire.ReleaseRequest}:
        challenge = {"nonce": "A" * 43 + "=", "selection": [{"bank": "sha256", "pcrs": [0, 4, 7]}]}
        body = guest.evidence(challenge, ima_log={"content": "AAAA", "offset": 3}, want_ear=True)
        yield body if kind is wire.AttestationRequest else {"evidence": body, "reply_key": "A" * 86 + "=="}
    else:
        yield from plain(kind)


def plain(kind: type) -> Iterator[object]:
    """One with every field, made from its schema."""
    yield made(msgspec.inspect.type_info(kind))


def made(info: object) -> object:
    """A value of this type; what the schema asks beyond that (a pattern) is for the fuzzer to find."""
    match info:
        case msgspec.inspect.StructType(fields=fields):
            return {field.encode_name: made(field.type) for field in fields}
        case msgspec.inspect.UnionType(types=types):
            return made(types[0])
        case msgspec.inspect.CollectionType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return [made(item)]
        case msgspec.inspect.DictType(value_type=value):
            return {"0": made(value)}
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case _:
            return plain_value(info)


def plain_value(info: object) -> object:
    least = getattr(info, "min_length", None) or 1
    match info:
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType(ge=least_number):
            return max(least_number or 0, 1)
        case msgspec.inspect.FloatType():
            return 1.0
        case msgspec.inspect.BytesType():
            return codec_text(least)
        case msgspec.inspect.NoneType():
            return None
        case _:
            return "a" * least


def codec_text(size: int) -> str:
    return msgspec.json.encode(bytes(size)).decode().strip('"')


def target(data: bytes) -> None:
    chosen, data = (data[0] if data else 0), data[1:]
    kind, encoding = KINDS[chosen // 2 % len(KINDS)], ENCODINGS[chosen % 2]
    message = wire.decode_body(data, kind, encoding)
    assert wire.decode_body(wire.encode(message, encoding), kind, encoding) == message
    if isinstance(message, wire.EnrollmentRequest):
        wire.enrollment_command(message)
    elif isinstance(message, wire.AttestationRequest):
        wire.attest_command(message)
