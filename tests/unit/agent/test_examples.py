"""The provisioning examples of docs/examples: what they write is what the agent reads, and where."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import yaml

from agent.config import JOIN_TOKEN_CREDENTIALS, Settings, load
from tests.conftest import ROOT

EXAMPLES = ROOT / "docs" / "examples"
SEALED = f"/etc/credstore.encrypted/{JOIN_TOKEN_CREDENTIALS[0]}"
UNITS = {path.name for path in (ROOT / "agent" / "systemd").iterdir()}


def settings(folder: Path, text: str) -> Settings:
    file = folder / "agent.toml"
    file.write_text(text)
    return load({}, {}, file)


def is_the_example_s(found: Settings) -> bool:
    return (found.server, found.attested_on) == ("https://verifier.example:8443", "affirming")


def test_cloud_init_writes_settings_and_seals_the_token_where_the_unit_looks(tmp_path):
    text = (EXAMPLES / "cloud-init" / "user-data.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    files = {item["path"]: item for item in data["write_files"]}
    assert is_the_example_s(settings(tmp_path, files["/etc/vtpm-attest/agent.toml"]["content"]))
    made, seal, remove, start = data["runcmd"]
    assert made[-1] == str(Path(SEALED).parent)
    assert seal[:3] == ["systemd-creds", "encrypt", f"--name={JOIN_TOKEN_CREDENTIALS[0]}"]
    assert files[seal[-2]]["permissions"] == "0600"
    assert (seal[-1], remove[-1]) == (SEALED, seal[-2])
    assert start[-1] in UNITS


def ignition() -> dict:
    return json.loads((EXAMPLES / "ignition" / "config.ign").read_text())


def test_ignition_writes_settings_and_a_token_that_root_alone_can_read(tmp_path):
    files = {item["path"]: item for item in ignition()["storage"]["files"]}
    scheme, _, content = files["/etc/vtpm-attest/agent.toml"]["contents"]["source"].partition(",")
    assert scheme == "data:"
    assert is_the_example_s(settings(tmp_path, unquote_to_bytes(content).decode()))
    assert files["/etc/vtpm-attest/join-token"]["mode"] == 0o600


def test_ignition_enables_what_there_is_and_seals_where_the_unit_looks():
    units = {item["name"]: item for item in ignition()["systemd"]["units"]}
    assert {name for name, unit in units.items() if "contents" not in unit} < UNITS
    assert all(unit["enabled"] for unit in units.values())
    sealing = units["vtpm-attest-seal.service"]["contents"]
    assert f"--name={JOIN_TOKEN_CREDENTIALS[0]}" in sealing
    assert SEALED in sealing
    assert "Before=attest-agent.service" in sealing


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="SKIPPED: no systemd-analyze")
def test_the_unit_that_seals_is_a_unit(tmp_path):
    for unit in ignition()["systemd"]["units"]:
        if "contents" in unit:
            (tmp_path / unit["name"]).write_text(unit["contents"])
            done = subprocess.run(
                ["systemd-analyze", "verify", str(tmp_path / unit["name"])],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, "")
