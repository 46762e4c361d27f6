"""What is remembered survives crashes, stays private, and its damage is named."""

from __future__ import annotations

import os
import stat

import pytest

from agent.errors import StateError
from agent.state import LastVerdict, State, StateFile

FULL = State(
    server="https://v:8443",
    attester_id="a1",
    ca_pem="pem",
    ak_kind="rsa-2048",
    ak_generation=3,
    ak_name="000b",
    ek_slot="ecc-p256",
    last_verdict=LastVerdict(status="warning", sequence=4, judged_at="t", valid_until="u"),
)


def test_what_is_saved_is_loaded_and_nothing_is_a_fresh_start(tmp_path):
    store = StateFile(tmp_path / "new" / "folder")
    assert store.load() == State()
    store.save(FULL)
    assert store.load() == FULL


def test_only_the_owner_can_read_it(tmp_path):
    store = StateFile(tmp_path / "state")
    old = os.umask(0)
    try:
        store.save(FULL)
    finally:
        os.umask(old)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_crash_while_writing_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    store = StateFile(tmp_path)
    store.save(FULL)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateError, match="No space left"):
        store.save(State(attester_id="other"))
    assert store.load() == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["agent.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version":2}', b'{"ak_generation":"one"}', b"\xff\xfe", b"[]"]
)
def test_a_damaged_file_is_named_with_a_way_out(tmp_path, content):
    store = StateFile(tmp_path)
    store.path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        store.load()
    assert str(store.path) in caught.value.message
    assert "enrol again" in caught.value.remedy


def test_a_newer_agent_s_fields_do_not_matter(tmp_path):
    store = StateFile(tmp_path)
    store.path.write_bytes(b'{"version":1,"attester_id":"a1","invented_later":[1]}')
    assert store.load().attester_id == "a1"


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: only root can make files for others")
def test_what_root_writes_into_the_service_s_folder_is_the_service_s(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 61234, 61234)
    store = StateFile(folder)
    store.save(FULL)
    assert (store.path.stat().st_uid, store.path.stat().st_gid) == (61234, 61234)
    store.save(FULL)
    assert store.path.stat().st_uid == 61234
