"""Options over environment over file; and join tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import KEYS, PREFIX, load
from agent.errors import ConfigError
from agent.join_token import JoinToken
from agent.templates import AkKind
from agent.tpm import find_tcti
from agent.transport import Server

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
PIN = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def test_options_beat_environment_beats_file(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('server = "https://file"\ntcti = "file"\nak = "rsa-2048"\n')
    environ = {PREFIX + "SERVER": "https://environment", PREFIX + "TCTI": "environment"}
    settings = load({"server": "https://option", "tcti": None}, environ, file)
    assert (settings.server, settings.tcti, settings.ak) == ("https://option", "environment", AkKind.RSA_2048)


def test_defaults_need_no_file():
    settings = load({}, {}, None)
    assert settings.state_dir == Path("/var/lib/vtpm-attest")
    assert (settings.ek, settings.ak, settings.encoding) == ("auto", None, "msgpack")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("serve = 'x'", "'serve'"),
        ("server = 1", "'server'"),
        ("server = [", "not TOML"),
        ("ak = 'dsa'", "'dsa'"),
        ("ear_audience = 'two words'", "'two words'"),
        ("ek = 'dsa'", "'dsa'"),
        ("encoding = 'xml'", "'xml'"),
        ("token_file = '/nonexistent'", "/nonexistent"),
        ("ready_wait = 'soon'", "'soon'"),
        ("ready_wait = '-1'", "'-1'"),
        ("ready_wait = 'forever'", "'forever'"),
        ("attested_wait = 'inf'", "'inf'"),
        ("attested_wait = 'nan'", "'nan'"),
        ("attested_on = 'warning'", "'warning'"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, named):
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert named in caught.value.message


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load({}, {}, tmp_path / "none.toml")


def test_a_token_file_is_read_and_a_token_given_directly_wins(tmp_path):
    file = tmp_path / "token"
    file.write_text("vtj1.from-file\n")
    assert load({"token_file": str(file)}, {}, None).token == "vtj1.from-file"
    assert load({"token_file": str(file), "token": "direct"}, {}, None).token == "direct"


def test_every_setting_can_come_from_the_environment(tmp_path):
    checked = {"ek", "ak", "encoding", "token_file", "ready_wait", "attested_on", "attested_wait"}
    given = {PREFIX + key.upper(): "x" for key in KEYS if key not in checked}
    settings = load({}, given, None)
    assert settings.server == settings.token == settings.tcti == "x"
    assert settings.root == settings.ca_file == settings.state_dir == Path("x")


def test_a_join_token_is_taken_apart_and_its_secret_shown_nowhere():
    token = JoinToken.parse(f" vtj1.{SECRET}.{PIN}\n")
    assert token.ca_fingerprint == bytes(range(32))
    assert token.text == f"vtj1.{SECRET}.{PIN}"
    assert SECRET not in repr(token)
    assert JoinToken.parse(f"vtj1.{SECRET}").ca_fingerprint is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vtj1",
        f"vtj2.{SECRET}.{PIN}",
        f"vtj1.{SECRET}.{PIN}.x",
        f"vtj1.{SECRET}.{PIN[:-3]}",
        f"vtj1.{SECRET}.{PIN}=",
        f"vtj1.{SECRET}.ä",
        "vtj1.c2g",
        f"vtj1.{SECRET}.{'/' * 43}",
    ],
)
def test_a_damaged_join_token_is_refused_with_the_place_to_get_one(text):
    with pytest.raises(ConfigError) as caught:
        JoinToken.parse(text)
    assert "attest-verifier tokens create" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://verifier", "https://verifier:443"),
        ("https://Verifier:8443/", "https://verifier:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://v/attest/", "https://v:443/attest"),
    ],
)
def test_addresses(url, shown):
    assert str(Server.parse(url)) == shown


@pytest.mark.parametrize(
    "url", ["", "verifier:8443", "http://v", "https://", "https://v:x", "https://u@v", "https://v?a"]
)
def test_anything_but_https_is_refused(url):
    with pytest.raises(ConfigError):
        Server.parse(url)


def test_the_tpm_is_looked_for_in_the_right_order(tmp_path):
    first, second = tmp_path / "tpmrm0", tmp_path / "tpm0"
    second.touch()
    devices = (str(first), str(second))
    assert find_tcti(None, {}, devices) == f"device:{second}"
    first.touch()
    assert find_tcti(None, {}, devices) == f"device:{first}"
    assert find_tcti(None, {"TPM2TOOLS_TCTI": "swtpm:port=1"}, devices) == "swtpm:port=1"
    assert find_tcti(None, {"TPM2TOOLS_TCTI": "a", "VTPM_ATTEST_TCTI": "b"}, devices) == "b"
    assert find_tcti("mssim:port=3", {"VTPM_ATTEST_TCTI": "b"}, devices) == "mssim:port=3"


@pytest.mark.parametrize("name", ["vtpm-attest.join-token", "join-token"])
def test_the_join_token_may_be_a_credential_of_the_service(tmp_path, name):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load({}, environ, None).token is None
    (tmp_path / name).write_text("sealed\n")
    assert load({}, environ, None).token == "sealed"
    assert load({"token": "given"}, environ, None).token == "given"


def test_how_a_boot_waits_is_told_and_has_defaults(tmp_path):
    settings = load({}, {}, None)
    assert (settings.ready_wait, settings.attested_on, settings.attested_wait) == (30.0, "verdict", 90.0)
    assert settings.runtime_dir is None
    environ = {
        "RUNTIME_DIRECTORY": "/run/one:/run/two",
        PREFIX + "ATTESTED_WAIT": "forever",
        PREFIX + "ATTESTED_ON": "affirming",
    }
    settings = load({"ready_wait": "0"}, environ, None)
    assert (settings.ready_wait, settings.attested_on, settings.attested_wait) == (
        0,
        "affirming",
        float("inf"),
    )
    assert settings.runtime_dir == Path("/run/one")
