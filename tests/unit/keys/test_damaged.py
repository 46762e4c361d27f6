"""Half a file, an empty one, one that is gone: named with what to do next, and no key takes the place of another without a word."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from verifier.errors import VerifierFault
from verifier.keys import log_keys
from verifier.keys.ak_ca import AkCa
from verifier.keys.endings import OwnEndings
from verifier.keys.files import exposed
from verifier.keys.fixed_signer import open_fixed
from verifier.keys.log_keys import FileLogKeys
from verifier.keys.secret import nonce_key
from verifier.keys.signer import FileSigner, rotate
from verifier.keys.tls import TlsFiles, own_tls

NOW = datetime.now(UTC)


def start(state: Path, now: datetime = NOW) -> None:
    """All that a service opens of its own."""
    own_tls(state / "tls", ["localhost"], now).context()
    nonce_key(state)
    signer = FileSigner(state / "keys", lambda: now)
    asyncio.run(signer.sign_jwt({"sub": "a"}))
    AkCa(state / "ak-ca", lambda: now).authorities()
    FileLogKeys(state / "log", "test/log", lambda: now).signers()


def renew(directory: Path, now: datetime) -> None:
    """What a CA of ours has signed."""
    if directory.name == "tls":
        own_tls(directory, ["localhost"], now)
    else:
        AkCa(directory, lambda: now)


def contents(state: Path) -> dict[Path, bytes]:
    return {path.relative_to(state): path.read_bytes() for path in state.rglob("*") if path.is_file()}


def found(state: Path, pattern: str) -> Path:
    (only,) = state.glob(pattern)
    return only


@pytest.fixture
def state(tmp_path):
    start(tmp_path / "state")
    return tmp_path / "state"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}
READ_AT_START = (
    "service.secret", "tls/ca.pem", "tls/server.pem", "tls/server.key", "keys/keys.json", "keys/ear-*.pem",
    "ak-ca/root.pem", "ak-ca/issuing.pem", "ak-ca/issuing.key", "log/keys.json", "log/log-*.pem",
)  # fmt: skip
NEEDED_LATER = {"tls/ca.key": "keys.ca-unusable", "ak-ca/root.key": "keys.ca-unusable"}
NEVER_MADE_ANEW = ("tls/ca.pem", "keys/ear-*.pem", "ak-ca/root.pem", "log/log-*.pem")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READ_AT_START)
def test_a_start_ends_with_the_name_of_a_damaged_file_and_the_next_step(state, name, damage):
    path = found(state, name)
    DAMAGES[damage](path)
    before = contents(state)
    with pytest.raises(VerifierFault) as caught:
        start(state)
    assert str(path) in str(caught.value)
    assert damage == "folder" or "put it back from a backup" in str(caught.value)
    assert contents(state) == before


@pytest.mark.parametrize("damage", ["half", "empty", "folder"])
@pytest.mark.parametrize("name", NEEDED_LATER)
def test_a_damaged_key_of_a_ca_is_told_long_before_it_is_needed(state, name, damage):
    path = found(state, name)
    DAMAGES[damage](path)
    before = contents(state)
    with structlog.testing.capture_logs() as logs:
        start(state)
    assert [str(path) in one["problem"] for one in logs if one["event"] == NEEDED_LATER[name]] == [True]
    with pytest.raises(VerifierFault, match=path.name):
        renew(path.parent, NOW + timedelta(days=330))
    now = contents(state)
    assert {at: now[at] for at in before if at.parent == Path(name).parent} == {
        at: content for at, content in before.items() if at.parent == Path(name).parent
    }


@pytest.mark.parametrize("name", NEVER_MADE_ANEW)
def test_what_others_trust_is_not_made_anew_because_it_is_gone(state, name):
    path = found(state, name)
    path.unlink()
    before = contents(state)
    with pytest.raises(VerifierFault) as caught:
        start(state)
    assert str(path) in str(caught.value)
    assert "put it back from a backup" in str(caught.value)
    assert contents(state) == before


def test_a_secret_that_is_gone_is_not_made_anew_once_there_are_keys(state):
    secret = state / "service.secret"
    secret.unlink()
    before = contents(state)
    with pytest.raises(VerifierFault, match=r"service\.secret is gone.*put it back from a backup"):
        start(state)
    assert contents(state) == before
    secret.write_bytes(bytes(range(32)))  # what the message says to do without one
    start(state)


@pytest.mark.parametrize("folder", ["keys", "log"])
def test_the_only_key_beside_a_lost_index_is_the_key(state, folder):
    """As after a first start that died between the two."""
    index, (key,) = state / folder / "keys.json", list((state / folder).glob("*.pem"))
    known = index.read_bytes()
    index.unlink()
    with structlog.testing.capture_logs() as logs:
        start(state)
    assert list((state / folder).glob("*.pem")) == [key]
    named = [{k: v for k, v in one.items() if k != "created_at"} for one in json.loads(index.read_bytes())]
    assert named == [{k: v for k, v in one.items() if k != "created_at"} for one in json.loads(known)]
    assert [str(index) in one["index"] for one in logs if one["event"] == "keys.index-made-anew"] == [True]


@pytest.mark.parametrize(
    ("folder", "again"),
    [
        ("keys", lambda directory: rotate(directory, timedelta(hours=1), NOW)),
        ("log", lambda directory: log_keys.rotate(directory, timedelta(hours=1), NOW)),
    ],
)
def test_which_of_several_keys_signs_is_not_guessed(state, folder, again):
    again(state / folder)
    (state / folder / "keys.json").unlink()
    before = contents(state)
    with pytest.raises(VerifierFault, match=r"keys\.json is gone.*put it back from a backup"):
        start(state)
    with pytest.raises(VerifierFault, match=r"keys\.json"):
        again(state / folder)
    assert contents(state) == before


def test_a_log_of_another_name_does_not_take_up_a_key_that_was_left(state):
    (state / "log" / "keys.json").unlink()
    with pytest.raises(VerifierFault, match="of a log of another name"):
        FileLogKeys(state / "log", "other/log", lambda: NOW)


@pytest.mark.parametrize("folder", ["keys", "log"])
def test_every_key_that_is_made_is_told(tmp_path, folder):
    with structlog.testing.capture_logs() as logs:
        start(tmp_path)
    assert [one["folder"] for one in logs if one["event"] == "keys.made"] == [
        str(tmp_path / name) for name in ("tls", "keys", "ak-ca", "log")
    ]
    with structlog.testing.capture_logs() as logs:
        start(tmp_path)
    assert logs == []


def test_a_file_of_another_user_is_said_to_be_that(state, monkeypatch):
    read = Path.read_bytes

    def denied(self):
        if self.name in {"service.secret", "keys.json", "ca.pem", "issuing.key"}:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    starts = {
        "service.secret": lambda: nonce_key(state),
        "keys/keys.json": lambda: FileSigner(state / "keys", lambda: NOW),
        "log/keys.json": lambda: FileLogKeys(state / "log", "test/log", lambda: NOW),
        "tls/ca.pem": lambda: own_tls(state / "tls", ["localhost"], NOW),
        "ak-ca/issuing.key": lambda: AkCa(state / "ak-ca", lambda: NOW),
    }
    monkeypatch.setattr(Path, "read_bytes", denied)
    for name, opened in starts.items():
        with pytest.raises(VerifierFault) as caught:
            opened()
        assert f"cannot read {state / name}: Permission denied; give it to the user" in str(caught.value)


def test_private_files_that_everybody_may_read_are_found(state):
    assert exposed(state) == ()
    names = ("service.secret", "ak-ca/root.key", "tls/server.key", "keys/ear-*.pem", "log/log-*.pem")
    for path in (paths := [found(state, name) for name in names]):
        path.chmod(0o644)
    found(state, "tls/ca.key").chmod(0o640)
    assert exposed(state) == tuple(paths)


# --- under a service that runs


def of_ear(directory: Path) -> Callable[[], list[str]]:
    signer = FileSigner(directory / "keys", lambda: NOW)
    return lambda: [key["kid"] for key in signer.jwks()["keys"]]


def of_log(directory: Path) -> Callable[[], list[str]]:
    keys = FileLogKeys(directory / "log", "test/log", lambda: NOW)
    return lambda: [signer.key.encode() for signer in keys.signers()]


RUNNING = {"keys": (of_ear, rotate), "log": (of_log, log_keys.rotate)}


@pytest.mark.parametrize("damage", ["half", "empty"])
@pytest.mark.parametrize("folder", RUNNING)
def test_a_rotation_of_which_half_is_there_is_taken_up_once_the_rest_is(state, folder, damage):
    running, again = RUNNING[folder]
    known = running(state)
    (old,) = known()
    before = set((state / folder).glob("*.pem"))
    again(state / folder, timedelta(hours=1), NOW)
    (path,) = set((state / folder).glob("*.pem")) - before
    whole = path.read_bytes()
    DAMAGES[damage](path)
    with structlog.testing.capture_logs() as logs:
        assert [known() for _ in range(5)] == [[old]] * 5
    assert [str(path) in one["problem"] for one in logs] == [True], "told once"
    path.write_bytes(whole)
    new, still = known()
    assert (still, new != old) == (old, True)


@pytest.mark.parametrize("rotating", [rotate, log_keys.rotate])
def test_a_rotation_that_dies_before_the_index_has_removed_nothing_that_the_index_names(
    state, rotating, monkeypatch
):
    folder = "keys" if rotating is rotate else "log"
    rotating(state / folder, timedelta(hours=1), NOW)
    later = NOW + timedelta(hours=2)
    replace = Path.replace

    def dying(self, target):
        if target.name == "keys.json":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            rotating(state / folder, timedelta(hours=1), later)
    start(state, later)
    rotating(state / folder, timedelta(hours=1), later)
    start(state, later)


def test_certificates_of_the_ak_ca_are_issued_on_while_a_file_of_it_is_damaged(state):
    now = [NOW]
    authority = AkCa(state / "ak-ca", lambda: now[0])
    known = authority.authorities()
    for name in ("issuing.pem", "root.pem", "issuing.key"):
        DAMAGES["half"](state / "ak-ca" / name)
    now[0] += timedelta(minutes=10)
    with structlog.testing.capture_logs() as logs:
        assert [authority.authorities() for _ in range(3)] == [known] * 3
    assert [one["event"] for one in logs] == ["ak-ca.damaged"]


def test_ends_are_known_while_the_files_are_damaged(state):
    files = own_tls(state / "tls", ["localhost"], NOW)
    endings = OwnEndings(files, AkCa(state / "ak-ca", lambda: NOW))
    known = endings()
    assert [one.kind.value for one in known] == ["tls", "tls-ca", "ak-ca", "ak-ca"]
    DAMAGES["half"](files.certificate)
    with structlog.testing.capture_logs() as logs:
        assert endings() == known
    assert [str(files.certificate) in one["problem"] for one in logs] == [True]


# --- what an operator configures


def pair(directory: Path) -> TlsFiles:
    made = own_tls(directory, ["localhost"], NOW)
    return TlsFiles(certificate=made.certificate, key=made.key, ca=None)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_of_a_configured_pair_the_damaged_file_is_named(tmp_path, name, damage):
    files = pair(tmp_path)
    DAMAGES[damage](tmp_path / name)
    with pytest.raises(VerifierFault) as caught:
        files.context()
    (other,) = {"server.pem", "server.key"} - {name}
    assert str(tmp_path / name) in str(caught.value)
    assert str(tmp_path / other) not in str(caught.value)


def test_of_a_chain_that_ends_in_the_middle_the_file_is_named(tmp_path):
    files = pair(tmp_path)
    files.certificate.write_bytes(files.certificate.read_bytes()[:-200])
    with pytest.raises(VerifierFault, match=r"server\.pem"):
        files.context()


def test_a_key_with_a_passphrase_is_named_and_nobody_is_asked_for_it(tmp_path):
    files = pair(tmp_path)
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")))
    with pytest.raises(VerifierFault, match=r"server\.key is not an unencrypted PEM private key"):
        files.context()


def test_a_key_of_another_certificate_is_said_to_be_that(tmp_path):
    files, other = pair(tmp_path / "a"), pair(tmp_path / "b")
    shutil.copy(other.key, files.key)
    with pytest.raises(VerifierFault, match=r"server\.key does not belong to .*server\.pem"):
        files.context()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_key_that_an_operator_chose_is_named(state, damage):
    path = found(state, "keys/ear-*.pem")
    DAMAGES[damage](path)
    with pytest.raises(VerifierFault) as caught:
        open_fixed(str(path), ())
    assert str(path) in str(caught.value)
