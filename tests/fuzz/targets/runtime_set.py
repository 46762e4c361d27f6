"""Runtime sets (one way to write each), Keylime's runtime policies, and what vouches for a set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.simulator.keys import private_key
from verifier.errors import PolicyError
from verifier.policy.dsse import PolicySigners
from verifier.policy.runtime.keylime import read_keylime
from verifier.policy.runtime.reading import read_runtime_set
from verifier.policy.runtime.runtime_set import Head
from verifier.policy.runtime.signing import sign_set, verify_set
from verifier.policy.runtime.writing import write_runtime_set

RAISES = (PolicyError,)
RUNS = 500
MEMORY = Bound(200, 2 << 20)
CALLS = Bound(200, 50_000)
SIGNER = private_key("p256", "fuzz")
KEYLIME = {
    "meta": {"version": 1, "generator": 0},
    "release": 0,
    "digests": {"/usr/bin/a": ["00" * 32], "/usr/bin/b c": ["11" * 20, "22" * 32]},
    "excludes": ["^/tmp/.*$", "/var/log"],
    "keyrings": {".ima": ["33" * 32]},
    "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": None},
    "ima-buf": {"dm": ["44" * 32]},
    "verification-keys": "",
}


def seeds() -> Iterator[bytes]:
    keylime = json.dumps(KEYLIME).encode()
    made = read_keylime(keylime, Head(name="fuzz")).runtime_set
    text = b"".join(write_runtime_set(made))
    yield from choices({0: [text], 1: [keylime], 2: [sign_set(made, [SIGNER])]})


MADE = read_keylime(json.dumps(KEYLIME).encode(), Head(name="fuzz")).runtime_set
SIGNERS = PolicySigners.of([SIGNER.public_key()])


def target(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    if kind == b"\x01":
        made = read_keylime(data, Head(name="fuzz")).runtime_set
        written = b"".join(write_runtime_set(made))
        assert len(read_runtime_set([written])) == len(made)
    elif kind == b"\x02":
        assert verify_set(MADE, data, SIGNERS)
    else:
        pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
        found = read_runtime_set(pieces, digest=hashlib.sha256(data).hexdigest())
        assert b"".join(write_runtime_set(found)) == data, "canonical, so there is one way to write it"
