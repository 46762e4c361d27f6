"""`attest-agent unseal` beside what the end-to-end tests have: what is left behind when it fails, and in memory."""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys

import pytest

from agent import unseal as module
from agent.commands import Clockwork, Output
from agent.config import load
from agent.errors import ConfigError, SourceError
from agent.release import CryptoMissingError, begin
from agent.session import Done
from agent.unseal import unseal, write_private

KEY = b"correct horse"


@pytest.fixture
def given(monkeypatch):
    """Buffers that a session was done with; the session itself is not of interest here."""
    buffers: list[bytearray] = []

    def run(_session, agent, *_):
        agent.secret, agent.revision = bytearray(KEY), 3
        buffers.append(agent.secret)
        return Done("att-1", None)

    monkeypatch.setattr(module, "run", run)
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda *arguments: limits.append(arguments))
    yield buffers
    assert limits == [(resource.RLIMIT_CORE, (0, 0))]


def ask(tmp_path, out=None):
    settings = load({"state_dir": str(tmp_path / "state")}, {}, None)
    clockwork = Clockwork(sleep=lambda _: None, random=lambda: 0.5)
    return unseal(settings, "disk", out, patience=0.0, output=Output(as_json=False), clockwork=clockwork)


def test_the_buffer_is_overwritten_once_the_secret_is_written(given, tmp_path, capfdbinary):
    assert ask(tmp_path) == 0
    assert capfdbinary.readouterr().out == KEY
    assert given == [bytearray(len(KEY))]
    assert list(tmp_path.iterdir()) == []


def test_it_is_overwritten_too_where_it_cannot_be_written(given, tmp_path):
    with pytest.raises(SourceError, match="absent"):
        ask(tmp_path, tmp_path / "absent" / "key")
    assert given == [bytearray(len(KEY))]


def test_what_cannot_be_written_whole_is_removed(monkeypatch, tmp_path):
    path, write = tmp_path / "key", os.write

    def full(descriptor, content):
        if path.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:4])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SourceError, match="No space left"):
        write_private(path, bytearray(KEY))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_private_whatever_the_umask_and_takes_the_place_of_a_link(tmp_path):
    path, other = tmp_path / "key", tmp_path / "other"
    other.write_bytes(b"precious")
    os.link(other, path)
    before = os.umask(0)
    try:
        write_private(path, bytearray(KEY))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (path.read_bytes(), other.read_bytes()) == (KEY, b"precious")


def test_without_the_cryptography_package_it_says_what_to_install(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "cryptography":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(CryptoMissingError) as raised:
        begin("disk")
    assert "pip install" in raised.value.remedy
    assert raised.value.exit_code == ConfigError.exit_code
