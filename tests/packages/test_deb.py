"""The Debian package of the agent: built twice, read by lintian, and lived with in a Debian that has nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scripts.demo import Verifier, token
from tests import swtpm
from tests.packages.conftest import CRYPTOGRAPHY, PACKAGE, build
from tests.packages.debian import DEB, Debian
from tests.real_guests import Machine, Operator, booted, guest
from tests.swtpm import manufacture, with_vendor_ca

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory) -> Iterator[Verifier]:
    work = tmp_path_factory.mktemp("verifier")
    with_vendor_ca(work)
    with Verifier.running(work) as running:
        yield replace(running, join_token=token(running.config, "join"))


def test_the_same_files_give_the_same_package(deb):
    before = hashlib.sha256(deb.read_bytes()).hexdigest()
    deb.unlink()
    assert hashlib.sha256(build().read_bytes()).hexdigest() == before


def test_lintian_has_nothing_to_say(deb):
    command = [
        "lintian",
        "--info",
        "--display-info",
        "--pedantic",
        "--fail-on",
        "error,warning,info,pedantic",
    ]
    done = subprocess.run([*command, str(deb)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_by_what_it_depends_on_alone(installed):
    assert installed.run("attest-agent", "--version").stdout.startswith("attest-agent ")
    assert "attest-agent run" in installed.run("attest-agent", "--help").stdout
    for shell in ("bash", "zsh", "fish"):
        assert "attest-agent" in installed.run("attest-agent", "completion", shell).stdout
    status = installed.run("attest-agent", "status", check=False)
    assert status.returncode == 66, "no TPM is the reason, nothing that is missing"


def test_nothing_of_the_machine_s_python_gets_into_the_agent(installed):
    (installed.root / "usr/lib/python3/dist-packages/msgspec.py").write_text("raise SystemExit(99)")
    try:
        assert installed.run("env", "PYTHONPATH=/nowhere", "attest-agent", "--version").returncode == 0
    finally:
        (installed.root / "usr/lib/python3/dist-packages/msgspec.py").unlink()


@pytest.mark.swtpm
@pytest.mark.skipif(not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm is missing")
def test_it_enrols_and_attests_from_its_configuration_file(installed, verifier):
    made = manufacture(verifier.work / "guest1" / "tpm", verifier.work / "tpm-vendor-ca")
    with booted(made) as tpm:
        machine: Machine = guest(verifier, 1, tpm)
        shutil.copytree(machine.root, installed.root / "guest")
        (installed.root / "etc/vtpm-attest/agent.toml").write_text(
            f'server = "{verifier.url}"\ntoken = "{verifier.join_token}"\ntcti = "{tpm.tcti}"\nroot = "/guest"\n'
        )
        for _ in range(2):
            done = installed.run("attest-agent", "attest", "--once", "--json", check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["verdict"]["status"] == "affirming"
        operator = Operator(verifier, token(verifier.config, "operator"))
        unseal_with_and_without_what_is_recommended(installed, operator)
    shutil.rmtree(installed.root / "guest")


def unseal_with_and_without_what_is_recommended(installed: Debian, operator: Operator) -> None:
    key = operator.verifier.work / "disk.key"
    key.write_text("a key")
    operator.json("secret", "put", "disk", "--from-file", str(key))
    operator.json("secret", "grant", "disk", "--policy", "uki-strict")
    done = installed.run("attest-agent", "unseal", "disk", "--once")
    assert done.stdout == "a key"
    there = installed.root / "usr/lib/python3/dist-packages/cryptography"
    away = there.rename(installed.root / "tmp" / "cryptography")
    try:
        lacking = installed.run("attest-agent", "unseal", "disk", "--once", check=False)
        assert (lacking.returncode, lacking.stdout) == (78, "")
        assert f"apt install {CRYPTOGRAPHY}" in lacking.stderr
        assert installed.run("attest-agent", "attest", "--once", check=False).returncode == 0
    finally:
        away.rename(there)


def test_an_update_keeps_the_settings_and_what_is_remembered(installed):
    settings = installed.root / "etc/vtpm-attest/agent.toml"
    settings.write_text('server = "https://verifier.example"\n')
    state = installed.root / "var/lib/vtpm-attest"
    state.mkdir(exist_ok=True)
    (state / "agent.json").write_text("{}")
    installed.run("dpkg", "--install", DEB)
    assert "verifier.example" in settings.read_text()
    installed.run("dpkg", "--remove", PACKAGE)
    assert settings.exists()
    assert (state / "agent.json").exists()
    assert not (installed.root / "usr/bin/attest-agent").exists()


def test_a_purge_leaves_nothing(debian, deb):
    before = debian.files()
    shutil.copy(deb, debian.root / DEB.removeprefix("/"))
    debian.run("dpkg", "--install", DEB)
    assert debian.files() - before, "compiled modules and all"
    debian.run("attest-agent", "--version")
    wanted = debian.root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    unit = "attest-agent.service"
    (wanted / unit).symlink_to(f"/lib/systemd/system/{unit}")  # what `systemctl enable` does
    state = debian.root / "var/lib/private/vtpm-attest"
    state.mkdir(parents=True)
    (debian.root / "var/lib/vtpm-attest").symlink_to("private/vtpm-attest")
    (state / "agent.json").write_text("{}")
    debian.run("dpkg", "--purge", PACKAGE)
    ours = {name for name in debian.files() - before if "attest" in name}
    assert ours == set()
