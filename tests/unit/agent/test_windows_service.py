"""The Windows service on its own thread: what the Service Control Manager asks of it, with stand-ins for pywin32."""

from __future__ import annotations

import threading

import pytest
import tree_sitter
import tree_sitter_powershell

from agent import commands, config
from agent.errors import ConfigError
from agent.windows.service import service_class
from tests.conftest import ROOT
from tests.fake_tpm import FakeTpm
from tests.fake_verifier import FakeVerifier

STOP_PENDING = 3


class Framework:
    """pywin32's ServiceFramework, as far as the agent's service uses it."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.reported = []

    def ReportServiceStatus(self, status, **_):  # noqa: N802 - pywin32's name
        self.reported.append(status)


class Events:
    """The event log."""

    def __init__(self):
        self.infos, self.errors = [], []

    def LogInfoMsg(self, text):  # noqa: N802 - pywin32's name
        self.infos.append(text)

    def LogErrorMsg(self, text):  # noqa: N802
        self.errors.append(text)


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def service(events):
    return service_class(Framework, events, STOP_PENDING)([])


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Writes the settings file where the service looks for it."""
    file = tmp_path / "agent.toml"
    monkeypatch.setattr(config, "DEFAULT_FILE", file)

    def write(**values: str) -> None:
        file.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))

    return write


def test_it_attests_until_the_manager_stops_it(service, events, settings, tmp_path, monkeypatch):
    tpm = FakeTpm()
    monkeypatch.setattr(commands, "open_tpm", lambda _settings: tpm)
    with FakeVerifier(tmp_path) as verifier:
        settings(
            server=verifier.url, token=verifier.token, state_dir=str(tmp_path / "state"), root=str(tmp_path)
        )
        running = threading.Thread(target=service.SvcDoRun)
        running.start()
        assert verifier.attested.wait(15)
        assert running.is_alive(), "it waits for the next attestation"
        service.SvcStop()
        running.join(5)
        assert not running.is_alive()
    assert service.reported == [STOP_PENDING]
    assert any("affirming" in text for text in events.infos)
    assert events.errors == []
    assert tpm.loaded == 0


def test_a_shutdown_of_windows_stops_it_too(service):
    service.SvcShutdown()
    assert service.reported == [STOP_PENDING]


def test_what_cannot_be_waited_out_is_in_the_event_log_and_ends_the_service_as_failed(
    service, events, settings
):
    settings(server="https://127.0.0.1:1", ek="none-such")
    with pytest.raises(ConfigError):
        service.SvcDoRun()
    (text,) = events.errors
    assert "none-such" in text
    assert "What to do:" in text


def test_the_installer_is_powershell():
    """PowerShell is not to be had here: its grammar at least holds."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    script = (ROOT / "agent" / "windows" / "install.ps1").read_bytes()
    assert not parser.parse(script).root_node.has_error
    assert parser.parse(script.replace(b"if ($Uninstall) {", b"if ($Uninstall {")).root_node.has_error
