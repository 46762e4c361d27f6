"""Wheels, built twice from differently kept copies of the sources."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SOURCES = (
    "agent",
    "verifier",
    "docker",
    "scripts",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "requirements-build.txt",
    "requirements-sbom.txt",
)


def built(tree: Path, out: Path, umask: int) -> dict[str, Path]:
    """The wheels by their name; times are the same, all else of the surroundings is not."""
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, copy_function=shutil.copy)
        else:
            shutil.copy(source, tree / name)
    (tree / "build").mkdir()
    (tree / "build" / "wheel-tools").symlink_to(tools())
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": "Asia/Tokyo" if umask else "UTC"}
    script = f"umask {umask:03o}; exec scripts/build-wheels.sh {out}"
    subprocess.run(
        ["bash", "-c", script], cwd=tree, env=environment, check=True, capture_output=True, timeout=600
    )
    return {wheel.name: wheel for wheel in out.glob("*.whl")}


made: list[bool] = []


def tools() -> Path:
    """Made by the script itself, once, and kept for the next time."""
    folder = ROOT / "build" / "wheel-tools"
    if not folder.exists() or not made:
        made.append(True)
        subprocess.run(
            ["scripts/build-wheels.sh", ROOT / "build" / "wheels"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=600,
        )
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    return built(folder / "a", folder / "first", 0o022), built(
        folder / "another-name", folder / "second", 0o077
    )


def test_the_same_sources_make_the_same_bytes(both):
    first, second = (
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in wheels.items()}
        for wheels in both
    )
    assert set(first) == {"vtpm_attest-0.1.0-py3-none-any.whl", "vtpm_attest_agent-0.1.0-py3-none-any.whl"}
    assert first == second


@pytest.mark.parametrize(
    ("wheel", "carries"),
    [("vtpm_attest-", "aiohttp"), ("vtpm_attest_agent-", "tpm2-pytss")],
    ids=["verifier", "agent"],
)
def test_a_wheel_says_what_it_was_tested_with(both, wheel, carries):
    (path,) = [path for name, path in both[0].items() if name.startswith(wheel)]
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if ".dist-info/sboms/" in name]
        document = json.loads(archive.read(name))
        record = archive.read(
            next(entry for entry in archive.namelist() if entry.endswith("/RECORD"))
        ).decode()
    assert document["bomFormat"] == "CycloneDX"
    assert carries in {component["name"] for component in document["components"]}
    assert name in record


def test_both_wheels_install_and_run_in_an_empty_environment(both, tmp_path):
    """With nothing but themselves: their dependencies are those of this environment."""
    subprocess.run(
        ["python3.11", "-m", "venv", "--system-site-packages", tmp_path / "venv"], check=True, timeout=120
    )
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *both[0].values()],
        check=True,
        timeout=120,
    )
    import site

    environment = {**os.environ, "PYTHONPATH": site.getsitepackages()[0]}
    done = subprocess.run(
        [tmp_path / "venv/bin/attest-agent", "--version"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "0.1" in done.stdout
