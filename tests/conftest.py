"""Fixtures every test may use."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes that have to be free there; the tests take less than one."""


def pytest_configure(config):
    """Commands under test hear Ctrl-C also where a shell started all of this in the background, and so had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _waiting_for_no_disk(config)


def _waiting_for_no_disk(config):
    """What `make test` runs waits for no disk, and reads no list of the system's authorities in every process.

    The slow ones, which have commands of their own, are about disks and about the system as it is.
    """
    if config.option.markexpr != "not slow":
        return
    os.environ["SSL_CERT_FILE"] = os.devnull
    if "TMPDIR" not in os.environ and _usable(MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call):
    """A failure is told whatever is collected meanwhile.

    Pytest parses the test's source for it. Before Python 3.11.8 that ends in a SystemError of the AST constructor where the
    collector runs something that parses, too (python/cpython#106905).
    """
    if call.excinfo is None:
        return (yield)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _usable(folder: Path) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM


def shared_path(relative: str) -> Path:
    """A file or folder of `../shared`, or a loud skip where that folder is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"SKIPPED FOR WANT OF DATA: ../shared/{relative} is not here, so this check did not run")
    return path
