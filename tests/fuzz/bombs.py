"""Small inputs that would become large, deep or endless, each with the refusal that it has to get."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from tests import pki
from tests.fuzz.targets.anchors import zipped
from tests.harness import POLICY, Guest, Harness, b64
from verifier.ports import Scope

JSON = {"Content-Type": "application/json"}
MSGPACK = {"Content-Type": "application/msgpack"}
YAML = {"Content-Type": "application/yaml"}
BINARY = {"Content-Type": "application/octet-stream"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ATTEST, ANCHORS, POLICIES = "/v1/attestations", "/v1/trust-anchors?set=bomb", "/v1/policies"
MIB = 1 << 20
TOKEN = b"vtj1.TOKEN"
"""Where the join token of a verifier comes."""
UNREAD, LARGE = (400, "malformed-request"), (413, "body-too-large")
DAMAGED = (400, "malformed-structure")
INVALID = (422, "policy-invalid")
NOTHING = (422, "anchors-refused")


@dataclass(frozen=True)
class Bomb:
    """A request, what it has to be answered with, and by how many MiB the process may grow meanwhile."""

    name: str
    path: str
    make: Callable[[], bytes]
    answer: tuple[int, str]
    headers: dict[str, str] = field(default_factory=dict)
    scope: Scope | None = None
    mib: int = 48


def zeros(size: int) -> bytes:
    """A zstd frame of zeros that takes kilobytes."""
    state = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    piece = bytes(MIB)
    return b"".join([*(state.compress(piece) for _ in range(size // MIB)), state.flush()])


def window(bits: int) -> bytes:
    """A frame that asks for a window of 2**bits bytes."""
    return b"\x28\xb5\x2f\xfd" + bytes([0x00, (bits - 10) << 3]) + b"\x01\x00\x00"


def nested_der(depth: int) -> bytes:
    data = b"\x05\x00"
    for _ in range(depth):
        data = pki.seq(data)
    return data


def central_directory(entries: int) -> bytes:
    """A zip archive whose end lists more files than are in it."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, *[0] * 14)
    local, listed = b"PK\x03\x04" + bytes(26), entry * entries
    counts = (entries & 0xFFFF, entries & 0xFFFF)
    return local + listed + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *counts, len(listed), len(local), 0)


def shared_blocks(folders: int, blocks: int) -> bytes:
    """A cabinet of which all folders have the same blocks."""
    head = struct.pack("<4s4xI4xI4x2sHHHHH", b"MSCF", 0, 36 + 8 * folders, b"\x03\x01", folders, 0, 0, 0, 0)
    return head + struct.pack("<IHH", 36 + 8 * folders, blocks, 0) * folders + bytes(8 * blocks)


def aliases() -> bytes:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *levels]).encode()


def rule(expression: str) -> bytes:
    """A policy with one more rule."""
    line = f"  - {{id: c, severity: warning, claim: configuration, cel: {json.dumps(expression)}}}\n"
    return POLICY.replace("unjudged:", line + "unjudged:").encode()


def certificate_of(der: bytes) -> bytes:
    """An enrolment with this for an EK certificate."""
    guest = Guest.booted(None, 1)  # type: ignore[arg-type] - it is not asked for anything
    return json.dumps(guest.enrollment(TOKEN.decode(), ek_certificates=[b64(der)])).encode()


