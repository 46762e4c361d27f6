"""Build an image from its Dockerfile, on a base image made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT

TOOLS = ("buildah", "mmdebstrap", "podman", "runc")
BASE = "localhost/debian:bookworm-slim"
SUITE = "bookworm"
WORK = ROOT / "build" / "images"
ENVIRONMENT = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


def missing() -> list[str]:
    """Tools that are not installed, and `root`, without which none of them works here."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return [*absent, "root"] if os.geteuid() != 0 else absent


def run(*command: str | Path, timeout: float = 1800) -> str:
    """Its stdout; what it said where it fails."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def make_base() -> None:
    """What `debian:bookworm-slim` is to a Dockerfile, from this machine's own package sources."""
    if BASE in run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    archive = WORK / "base.tar"
    WORK.mkdir(parents=True, exist_ok=True)
    slim = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale")]
    run("mmdebstrap", "--variant=minbase", '--aptopt=Acquire::Languages "none"', *slim, SUITE, archive)
    container = run("buildah", "from", "scratch").strip()
    run("buildah", "add", "--quiet", container, archive, "/")
    run("buildah", "config", "--cmd", "bash", container)
    run("buildah", "commit", "--quiet", container, BASE)
    run("buildah", "rm", container)


def build(name: str) -> str:
    """The image's tag. This machine's CA certificates are lent to the build: it may be behind a proxy that needs them."""
    tag = f"localhost/vtpm-attest/{name}:test"
    lent = WORK / "lent"
    lent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", lent / "ca.pem")
    (lent / "pip.conf").write_text("[global]\ncert = /run/lent/ca.pem\n")
    run(
        "buildah", "bud", "--pull-never", "--build-arg", f"BASE={BASE}", "--network", "host", "--layers", "--format", "docker",
        "--volume", f"{lent}:/run/lent:ro", "--volume", f"{lent / 'pip.conf'}:/etc/pip.conf:ro",
        "--file", f"docker/{name}/Dockerfile", "--tag", tag, ".",
    )  # fmt: skip
    return tag
