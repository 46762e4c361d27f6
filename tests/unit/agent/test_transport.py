"""HTTPS: whom the agent trusts, what it says when it cannot, and connections that go away."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest

from agent.connection import connect
from agent.errors import (
    ConfigError,
    PinMismatchError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    UntrustedError,
)
from agent.join_token import JoinToken
from agent.state import StateFile
from agent.transport import (
    MAX_REPLY,
    Server,
    Transport,
    certificates_of,
    fetch_pinned_ca,
    fingerprint,
    trusting,
)
from agent.wire.codec import JSON, MSGPACK
from agent.wire.messages import Challenge, ChallengeRequest
from tests.fake_verifier import ATTESTER, FakeVerifier, Refusal, make_ca

CHALLENGES = "/v1/challenges"
ASK = ChallengeRequest(attester_id=ATTESTER)
CA = make_ca()


@pytest.fixture
def verifier(tmp_path):
    with FakeVerifier(tmp_path, CA) as running:
        yield running


@pytest.fixture
def transport(verifier):
    with Transport(Server.parse(verifier.url), trusting(verifier.ca.ca_pem), connect=2, answer=2) as opened:
        yield opened


def ask(transport: Transport, media_type: str = JSON) -> Challenge:
    return transport.post(CHALLENGES, ASK, Challenge, media_type)


# --- trust


def test_the_ca_is_fetched_by_its_fingerprint_and_remembered(verifier, tmp_path):
    store, token = StateFile(tmp_path / "state"), JoinToken.parse(verifier.token)
    with connect(verifier.url, token, None, store) as first:
        assert ask(first).nonce in verifier.nonces
    assert store.load().ca_pem == verifier.ca.ca_pem
    with connect(None, None, None, store) as second:
        ask(second)


def test_another_ca_than_the_token_s_is_refused_before_anything_is_sent(verifier, tmp_path):
    other = make_ca()
    token = JoinToken("vtj1.x.y", other.fingerprint)
    with pytest.raises(PinMismatchError) as caught:
        connect(verifier.url, token, None, StateFile(tmp_path / "state"))
    assert verifier.ca.fingerprint.hex() in caught.value.message
    assert other.fingerprint.hex() in caught.value.message
    assert verifier.seen == []
    assert not (tmp_path / "state").exists()


def test_of_several_certificates_only_the_pinned_one_is_kept(verifier):
    mine = verifier.ca.ca_pem
    verifier.ca = type(CA)(make_ca().ca_pem + mine, verifier.ca.server_pem)
    assert fingerprint(fetch_pinned_ca(Server.parse(verifier.url), CA.fingerprint)) == CA.fingerprint


@pytest.mark.parametrize(
    "content", ["", "<html>", "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"]
)
def test_a_server_without_a_ca_is_a_mismatch(verifier, content):
    verifier.ca = type(CA)(content, verifier.ca.server_pem)
    with pytest.raises(PinMismatchError, match="no CA"):
        fetch_pinned_ca(Server.parse(verifier.url), CA.fingerprint)


def test_a_server_of_another_ca_is_not_talked_to(verifier, tmp_path):
    with (
        Transport(Server.parse(verifier.url), trusting(make_ca().ca_pem)) as stranger,
        pytest.raises(UntrustedError) as caught,
    ):
        ask(stranger)
    assert verifier.url in caught.value.message
    assert "attest-agent status" in caught.value.remedy
    assert verifier.seen == []


def test_a_certificate_for_another_host_is_refused(tmp_path):
    with (
        FakeVerifier(tmp_path, make_ca(host="elsewhere.example")) as verifier,
        Transport(Server.parse(verifier.url), trusting(verifier.ca.ca_pem)) as transport,
        pytest.raises(UntrustedError, match=r"not valid for '127\.0\.0\.1'"),
    ):
        ask(transport)


def test_a_ca_file_serves_instead_of_a_token(verifier, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text(verifier.ca.ca_pem)
    store = StateFile(tmp_path / "state")
    with connect(verifier.url, None, file, store) as transport:
        ask(transport)
    assert store.load().ca_pem == verifier.ca.ca_pem


def test_a_ca_file_that_contradicts_the_token_is_refused(verifier, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text(make_ca().ca_pem)
    with pytest.raises(PinMismatchError, match="not the CA the join token names"):
        connect(verifier.url, JoinToken.parse(verifier.token), file, StateFile(tmp_path))


def test_a_new_token_replaces_a_remembered_ca(verifier, tmp_path):
    """The verifier was set up anew: the operator's new token says which CA is right now."""
    store = StateFile(tmp_path / "state")
    store.save(type(store.load())(ca_pem=make_ca().ca_pem, server="https://old:1"))
    with connect(verifier.url, JoinToken.parse(verifier.token), None, store) as transport:
        ask(transport)
    assert store.load().ca_pem == verifier.ca.ca_pem


