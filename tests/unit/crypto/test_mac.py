"""HMAC with a key that stays, held against Python's own."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier.crypto.mac import Mac


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(key=st.binary(max_size=200), label=st.binary(max_size=80), messages=st.lists(st.binary(max_size=200)))
def test_every_message_has_its_own_digest_whatever_came_before(key, label, messages):
    mac = Mac(key, label)
    for message in messages:
        assert mac.digest(message) == hmac.digest(key, label + message, hashlib.sha256)
