"""Programs this needs, and how they are run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "vm"
BIN = Path(sys.executable).parent
GUEST = Path(__file__).resolve().parent / "guest"
OVMF = Path("/usr/share/OVMF")
PROGRAMS = (
    *("qemu-system-x86_64", "qemu-img", "swtpm", "swtpm_setup", "mmdebstrap", "mke2fs", "sgdisk", "mformat"),
    *("sbsign", "objcopy", "cpio", "depmod", "busybox", "zstd", "openssl", "dpkg-deb", "apt-get"),
)


class LabError(Exception):
    """Something of the laboratory (not of the product) does not work."""


def missing() -> list[str]:
    """What `scripts/install-system-packages.sh vm` has not been able to install."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return lacking if (OVMF / "OVMF_CODE.fd").exists() else [*lacking, "OVMF_CODE.fd"]


def run(*words: object, cwd: Path | None = None, given: bytes | None = None) -> bytes:
    """What a program prints; it has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, cwd=cwd, input=given
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")[-3000:]
        raise LabError(f"{' '.join(map(str, words))[:300]} ended with {done.returncode}:\n{said}")
    return done.stdout


def attestctl(*words: object) -> bytes:
    """An offline command, as an operator calls it."""
    return run(BIN / "attestctl", *words)


def digest(parts: Iterable[bytes]) -> str:
    """Names what was built from these parts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:16]