@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_an_unusable_ca_file_is_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        connect("https://v", None, file, StateFile(tmp_path))


def test_without_token_or_file_there_is_no_trust_on_first_use(verifier, tmp_path):
    for token in (None, JoinToken.parse("vtj1." + "A" * 43)):
        with pytest.raises(ConfigError, match="which CA"):
            connect(verifier.url, token, None, StateFile(tmp_path / "s"))
    assert verifier.connections == 0


def test_a_broken_pem_is_a_configuration_error():
    with pytest.raises(ConfigError):
        trusting("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert certificates_of("-----BEGIN CERTIFICATE-----\ncut off") == []


# --- one connection


@pytest.mark.parametrize("media_type", [JSON, MSGPACK])
def test_requests_share_one_connection(verifier, transport, media_type):
    for _ in range(3):
        assert len(ask(transport, media_type).nonce) == 32
    assert verifier.connections == 1


def test_a_connection_closed_while_idle_is_replaced_without_a_word(verifier, transport):
    ask(transport)
    verifier.stop()
    verifier.start()
    ask(transport)
    assert verifier.connections == 2


def test_a_fresh_connection_that_is_dropped_is_an_error_not_a_loop(verifier, transport):
    verifier.refuse(CHALLENGES, Refusal(0, close=True))
    with pytest.raises(UnreachableError):
        ask(transport)
    ask(transport)
    assert len(verifier.seen) == 2


# --- what went wrong


def test_a_refusal_carries_the_verifier_s_own_words(verifier, transport):
    verifier.refuse(CHALLENGES, Refusal(403, "attester-revoked"))
    with pytest.raises(RefusedError) as caught:
        ask(transport)
    error = caught.value
    assert (error.code, error.remedy, error.transient) == ("attester-revoked", "ask the test", False)
    assert "because the test says so" in error.message


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_busy_and_broken_verifiers_are_worth_another_try_after_what_they_ask_for(verifier, transport, status):
    verifier.refuse(CHALLENGES, Refusal(status, "verifier-unavailable", {"Retry-After": "17"}))
    with pytest.raises(RefusedError) as caught:
        ask(transport)
    assert (caught.value.transient, caught.value.retry_after) == (True, 17.0)


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9", "٣", ""])
def test_an_odd_retry_after_is_ignored(verifier, transport, value):
    headers = {"Retry-After": value.encode().decode("latin-1")}
    verifier.refuse(CHALLENGES, Refusal(503, "verifier-unavailable", headers))
    with pytest.raises(RefusedError) as caught:
        ask(transport)
    assert caught.value.retry_after is None


def test_a_proxy_s_error_page_is_not_a_verdict(verifier, transport):
    verifier.refuse(CHALLENGES, Refusal(502, body=b"<html>Bad Gateway", content_type="text/html"))
    with pytest.raises(UnreachableError, match="HTTP 502 without an explanation"):
        ask(transport)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>welcome", "text/html"),
        (b"{}", JSON),
        (b"not json", JSON),
        (b"\xc1", MSGPACK),
        (b'{"nonce":"AAAA","expires_at":"","selection":[]}', JSON),
    ],
)
def test_another_service_at_that_address_is_named_so(verifier, transport, body, content_type):
    verifier.refuse(CHALLENGES, Refusal(200, body=body, content_type=content_type))
    with pytest.raises(ProtocolError, match="something else than this agent expects"):
        ask(transport)


def test_a_reply_without_end_is_cut_off(verifier, transport):
    verifier.refuse(CHALLENGES, Refusal(200, body=bytes(MAX_REPLY + 1), content_type=JSON))
    with pytest.raises(ProtocolError, match="more than"):
        ask(transport)
    ask(transport)


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        UnreachableError, match=rf"https://127\.0\.0\.1:{port} is unreachable: connection refused"
    ):
        ask(Transport(Server("127.0.0.1", port), trusting(CA.ca_pem)))


def test_a_name_that_does_not_resolve():
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        ask(Transport(Server("verifier.invalid", 443), trusting(CA.ca_pem)))


@contextmanager
def listener(answer: bytes | None):
    """A TCP server that says nothing (None) or something that is no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            connection, _ = server.accept()
            held.append(connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Server("127.0.0.1", server.getsockname()[1])
        thread.join(5)
        for connection in held:
            connection.close()


def test_a_silent_server_is_given_up():
    with listener(None) as server, pytest.raises(UnreachableError, match="no answer in time"):
        ask(Transport(server, trusting(CA.ca_pem), connect=0.2))


def test_a_server_without_tls_is_unreachable_not_a_crash():
    with listener(b"SSH-2.0-OpenSSH\r\n") as server, pytest.raises(UnreachableError):
        ask(Transport(server, trusting(CA.ca_pem), connect=2))
