"""Settings: what is not understood stops the service and says where."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import ROOT
from verifier.durations import Duration
from verifier.settings import (
    ENVIRONMENT_PREFIX,
    Retention,
    Settings,
    SettingsError,
    known_variables,
    load_settings,
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "verifier.toml"
    path.write_text(text)
    return path


def test_defaults_ask_for_a_certificate_and_a_token():
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.enrollment.methods == ("certificate", "token")
    assert settings.base_url == "https://127.0.0.1:8443"
    assert settings.database_url.startswith("sqlite")


def test_a_file_is_read_and_the_environment_goes_over_it(tmp_path):
    path = written(
        tmp_path,
        """
        state_dir = "/srv/state"
        public_url = "https://verifier.example/"
        trust_anchors = ["/a", "/b"]
        [listen]
        port = 9000
        [attestation]
        interval = "90s"
        """,
    )
    environ = {
        "VTPM_ATTEST_VERIFIER_CONFIG": str(path),
        "VTPM_ATTEST_VERIFIER_LISTEN_PORT": "9443",
        "VTPM_ATTEST_VERIFIER_TLS_HOSTNAMES": "one.example, two.example",
        "VTPM_ATTEST_VERIFIER_ENROLLMENT_LIFETIME": "1h",
        "VTPM_ATTEST_SERVER": "the agent's, not ours",
        "PATH": "/bin",
    }
    settings = load_settings(None, environ)
    assert settings.state_dir == Path("/srv/state")
    assert settings.base_url == "https://verifier.example"
    assert settings.listen.port == 9443
    assert settings.trust_anchors == (Path("/a"), Path("/b"))
    assert settings.tls.hostnames == ("one.example", "two.example")
    assert settings.attestation.interval == timedelta(seconds=90)
    assert settings.enrollment.lifetime == timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("porrt = 1", "porrt"),
        ("[listen]\nporrt = 1", "$.listen"),
        ("[listen]\nport = 70000", "$.listen.port"),
        ("[listen]\nproxies = ['proxy.example']", "listen.proxies"),
        ("[listen]\nproxy_protocol = true", "listen.proxy_protocol"),
        ("[attestation]\ninterval = '5'", "90s, 5m, 24h or 30d"),
        ("[attestation]\ninterval = 5", "duration"),
        ("[enrollment]\nmethods = ['trust-me']", "'trust-me' is not one of"),
        ("public_url = 'verifier.example'", "public_url"),
        ("[tls]\nkey = '/k'", "go together"),
        ("state_dir = 7", "state_dir"),
        ("a = = b", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("methods", ["token", ""])
def test_rule_3_no_setting_trusts_an_ek_without_naming_how(methods):
    with pytest.raises(SettingsError, match="names no way to trust an EK"):
        load_settings(None, {"VTPM_ATTEST_VERIFIER_ENROLLMENT_METHODS": methods})


def test_a_misspelt_variable_is_refused():
    with pytest.raises(SettingsError, match="VTPM_ATTEST_VERIFIER_LISTEN_PROT"):
        load_settings(None, {"VTPM_ATTEST_VERIFIER_LISTEN_PROT": "1"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", {})


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "5w", "1h30m", "9999999999s"])
def test_durations_are_one_number_and_one_unit(text):
    with pytest.raises(ValueError, match="not a duration"):
        Duration.parse(text)


def test_evidence_is_kept_for_a_time_or_no_longer_than_need_be():
    for text, keep in (("latest", 0), ("7d", 7), ("48h", 2)):
        settings = load_settings(None, {f"{ENVIRONMENT_PREFIX}EVIDENCE_KEEP": text})
        assert settings.evidence.keep == timedelta(days=keep)
    with pytest.raises(SettingsError, match="neither a duration such as 30d nor `latest`"):
        load_settings(None, {f"{ENVIRONMENT_PREFIX}EVIDENCE_KEEP": "forever"})


def test_the_page_names_every_setting_with_its_default():
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", page, re.MULTILINE))
    documented = {f"{ENVIRONMENT_PREFIX}{key.replace('.', '_')}".upper() for key in rows}
    assert documented == set(known_variables())
    for key, text in rows.items():
        value = Settings()
        for part in key.split("."):
            value = getattr(value, part)
        shown = text.strip("`")
        if isinstance(value, Duration | Retention):
            assert type(value).parse(shown) == value
        elif isinstance(value, bool):
            assert shown == str(value).lower()
        elif value:
            assert shown == str(list(value) if isinstance(value, tuple) else value).replace("'", '"')


def test_the_example_of_the_page_is_read(tmp_path):
    example = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "settings.md").read_text(), re.DOTALL)[1]
    assert load_settings(written(tmp_path, example), {}).default_policy == "uki-strict"
