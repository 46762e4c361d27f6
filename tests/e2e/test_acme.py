"""The server's certificate from a real ACME server, over http-01; refusals leave everything as it was."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from tests.client_certificates import ClientCa
from tests.pebble import EAB_KEY, KID, pebble
from tests.unit.keys.test_keys import handshake
from verifier.acme_renewal import renew
from verifier.cli.attest_verifier import main
from verifier.errors import VerifierFault
from verifier.keys.tls import TlsFiles
from verifier.keys.tls_live import LiveTls
from verifier.settings import SettingsError, load_settings

NAMES = ["verifier.example", "attest.example"]


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    with pebble(tmp_path_factory.mktemp("ca")) as running:
        yield running


def config(folder, ca, *more, names=NAMES, port=None):
    lines = [
        f'state_dir = "{folder / "state"}"',
        'public_url = "https://verifier.example:8443"',
        "[tls]",
        f'certificate = "{folder / "server.pem"}"',
        f'key = "{folder / "server.key"}"',
        "[acme]",
        f'directory = "{ca.directory}"',
        f'ca = "{ca.ca}"',
        f"names = {json.dumps(names)}",
        f"port = {port or ca.port}",
        *more,
    ]
    path = folder / "verifier.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(folder, ca, *more, **options):
    return load_settings(config(folder, ca, "terms_agreed = true", *more, **options), {})


def serial(folder):
    return x509.load_pem_x509_certificate((folder / "server.pem").read_bytes()).serial_number


def test_a_certificate_is_fetched_kept_and_renewed_under_a_listener_that_stays_open(tmp_path, ca):
    now, own = datetime.now(UTC), settings(tmp_path, ca, 'contact = ["ops@verifier.example"]')
    done = renew(own, now)
    assert (done.reason, set(done.names)) == ("there is none", set(NAMES))
    account, first = (tmp_path / "state/acme/account.key").read_bytes(), serial(tmp_path)
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", None)
    live = LiveTls(files, None)
    browser = ssl.create_default_context(cadata=ca.root().decode())
    assert handshake(files.context(), browser, NAMES[1])
    assert not handshake(files.context(), browser, "other.example")

    # As a process leaves it that died between the two files: no reason to ask the CA again.
    (tmp_path / "server.key").rename(tmp_path / "server.key.next")
    (tmp_path / "server.key").write_bytes(b"of the certificate before")
    kept = renew(own, now + timedelta(days=1))
    assert (kept.reason, serial(tmp_path), live.refresh(files)) == ("", first, False)
    assert kept.due < kept.ends
    later = renew(own, done.due + timedelta(seconds=1))
    assert later.reason == "two thirds of its life are over"
    assert serial(tmp_path) != first
    assert live.refresh(files)
    assert (tmp_path / "state/acme/account.key").read_bytes() == account
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state/acme/account.key").stat().st_mode & 0o777 == 0o600


def test_the_command_says_what_it_did_and_when_the_next_is_due(tmp_path, ca, capsys, monkeypatch):
    path = config(tmp_path, ca, "terms_agreed = true", names=[])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["attest-verifier", "acme", "--config", str(path), *arguments])
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr()
        return capsys.readouterr()

    made = json.loads(run("--json").out)
    assert (made["renewed"], made["names"]) == (True, ["verifier.example"]), "the host of public_url"
    assert f"nothing to do until {made['due']}" in run().err
    forced = run("--force").err
    assert "new certificate for verifier.example" in forced
    assert "it was asked for" in forced


def test_an_account_may_have_to_be_bound_to_another(tmp_path):
    with pebble(tmp_path, binding=True) as ca:
        with pytest.raises(VerifierFault, match=r"acme\.eab_kid"):
            renew(settings(tmp_path, ca), datetime.now(UTC))
        (tmp_path / "eab").write_text("!")
        bound = settings(tmp_path, ca, f'eab_kid = "{KID}"', f'eab_key_file = "{tmp_path / "eab"}"')
        with pytest.raises(VerifierFault, match="external account binding"):
            renew(bound, datetime.now(UTC))
        (tmp_path / "eab").write_text(EAB_KEY + "\n")
        assert renew(bound, datetime.now(UTC)).reason == "there is none"


def nothing_happened(folder):
    return not (folder / "server.pem").exists() and not list(folder.glob("*.next"))


def test_terms_are_agreed_to_by_nobody_but_the_operator(tmp_path, ca):
    with pytest.raises(VerifierFault, match="terms of service: read data:text/plain,Do%20what%20thou%20wilt"):
        renew(load_settings(config(tmp_path, ca), {}), datetime.now(UTC))
    assert nothing_happened(tmp_path)


def test_a_ca_that_does_not_find_the_answer_says_so_and_nothing_changes(tmp_path, ca):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(VerifierFault, match=r"verifier\.example.*onnection refused"):
        renew(settings(tmp_path, ca, names=NAMES[:1], port=port), datetime.now(UTC))
    assert nothing_happened(tmp_path)


def test_a_port_that_is_taken_and_a_ca_that_is_not_trusted_are_named(tmp_path, ca):
    with socket.create_server(("127.0.0.1", ca.port)), pytest.raises(VerifierFault, match=f"port {ca.port}"):
        renew(settings(tmp_path, ca, 'host = "127.0.0.1"'), datetime.now(UTC))
    text = config(tmp_path, ca, "terms_agreed = true").read_text()
    stranger = ClientCa(tmp_path / "stranger").path
    (tmp_path / "verifier.toml").write_text(text.replace(str(ca.ca), str(stranger)))
    with pytest.raises(VerifierFault, match=r"cannot be reached, or its certificate.*acme\.ca"):
        renew(load_settings(tmp_path / "verifier.toml", {}), datetime.now(UTC))
    assert nothing_happened(tmp_path)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["directory = 'http://ca.test/dir'"], "https://"),
        (["names = ['a.test']"], "directory is not set"),
        (["directory = 'https://ca.test/dir'", "names = ['*.a.test']"], "wildcard"),
        (["directory = 'https://ca.test/dir'", "contact = ['nobody']"], "e-mail"),
        (["directory = 'https://ca.test/dir'", "eab_kid = 'x'"], "go together"),
    ],
    ids=["http", "alone", "wildcard", "contact", "binding"],
)
def test_settings_that_could_not_work(tmp_path, lines, says):
    (tmp_path / "verifier.toml").write_text("\n".join(["[acme]", *lines]))
    with pytest.raises(SettingsError, match=rf"acme\..*{says}"):
        load_settings(tmp_path / "verifier.toml", {})


def test_it_says_what_else_has_to_be_set(tmp_path):
    own = load_settings(None, {"VTPM_ATTEST_VERIFIER_STATE_DIR": str(tmp_path)})
    with pytest.raises(VerifierFault, match=r"acme\.directory is not set"):
        renew(own, datetime.now(UTC))
    own = load_settings(None, {"VTPM_ATTEST_VERIFIER_ACME_DIRECTORY": "https://ca.test/dir"})
    with pytest.raises(VerifierFault, match=r"tls\.certificate and tls\.key"):
        renew(own, datetime.now(UTC))
