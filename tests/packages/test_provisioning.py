"""docs/examples/cloud-init and docs/examples/ignition, on a machine: cloud-init reads its file, systemd its unit."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import yaml

from tests import swtpm
from tests.conftest import ROOT
from tests.packages.debian import can_boot
from tests.packages.guests import Guest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.swtpm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm is missing"),
    pytest.mark.skipif(not can_boot(), reason="SKIPPED: no root, or no namespaces and control groups"),
]
USER_DATA = ROOT / "docs" / "examples" / "cloud-init" / "user-data.yaml"
SEALED = "etc/credstore.encrypted/vtpm-attest.join-token"


@pytest.fixture
def blank(guest: Guest) -> Guest:
    """As `guest`, but not set up: no settings, no token, nothing enabled."""
    guest.debian.run("systemctl", "disable", "attest-agent", "requires", "wanted", "online")
    shutil.rmtree(guest.debian.root / "etc/credstore.encrypted")
    guest.debian.write("etc/vtpm-attest/agent.toml", "")
    return guest


def settings(guest: Guest, text: str) -> str:
    """The example's, for this guest: where its verifier, its TPM and its logs are."""
    lines = text.replace("https://verifier.example:8443", guest.verifier.url)
    return f'{lines}tcti = "{guest.tcti}"\nroot = "/guest"\n'


def test_cloud_init_knows_every_word_of_the_example(debian):
    debian.write("tmp/user-data.yaml", USER_DATA.read_text())
    done = debian.run("cloud-init", "schema", "--config-file", "/tmp/user-data.yaml", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


def test_a_machine_that_cloud_init_set_up_is_attested(blank):
    data = yaml.safe_load(USER_DATA.read_text())
    toml, token = data["write_files"]
    toml["content"] = settings(blank, toml["content"])
    token["content"] = blank.verifier.token
    seed = "var/lib/cloud/seed/nocloud"
    blank.debian.write(f"{seed}/user-data", "#cloud-config\n" + yaml.safe_dump(data))
    blank.debian.write(f"{seed}/meta-data", "instance-id: one\n")
    disabled = blank.debian.root / "etc/cloud/cloud-init.disabled"
    disabled.unlink()
    try:
        with blank.debian.booted() as system:
            system.wait_until("attested.target", "active")
            assert system.run("cat", f"/{SEALED}").stdout.strip() != blank.verifier.token
            assert system.run("ls", "/run/vtpm-attest-join-token", check=False).returncode != 0
            system.run("systemctl", "is-enabled", "attest-agent")
            found = system.run("grep", "-rlF", blank.verifier.token, "/etc", check=False).stdout
            assert found == "", "the token lies nowhere in the clear but in cloud-init's own copy"
    finally:
        disabled.touch()
        shutil.rmtree(blank.debian.root / "var/lib/cloud", ignore_errors=True)


def test_a_machine_that_ignition_set_up_is_attested(blank):
    """What Ignition does before the first boot: write files, write units, enable them."""
    config = json.loads((ROOT / "docs" / "examples" / "ignition" / "config.ign").read_text())
    toml = 'server = "https://verifier.example:8443"\nattested_on = "affirming"\n'
    blank.debian.write("etc/vtpm-attest/agent.toml", settings(blank, toml))
    blank.debian.write("etc/vtpm-attest/join-token", blank.verifier.token).chmod(0o600)
    units = config["systemd"]["units"]
    for unit in units:
        if "contents" in unit:
            blank.debian.write(f"etc/systemd/system/{unit['name']}", unit["contents"])
    blank.debian.run("systemctl", "enable", *(unit["name"] for unit in units))
    try:
        with blank.debian.booted() as system:
            system.wait_until("attested.target", "active")
            assert system.run("ls", "/etc/vtpm-attest").stdout.split() == ["agent.toml"]
            assert system.run("cat", f"/{SEALED}").stdout.strip() != blank.verifier.token
    finally:
        blank.debian.run("systemctl", "disable", "vtpm-attest-seal.service")
        (blank.debian.root / "etc/systemd/system/vtpm-attest-seal.service").unlink()


def test_a_token_sealed_as_in_the_examples_opens_on_this_tpm_and_on_no_other(debian, tmp_path):
    """`--with-key` and `--tpm2-device` stand for a machine whose TPM is a device."""
    (seal,) = (call for call in yaml.safe_load(USER_DATA.read_text())["runcmd"] if call[0] == "systemd-creds")
    name = next(option for option in seal if option.startswith("--name="))
    debian.write("root/token", "secret")
    first, second = (swtpm.manufacture(tmp_path / each, tmp_path / "ca") for each in ("one", "two"))

    def opened(device: str) -> subprocess.CompletedProcess[str]:
        return debian.run_with_proc(
            "systemd-creds", "decrypt", device, name, "/root/sealed", "-", check=False
        )

    with swtpm.Swtpm(first.state) as tpm:
        device = f"--tpm2-device={tpm.tcti}"
        debian.run_with_proc(*seal[:-2], "--with-key=tpm2", device, "/root/token", "/root/sealed")
        assert opened(device).stdout == "secret"
    with swtpm.Swtpm(second.state) as tpm:
        done = opened(f"--tpm2-device={tpm.tcti}")
        assert done.returncode != 0
        assert "secret" not in done.stdout