BODIES = (
    Bomb("gzip, 256 MiB of zeros", ATTEST, lambda: gzip.compress(bytes(256 * MIB), 9), LARGE, MSGPACK | {"Content-Encoding": "gzip"}, mib=130),
    Bomb("zstd, 1 GiB of zeros", ATTEST, lambda: zeros(1024 * MIB), LARGE, MSGPACK | {"Content-Encoding": "zstd"}, mib=130),
    Bomb("zstd, a window of 2 GiB", ATTEST, lambda: window(31), UNREAD, MSGPACK | {"Content-Encoding": "zstd"}),
    Bomb("gzip, 500,000 empty members", ATTEST, lambda: gzip.compress(b"", mtime=0) * 500_000, UNREAD, MSGPACK | {"Content-Encoding": "gzip"}),
    Bomb("JSON, 8 million levels", ATTEST, lambda: b"[" * 8_000_000, UNREAD, JSON),
    Bomb("JSON, levels in a field", ATTEST, lambda: b'{"attester_id":' + b'{"a":' * 1_000_000, UNREAD, JSON),
    Bomb("JSON, 300,000 fields", ATTEST, lambda: json.dumps({f"f{n}": n for n in range(300_000)}).encode(), UNREAD, JSON),
    Bomb("JSON, a number of 4 million digits", ATTEST, lambda: b'{"attester_id":' + b"9" * 4_000_000 + b"}", UNREAD, JSON),
    Bomb("JSON, 10**999999999", "/v1/challenges", lambda: b'{"attester_id":1e999999999}', UNREAD, JSON),
    Bomb("JSON, 8 MB of escapes", ATTEST, lambda: b'{"attester_id":"' + b"\\u0041" * 1_300_000 + b'"}', UNREAD, JSON),
    Bomb("JSON, 200,000 PCRs", ATTEST, lambda: json.dumps({"pcrs": [{"bank": "sha256", "values": {str(n): "" for n in range(200_000)}}]}).encode(), UNREAD, JSON),
    Bomb("MessagePack, 16 million levels", ATTEST, lambda: b"\x91" * 16_000_000, UNREAD, MSGPACK),
    Bomb("MessagePack, an array of 2**32", ATTEST, lambda: b"\xdd\xff\xff\xff\xff", UNREAD, MSGPACK),
    Bomb("MessagePack, a map of 2**32", ATTEST, lambda: b"\xdf\xff\xff\xff\xff", UNREAD, MSGPACK),
    Bomb("MessagePack, a list of 2**32 in a field", ATTEST, lambda: b"\x81\xa4pcrs\xdd\xff\xff\xff\xff" + b"\xc0" * 1000, UNREAD, MSGPACK),
    Bomb("MessagePack, a text of 4 GiB", ATTEST, lambda: b"\x81\xabattester_id\xdb\xff\xff\xff\xffaa", UNREAD, MSGPACK),
    Bomb("ASN.1, 4,000 levels for a certificate", "/v1/enrollments", lambda: certificate_of(nested_der(4_000)), (403, "ek-certificate-malformed"), JSON),
    Bomb("ASN.1, a length of 4 GiB", "/v1/enrollments", lambda: certificate_of(b"\x30\x84\xff\xff\xff\xff" + bytes(99)), (403, "ek-certificate-malformed"), JSON),
    Bomb("a form of 2,000 fields", "/dashboard/login", lambda: b"a=&" * 2_000, (400, ""), FORM),
)  # fmt: skip
IMPORTS = (
    Bomb("zip, 256 MiB of zeros (deflate)", ANCHORS, lambda: zipped({"a": bytes(256 * MIB)}), DAMAGED, BINARY, Scope.ADMIN, mib=160),
    Bomb("zip, 64 MiB of zeros (bzip2)", ANCHORS, lambda: zipped({"a": bytes(64 * MIB)}, zipfile.ZIP_BZIP2), DAMAGED, BINARY, Scope.ADMIN),
    Bomb("zip, 64 MiB of zeros (LZMA)", ANCHORS, lambda: zipped({"a": bytes(64 * MIB)}, zipfile.ZIP_LZMA), DAMAGED, BINARY, Scope.ADMIN),
    Bomb("zip, 300,000 files", ANCHORS, lambda: central_directory(300_000), DAMAGED, BINARY, Scope.ADMIN, mib=80),
    Bomb("cabinet, 8,000 folders with the same 65,535 blocks", ANCHORS, lambda: shared_blocks(8_000, 65_535), DAMAGED, BINARY, Scope.ADMIN),
    Bomb("PEM, 200,000 beginnings", ANCHORS, lambda: b"-----BEGIN CERTIFICATE-----\n" * 200_000, NOTHING, BINARY, Scope.ADMIN, mib=240),
    Bomb("DER, 15,000 levels", ANCHORS, lambda: nested_der(15_000), NOTHING, BINARY, Scope.ADMIN),
    Bomb("YAML, aliases of aliases", POLICIES, aliases, INVALID, YAML, Scope.ADMIN),
    Bomb("YAML, 200,000 levels", POLICIES, lambda: b"[" * 200_000, INVALID, YAML, Scope.ADMIN),
    Bomb("YAML, 60,000 levels of mappings", POLICIES, lambda: b"{a: " * 60_000, INVALID, YAML, Scope.ADMIN),
    Bomb("YAML, 60,000 documents", POLICIES, lambda: b"---\n" * 60_000, INVALID, YAML, Scope.ADMIN),
    Bomb("YAML, 10,000 tags", POLICIES, lambda: b"!!python/object:os.system " * 10_000, INVALID, YAML, Scope.ADMIN),
    Bomb("CEL, 2,000 brackets", POLICIES, lambda: rule("(" * 2_000 + "true" + ")" * 2_000), INVALID, YAML, Scope.ADMIN),
    Bomb("CEL, loops in loops", POLICIES, lambda: rule("[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))"), INVALID, YAML, Scope.ADMIN),
    Bomb("CEL, a pattern of patterns", POLICIES, lambda: rule("'a'.matches('(((a{1,1000}){1,1000}){1,1000})')"), INVALID, YAML, Scope.ADMIN),
    Bomb("DSSE, 20,000 signatures", POLICIES, lambda: b'{"payload":"","payloadType":"x","signatures":[' + b",".join([b'{"sig":""}'] * 20_000) + b"]}", INVALID, YAML, Scope.ADMIN),
)  # fmt: skip


