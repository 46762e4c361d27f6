"""The files of `docker/`: against their schemas, and against each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
KUBERNETES = [
    (path.name, number, document)
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for number, document in enumerate(yaml.safe_load_all(path.read_text()))
]


def test_the_compose_file_is_one():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        DOCKER / "compose.yaml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "number", "document"), KUBERNETES, ids=[f"{name}-{number}" for name, number, _ in KUBERNETES]
)
def test_manifests_are_what_kubernetes_takes(name, number, document):
    kubernetes_validate.validate(document, "1.33", strict=True)


def test_a_manifest_with_a_wrong_field_would_be_seen():
    (deployment,) = [document for _, _, document in KUBERNETES if document["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.33", strict=True)


def test_the_kustomization_names_every_manifest():
    listed = yaml.safe_load((DOCKER / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted({name for name, _, _ in KUBERNETES})


def test_every_file_that_compose_mounts_or_builds_from_is_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./anchors":
                assert (DOCKER / source).exists(), source
    assert (ROOT / COMPOSE["x-verifier"]["build"]["dockerfile"]).exists()


def test_setup_makes_every_secret_that_compose_reads():
    script = (DOCKER / "setup.sh").read_text()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].removeprefix("./secrets/") in script


def test_every_service_but_the_database_has_no_way_to_more_rights():
    for name, service in COMPOSE["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "postgres" or service["cap_drop"] == ["ALL"], name
    assert "ports" not in COMPOSE["services"]["postgres"]
    assert COMPOSE["networks"]["database"]["internal"]


def test_prometheus_takes_the_scrape_configuration():
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("NOT CHECKED: promtool is not installed (Debian package `prometheus`)")
    done = subprocess.run(
        [tool, "check", "config", "--syntax-only", DOCKER / "prometheus/compose.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["verifier", "agent"])
def test_images_install_nothing_whose_hash_is_not_written_down(name):
    """The same versions that the tests ran with."""
    pinned = re.findall(
        r"^([\w.\[\],-]+)==(\S+)", (DOCKER / name / "requirements.txt").read_text(), re.MULTILINE
    )
    tested = dict(
        re.findall(r"^([\w.\[\],-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert pinned
    assert {package: version for package, version in pinned if tested.get(package) != version} == {}
    text = (DOCKER / name / "Dockerfile").read_text()
    installs = re.findall(r"pip(?: --python \S+)? (?:install|wheel)[^\\&\n]*", text)
    assert len(installs) == 5
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command, command


@pytest.mark.parametrize("name", ["verifier", "agent"])
def test_images_hold_what_their_distribution_asks_for(name):
    """Whoever adds a dependency adds it to the image as well."""
    project = ROOT / ("pyproject.toml" if name == "verifier" else "agent/pyproject.toml")
    asked = set(
        re.findall(
            r'^    "([\w-]+)|^dependencies = \["([\w-]+)',
            project.read_text().split("[project.optional")[0],
            re.MULTILINE,
        )
    )
    names = {one or other for one, other in asked} - {"vtpm-attest-agent"}
    held = set(re.findall(r"^([\w-]+)", (DOCKER / name / "requirements.in").read_text(), re.MULTILINE))
    assert names - held == set()
