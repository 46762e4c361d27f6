"""A disk that is soon full."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(size: str) -> Iterator[Path]:
    """A file system of this size (`1m`), or a loud skip."""
    if os.geteuid() != 0:
        pytest.skip("FULL DISK NOT TESTED: only root may mount a small file system")
    disk = Path(tempfile.mkdtemp(prefix="vtpm-full-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"FULL DISK NOT TESTED: no small file system here: {done.stderr.decode().strip()}")
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], capture_output=True, check=False)
        shutil.rmtree(disk, ignore_errors=True)