@dataclass(frozen=True)
class Head:
    """The head of a request, byte by byte, and the status it has to be answered with."""

    name: str
    lines: Callable[[], str]
    status: int


def _get(more: str, path: str = "/v1/status") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: v\r\nConnection: close\r\n{more}\r\n"


HEADS = (
    Head("a header of 1 MB", lambda: _get("X-A: " + "a" * 1_000_000 + "\r\n"), 400),
    Head("a path of 1 MB", lambda: _get("", "/v1/" + "a" * 1_000_000), 400),
    Head("100,000 headers", lambda: _get("".join(f"X-{n}: a\r\n" for n in range(100_000))), 400),
    Head("20,000 cookies", lambda: _get("".join(f"Cookie: a{n}=b\r\n" for n in range(20_000))), 400),
    Head("a cookie of 1,500 parts", lambda: _get("Cookie: " + "; ".join(["a=b"] * 1_500) + "\r\n", "/dashboard/login"), 200),
    Head("a session of 8,000 characters", lambda: _get("Cookie: __Host-session=" + "A" * 8_000 + "\r\n", "/dashboard/login"), 200),
    Head("a query of 1,300 names", lambda: _get("", "/v1/attesters?" + "&".join(f"a{n}" for n in range(1_300))), 401),
    Head("an Accept of 8,000 types", lambda: _get("Accept: " + "," * 8_000 + "\r\n", "/healthz"), 200),
    Head("an If-None-Match of 2,000 tags", lambda: _get("If-None-Match: " + '"a",' * 2_000 + "\r\n", "/openapi.json"), 200),
    Head("chunks without end in their size", lambda: "POST /v1/challenges HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + "f" * 100_000 + "\r\n", 400),
    Head("2,500 levels of path", lambda: _get("", "/" + "../" * 2_500), 404),
)  # fmt: skip


async def warm(verifier: Harness) -> None:
    """What is loaded or made at first use is there afterwards."""
    guest = await verifier.guest()
    await guest.speak()
    for path, headers, data in ((POLICIES, YAML, rule("'a'.matches('a')")), (ANCHORS, BINARY, b"PK\x03\x04")):
        await verifier.call("POST", path, data=data, headers=headers, scope=Scope.ADMIN)


@dataclass(frozen=True)
class Blast:
    """What a bomb did: the answer, CPU seconds, and MiB by which the process was larger at its worst."""

    status: int
    code: str
    cpu: float
    mib: float


async def throw(verifier: Harness, bomb: Bomb, data: bytes) -> Blast:
    """Send it. The process that is measured is this one: what a client needs for it is in the figures."""
    data = data.replace(TOKEN, (await verifier.token(Scope.JOIN)).encode())
    before = peak(reset=True)
    started = time.process_time()
    answer = await verifier.call("POST", bomb.path, data=data, headers=bomb.headers, scope=bomb.scope)
    spent = time.process_time() - started
    code = answer.json.get("code", "") if answer.content[:1] == b"{" else ""
    return Blast(answer.status, code, spent, peak() - before)


async def throw_head(verifier: Harness, head: Head) -> Blast:
    """Send it by hand: honest clients refuse to."""
    host, port = verifier.url.removeprefix("http://").split(":")
    data = head.lines().encode()
    before = peak(reset=True)
    started = time.process_time()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(MIB), 60)
    writer.close()
    return Blast(int(answer[9:12]), "", time.process_time() - started, peak() - before)


def peak(*, reset: bool = False) -> float:
    """MiB resident: now, which is where the peak begins anew; or the peak since."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    (kib,) = re.findall(r"VmRSS:\s+(\d+)" if reset else r"VmHWM:\s+(\d+)", status)
    return int(kib) / 1024
