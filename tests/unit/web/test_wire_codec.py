"""The border: messages that are not exactly right stop here, with one typed error."""

from __future__ import annotations

import contextlib
import json
import re
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import EvidenceError
from verifier.ports import Lifecycle
from verifier.reasons import Reason, Tier
from verifier.service.model import ImaPart
from verifier.tcg.algorithms import HashAlg
from verifier.web import wire_codec as wire
from verifier.web.messages import AttesterSummary

ATTESTATION = {
    "attester_id": "att-a",
    "nonce": "A" * 43 + "=",
    "attest": "AAAA",
    "signature": "AAAA",
    "pcrs": [{"bank": "sha256", "values": {"0": "A" * 43 + "="}}],
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def command(**changes):
    body = json.dumps(ATTESTATION | changes).encode()
    return wire.attest_command(wire.decode_body(body, wire.AttestationRequest, wire.JSON))


def test_an_attestation_becomes_a_command():
    made = command(boot_log={"content": "AAAA"})
    assert (made.attester_id, made.nonce, made.boot_log.content) == ("att-a", bytes(32), bytes(3))


@given(
    field=st.sampled_from([*ATTESTATION, "boot_log", "identity", "kernel_command_line"]), value=json_values
)
def test_any_value_in_any_field_is_taken_or_refused_with_the_one_error(field, value):
    with contextlib.suppress(EvidenceError):
        command(**{field: value})


@pytest.mark.parametrize("media_type", sorted(wire.MEDIA_TYPES))
@pytest.mark.parametrize(
    "kind", [wire.EnrollmentRequest, wire.ActivationRequest, wire.ChallengeRequest, wire.AttestationRequest]
)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused_with_the_one_error(kind, media_type, data):
    with pytest.raises(EvidenceError) as caught:
        wire.decode_body(data, kind, media_type)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("nest", [b"[" * 100_000, b'{"a":' * 100_000])
def test_deep_nesting_is_refused(nest):
    with pytest.raises(EvidenceError):
        wire.decode_body(nest, wire.AttestationRequest, wire.JSON)
    with pytest.raises(EvidenceError):
        wire.decode_body(b"\x91" * 100_000, wire.AttestationRequest, wire.MSGPACK)


def test_a_pcr_written_twice_is_refused():
    values = {"1": "A" * 43 + "=", "01": "A" * 43 + "="}
    with pytest.raises(EvidenceError, match="given twice"):
        command(pcrs=[{"bank": "sha256", "values": values}])


WHOLE, SHORT = "A" * 43 + "=", "A" * 27 + "="


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"0": WHOLE, "7": SHORT, "x": SHORT}, "PCR 7 has 20 bytes; sha256 has 32"),
        ({"0": WHOLE, "7": SHORT}, "PCR 7 has 20 bytes; sha256 has 32"),
        ({"0": WHOLE, "x": SHORT}, "PCR 'x' is no number"),
        ({"0": SHORT, "x": WHOLE}, "PCR 0 has 20 bytes"),
        ({"5": WHOLE, "05": SHORT}, "PCR '05' is no number from 0 to 31, or given twice"),
    ],
)
def test_the_first_value_that_cannot_be_taken_is_named(values, named):
    with pytest.raises(EvidenceError, match=re.escape(named)):
        command(pcrs=[{"bank": "sha256", "values": values}])


@pytest.mark.parametrize(("key", "index"), [("0", 0), ("07", 7), ("7", 7), ("31", 31)])
def test_a_pcr_is_named_by_its_number(key, index):
    found = command(pcrs=[{"bank": "sha256", "values": {key: "A" * 43 + "="}}])
    assert found.pcrs == {HashAlg.SHA256: {index: bytes(32)}}


def test_values_that_others_sent_are_the_same_object_and_what_differs_in_anything_is_not():
    sent = [{"bank": "sha256", "values": {"0": WHOLE, "7": WHOLE}}]
    first = command(pcrs=sent).pcrs
    assert command(pcrs=sent).pcrs is first
    for other in (
        [{"bank": "sha256", "values": {"0": WHOLE, "7": "B" + WHOLE[1:]}}],
        [{"bank": "sha256", "values": {"0": WHOLE, "8": WHOLE}}],
        [{"bank": "sha256", "values": {"0": WHOLE}}],
        [{"bank": "sm3_256", "values": {"0": WHOLE, "7": WHOLE}}],
        [*sent, {"bank": "sm3_256", "values": {}}],
    ):
        assert command(pcrs=other).pcrs != first
    assert first == {HashAlg.SHA256: {0: bytes(32), 7: bytes(32)}}


def test_what_was_refused_is_refused_again():
    for _ in range(2):
        with pytest.raises(EvidenceError, match="PCR 7 has 20 bytes"):
            command(pcrs=[{"bank": "sha256", "values": {"0": WHOLE, "7": SHORT}}])


@pytest.mark.parametrize("key", ["", "32", "-1", "007", "3\n", " 3", "+3", "\u0663", "x", "0x"])
def test_what_is_no_number_of_a_pcr_is_refused(key):
    with pytest.raises(EvidenceError) as caught:
        command(pcrs=[{"bank": "sha256", "values": {key: "A" * 43 + "="}}])
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("bank", ["sha999", "sha256\n", "SHA256", "sha 256"])
def test_a_bank_that_is_not_known_is_refused(bank):
    with pytest.raises(EvidenceError) as caught:
        command(pcrs=[{"bank": bank, "values": {}}])
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_a_log_over_the_limit_is_too_large_even_where_the_body_is_not():
    message = wire.AttestationRequest(
        attester_id="a",
        nonce=bytes(32),
        attest=b"",
        signature=b"",
        pcrs=[],
        boot_log=wire.LogPart(content=bytes(4 * 1024 * 1024 + 1)),
    )
    with pytest.raises(EvidenceError) as caught:
        wire.attest_command(message)
    assert caught.value.reason is Reason.BODY_TOO_LARGE


def test_every_tier_and_lifecycle_has_its_name_on_the_wire():
    names = {field.name: field.type for field in msgspec.structs.fields(wire.Verdict)}
    assert set(get_args(names["status"])) == {tier.label for tier in Tier}
    assert set(get_args(names["lifecycle"])) == {state.value for state in Lifecycle}
    names = {field.name: field.type for field in msgspec.structs.fields(AttesterSummary)}
    assert set(get_args(names["status"])) == {tier.label for tier in Tier}
    assert set(get_args(names["lifecycle"])) == {state.value for state in Lifecycle}


def test_an_ima_list_comes_whole_or_from_an_offset():
    assert command(ima_log={"content": "AAAA"}).ima == ImaPart(content=bytes(3), offset=0)
    assert command(ima_log={"content": "", "offset": 1 << 40}).ima == ImaPart(content=b"", offset=1 << 40)


@pytest.mark.parametrize(
    "part",
    [
        {"offset": 3},
        {"content": "AAAA", "sha256": "A" * 43 + "="},
        {"sha256": "A" * 43 + "="},
        {"content": "AAAA", "offset": 1 << 63},
        {"content": "AAAA", "offset": -1},
    ],
)
def test_any_other_ima_list_is_refused(part):
    with pytest.raises(EvidenceError) as caught:
        command(ima_log=part)
    assert caught.value.reason is Reason.MALFORMED_REQUEST
