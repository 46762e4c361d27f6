"""docs/examples/mkosi: what an image builder runs, run for real on unified kernel images."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.config import load
from tests import pe
from tests.conftest import ROOT
from tests.unit.predict import loaders
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_policy_source

EXAMPLE = ROOT / "docs" / "examples" / "mkosi"
EVIDENCE = ROOT / "policies" / "evidence"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Where mkosi puts what it built."""
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / "web_1.efi").write_bytes(loaders.uki(254))
    (folder / "web_1.raw").write_bytes(b"disk")
    return folder


def publish(built: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    source = built.parent / "source"
    source.mkdir(exist_ok=True)
    told = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OUTPUTDIR": str(built),
        "SRCDIR": str(source),
    }
    return subprocess.run(
        [EXAMPLE / "mkosi.postoutput"],
        env={**told, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def prediction(built: Path, name: str = "web_1") -> Mapping[str, object]:
    return json.loads((built / f"{name}.prediction.json").read_text())["pcrs"]


def test_policy_and_prediction_lie_beside_the_image_and_belong_together(built):
    done = publish(built)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in built.iterdir()) == [
        "web_1.efi",
        "web_1.policy.yaml",
        "web_1.prediction.json",
        "web_1.raw",
    ]
    policy = parse_policy(read_policy_source(built / "web_1.policy.yaml"))
    assert policy.id == "web-1"
    pcrs = prediction(built)
    assert {int(pcr) for pcr in pcrs} | {7} == set(policy.quote.pcrs), "Secure Boot is judged all the same"
    assert "PCR 7 is not judged" in done.stdout + done.stderr, "no variables were given, and that is said"


def test_another_command_line_is_another_prediction(built):
    parts = [pe.Part(".cmdline", b"init=/bin/sh"), pe.Part(".initrd", b"initrd!")]
    (built / "web_2.efi").write_bytes(loaders.uki(254, parts=parts))
    assert publish(built).returncode == 0
    one, two = prediction(built), prediction(built, "web_2")
    assert {pcr for pcr in one if one[pcr] != two[pcr]} == {"4", "9", "11"}


def test_the_variables_of_the_machines_are_used_where_they_are_given(built):
    source = built.parent / "source"
    source.mkdir()
    shutil.copy(EVIDENCE / "uki-sb-off" / "meta.json", source / "machine.efivars")
    done = publish(built)
    assert done.returncode == 0, done.stderr
    assert "7" in prediction(built)


def test_an_image_that_those_machines_would_not_boot_fails_the_build(built):
    source = built.parent / "source"
    source.mkdir()
    shutil.copy(EVIDENCE / "uki-sb-on" / "meta.json", source / "machine.efivars")
    done = publish(built)
    assert done.returncode != 0
    assert not (built / "web_1.policy.yaml").exists()


def test_a_build_without_a_unified_kernel_image_fails(built):
    (built / "web_1.efi").unlink()
    done = publish(built)
    assert done.returncode == 1
    assert "SplitArtifacts=uki" in done.stderr


def test_the_image_has_the_agent_set_up_and_enabled():
    parser = configparser.ConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(EXAMPLE / "mkosi.conf")
    assert parser["Output"]["SplitArtifacts"] == "uki"
    assert "vtpm-attest-agent" in parser["Content"]["VolatilePackages"].split()
    extra = EXAMPLE / "mkosi.extra"
    settings = load({}, {}, extra / "etc/vtpm-attest/agent.toml")
    assert settings.attested_on == "affirming"
    (preset,) = (extra / "usr/lib/systemd/system-preset").iterdir()
    unit = preset.read_text().split()[-1]
    assert (ROOT / "agent" / "systemd" / unit).exists()
