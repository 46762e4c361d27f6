"""What systemd logs of its own measurements."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from tests.conftest import ROOT
from tests.fuzz.targets import Bound
from verifier.errors import MalformedInputError
from verifier.tcg.userspace_log import parse_userspace_log

RAISES = (MalformedInputError,)
RUNS = 600
MEMORY = Bound(100, 1 << 20)


def seeds() -> Iterator[bytes]:
    for path in sorted((ROOT / "tests/vectors/userspace").glob("*.json")):
        found = json.loads(path.read_text()).get("userspace_log")
        if found:
            yield base64.b64decode(found)
    yield (
        b'\x1e{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"'
        + b"00" * 32
        + b'"}],"content_type":"systemd",'
    )
    yield b"\x1e" + b'{"a":' * 2000


def target(data: bytes) -> None:
    log = parse_userspace_log(data)
    assert all(0 <= event.offset <= len(data) for event in log.events)
