"""Keys of secrets at rest: which one encrypts, which opens, and what is said of one that cannot be used."""

from __future__ import annotations

import os

import pytest

from verifier.errors import StoredDataDamaged, VerifierFault
from verifier.keys.secret_box import open_keys

ABOUT = b"default\0disk\0001"


@pytest.fixture
def files(tmp_path):
    made = [tmp_path / f"key-{number}" for number in range(2)]
    for path in made:
        path.write_bytes(os.urandom(32))
    return made


def test_the_first_encrypts_and_each_opens_what_it_encrypted(tmp_path, files):
    own = open_keys([], tmp_path)
    old = open_keys(files[:1], tmp_path)
    new = open_keys([files[1], files[0]], tmp_path)
    assert len({own.key_id, old.key_id, new.key_id}) == 3
    for ring in (own, old, new):
        sealed = ring.seal(b"secret", ABOUT)
        assert b"secret" not in sealed
        assert new.open(ring.key_id, sealed, ABOUT) == b"secret"
    with pytest.raises(VerifierFault, match=f"encrypted with key {new.key_id}.*secrets.keys"):
        old.open(new.key_id, sealed, ABOUT)


def test_it_opens_for_what_it_was_sealed_for_alone(tmp_path):
    ring = open_keys([], tmp_path)
    sealed = ring.seal(b"secret", ABOUT)
    for wrong, about in ((sealed, ABOUT + b"0"), (sealed[:-1], ABOUT), (b"", ABOUT), (bytes(40), ABOUT)):
        with pytest.raises(StoredDataDamaged):
            ring.open(ring.key_id, wrong, about)
    assert ring.seal(b"secret", ABOUT) != sealed


def test_the_own_key_follows_from_the_service_secret(tmp_path):
    first = open_keys([], tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "service.secret").write_bytes((tmp_path / "a" / "service.secret").read_bytes())
    assert open_keys([], tmp_path / "b").key_id == first.key_id
    assert open_keys([], tmp_path / "c").key_id != first.key_id


def test_a_file_that_is_no_key_stops_the_start_by_its_name(tmp_path, files):
    short = tmp_path / "short"
    short.write_bytes(bytes(31))
    for wrong in (short, tmp_path / "absent", tmp_path):
        with pytest.raises(VerifierFault, match=str(wrong)):
            open_keys([files[0], wrong], tmp_path)
