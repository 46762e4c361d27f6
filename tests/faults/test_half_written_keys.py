"""Keys and certificates that are damaged: a start ends with their name, and what runs goes on until they are whole again."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import BIN, Replica, Site, prepared, site
from tests.harness import settings_for
from verifier.errors import VerifierFault
from verifier.keys.tls import TlsFiles, own_tls
from verifier.main import prepare
from verifier.settings import Settings

UNUSABLE = 69


def pair(directory: Path, authority: Path, now: datetime | None = None) -> TlsFiles:
    """A certificate of an authority, as somebody brings it; each time another."""
    directory.mkdir(parents=True)
    for name in ("ca.pem", "ca.key"):
        if (authority / name).exists():
            shutil.copy(authority / name, directory)
    made = own_tls(directory, ["localhost", "127.0.0.1"], now or datetime.now(UTC))
    if not (authority / "ca.pem").exists():
        authority.mkdir()
        for name in ("ca.pem", "ca.key"):
            shutil.copy(directory / name, authority)
    return made


class Configured:
    """The pair that the settings name."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.authority = directory, directory / "authority"
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self.made = 0
        self.put(self.next())

    def next(self) -> TlsFiles:
        self.made += 1
        return pair(self.directory / f"pair-{self.made}", self.authority)

    def put(self, source: TlsFiles) -> None:
        shutil.copy(source.certificate, self.certificate)
        shutil.copy(source.key, self.key)

    def as_settings(self, directory: Path, clients: Path) -> Settings:
        roles = 'roles = ["dns:ops.test=operator"]'
        return settings_for(directory, f'{self.settings}\n[client_certificates]\nca = "{clients}"\n{roles}')

    @property
    def settings(self) -> str:
        return f'[tls]\ncertificate = "{self.certificate}"\nkey = "{self.key}"\nca = "{self.authority / "ca.pem"}"'


def half(path: Path) -> None:
    """Its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fingerprint(path: Path) -> str:
    pem = path.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def shown(replica: Replica) -> str:
    """The certificate of a new connection."""
    pem = ssl.get_server_certificate(("127.0.0.1", replica.port))
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def refused(made: Site, workers: int = 1) -> str:
    """What a start says that comes to nothing."""
    call = [str(BIN), "serve", "--config", str(made.replicas[0].config), "--workers", str(workers)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (UNUSABLE, ""), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr


def contents(state: Path) -> dict[Path, bytes]:
    files = (path for path in state.rglob("*") if path.is_file() and "verifier.db" not in path.name)
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_start_with_half_a_key_names_it(tmp_path, workers):
    configured = Configured(tmp_path / "tls")
    made = prepared(tmp_path, more=configured.settings)
    half(configured.key)
    said = refused(made, workers)
    assert str(configured.key) in said
    assert "put it back from a backup" in said


@pytest.mark.parametrize("spoilt", ["certificate", "key", "ca"])
async def test_what_a_reload_rehearses_has_the_files_of_tls_in_it(tmp_path, spoilt):
    """Else the process that serves would be gone before anybody finds out."""
    configured = Configured(tmp_path / "tls")
    clients = tmp_path / "clients.pem"
    shutil.copy(configured.authority / "ca.pem", clients)
    await prepare(settings := configured.as_settings(tmp_path, clients))
    half(path := clients if spoilt == "ca" else getattr(configured, spoilt))
    with pytest.raises(VerifierFault, match=path.name):
        await prepare(settings)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "empty", "gone"])
async def test_every_file_of_keys_at_a_start(tmp_path, damage):
    """Each one in turn, in the state of a verifier that has served."""
    async with site(tmp_path) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=1, hostile=1)
        async with crowd.attesting():
            await crowd.several_rounds(1)
    # Whatever can be made anew without anybody noticing, or is not needed for now.
    made_anew = (
        {"issuing.key", "issuing.pem", "server.key", "server.pem", "keys.json"} if damage == "gone" else set()
    )
    not_needed = {"root.key", "ca.key"}
    good = contents(verifier.state)
    for path, content in good.items():
        if path.name in made_anew | not_needed or path.name == ".lock":
            continue
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        spoilt = contents(verifier.state)
        said = await asyncio.to_thread(refused, verifier)
        assert str(path) in said, said
        assert contents(verifier.state) == spoilt
        path.write_bytes(content)
    (replica,) = verifier.replicas
    await replica.start()
    async with crowd.attesting():
        await crowd.several_rounds(1)
    replica.signal(signal.SIGTERM)
    assert await replica.ended() == 0
    check(crowd)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("spoilt", ["certificate", "key", "other"])
async def test_a_reload_while_the_pair_is_half_written(tmp_path, spoilt, workers, monkeypatch):
    monkeypatch.setattr("tests.eventually.PATIENCE", 150.0)
    configured = Configured(tmp_path / "tls")
    async with site(tmp_path, workers=workers, more=configured.settings) as verifier:
        trusted = configured.authority / "ca.pem"
        monkeypatch.setattr(
            verifier, "tls", lambda: ssl.create_default_context(cafile=trusted), raising=False
        )
        crowd = Crowd(verifier)
        await crowd.arrive(honest=2, hostile=1)
        (replica,) = verifier.replicas
        first, before = fingerprint(configured.certificate), set(replica.processes())
        following = configured.next()
        match spoilt:
            case "certificate":
                configured.put(following)
                half(configured.certificate)
            case "key":
                configured.put(following)
                half(configured.key)
            case "other":
                shutil.copy(following.certificate, configured.certificate)
        async with crowd.attesting():
            replica.signal(signal.SIGHUP)
            named = str(configured.certificate if spoilt == "certificate" else configured.key)
            await eventually(lambda: named in replica.log())
            await crowd.several_rounds(1)
            assert before <= set(replica.processes())
            assert await asyncio.to_thread(shown, replica) == first
            configured.put(following)
            replica.signal(signal.SIGHUP)

            async def taken_up():
                return await asyncio.to_thread(shown, replica) == fingerprint(configured.certificate)

            await eventually(taken_up)
            await crowd.several_rounds(1)
        check(crowd)
