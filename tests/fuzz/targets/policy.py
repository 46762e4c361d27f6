"""Policies: read as written, checked, and what lint lets pass is parsed. Signed ones are unpacked."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tests import pki
from tests.conftest import ROOT
from tests.fuzz.corpora import files
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import ROOT as CA
from tests.harness import POLICY
from tests.simulator.keys import private_key
from verifier.errors import PolicyError
from verifier.policy.dsse import is_envelope, open_policy, sign
from verifier.policy.lint.problem import Level
from verifier.policy.parse import check_policy, parse_policy

RAISES = (PolicyError,)
RUNS = 60
MEMORY = Bound(4_000, 8 << 20)
CALLS = Bound(6_000, 1_000_000)


RULE = "  - {id: c, severity: warning, claim: configuration, cel: 'clock.safe && 1 < 2'}\n"
SIGNED = b"""\
schema: vtpm-attest/policy/1
id: fuzz
quote: {pcrs: [7, 10]}
rules: [{id: sb, claim: configuration, secure_boot: enabled}]
unjudged: [{pcrs: [7], why: not what this is about}]
runtime:
  sets: [{sha256: "%064d"}]
  signatures:
    use: accepted
    keys:
      - |
%s"""


def seeds() -> Iterator[bytes]:
    yield POLICY.encode()
    yield sign(POLICY.encode(), [private_key("p256", "fuzz")])
    yield POLICY.replace("unjudged:", RULE + "unjudged:").encode()
    extension = pki.basic_constraints(ca=False)
    for der in (
        CA.der,
        CA.ek(extensions=(extension, extension)),
        CA.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"),
    ):
        yield SIGNED % (0, textwrap.indent(pki.pem("CERTIFICATE", der).decode(), " " * 10).encode())
    yield from files(ROOT / "policies", "*.yaml", longest=4_000)


def target(data: bytes) -> None:
    if is_envelope(data):
        data = open_policy(data, None).payload
    policy, problems = check_policy(data)
    bad = policy is None or any(one.level is Level.ERROR for one in problems)
    try:
        assert parse_policy(data) == policy
    except PolicyError:
        assert bad, "checked as good, and not parsed"
        raise
    assert not bad, "parsed, and checked as bad"
