"""When a certificate is fetched anew, and that its files are whole whenever a process dies."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from verifier import acme_files
from verifier.acme_files import CertificateFiles
from verifier.errors import VerifierFault
from verifier.keys.tls import own_tls

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
def files(tmp_path):
    return CertificateFiles(tmp_path / "live.pem", tmp_path / "live.key")


def issued(folder, *names, at=NOW):
    """Chain and key of 90 days."""
    made = own_tls(folder / f"{len(list(folder.iterdir()))}", names or ["a.test"], at)
    return made.certificate.read_bytes(), made.key.read_bytes()


@pytest.mark.parametrize(
    ("days", "due"), [(0, ""), (59.9, ""), (60.1, "two thirds"), (89, "two thirds"), (100, "two thirds")]
)
def test_it_is_time_at_two_thirds_of_the_life(tmp_path, files, days, due):
    files.put(*issued(tmp_path))
    reason, turn = files.due(["a.test"], NOW + timedelta(days=days))
    assert reason.startswith(due)
    assert bool(reason) is bool(due)
    assert abs(turn - (NOW + timedelta(days=60))) < timedelta(minutes=10)


def test_it_is_time_when_a_name_is_missing_or_the_key_does_not_fit(tmp_path, files):
    assert files.due(["a.test"], NOW)[0] == "there is none"
    files.put(*issued(tmp_path, "a.test", "b.test"))
    assert files.due(["b.test"], NOW)[0] == ""
    assert files.due(["a.test", "c.test", "b.test"], NOW)[0] == "c.test is not in it"
    files.key.write_bytes(issued(tmp_path)[1])
    assert files.due(["a.test"], NOW)[0] == "the key does not fit the certificate"
    files.key.write_bytes(b"nothing")
    assert files.due(["a.test"], NOW)[0] == "the key does not fit the certificate"


def test_a_certificate_for_another_key_is_never_put(tmp_path, files):
    files.put(*issued(tmp_path))
    before = files.certificate.read_bytes(), files.key.read_bytes()
    with pytest.raises(VerifierFault, match="another key"):
        files.put(issued(tmp_path)[0], issued(tmp_path)[1])
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.glob("live*")) == ["live.key", "live.pem"]
    assert files.key.stat().st_mode & 0o777 == 0o600


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", ["key written", "certificate written", "before the name"])
def test_whoever_dies_on_the_way_leaves_a_pair_that_fits(tmp_path, files, monkeypatch, step):
    old, new = issued(tmp_path), issued(tmp_path)
    files.put(*old)
    write, rename = acme_files.write_file, Path.replace

    def dying_write(path, *more):
        write(path, *more)
        if path.name.endswith(".next") == (step == "key written"):
            raise Killed

    def dying_rename(path, target):
        if step == "before the name" and path.name.endswith(".next"):
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        if step == "before the name":
            patched.setattr(Path, "replace", dying_rename)
        else:
            patched.setattr(acme_files, "write_file", dying_write)
        with pytest.raises(Killed):
            files.put(*new)
    again = CertificateFiles(files.certificate, files.key)
    again.recover()
    found = again.certificate.read_bytes(), again.key.read_bytes()
    assert found == (old if step == "key written" else new)
    assert again.due(["a.test"], NOW)[0] == ""
    assert not list(tmp_path.glob("*.next"))


def test_certificate_and_key_need_not_lie_in_one_folder(tmp_path):
    files = CertificateFiles(tmp_path / "live.pem", tmp_path / "private" / "live.key")
    (tmp_path / "private").mkdir()
    files.put(*issued(tmp_path))
    shutil.rmtree(tmp_path / "private")
    with pytest.raises(VerifierFault, match="cannot write"):
        files.put(*issued(tmp_path))
