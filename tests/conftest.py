"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def shared_path(relative: str) -> Path:
    """A file or folder of `../shared`, or a loud skip where that folder is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"SKIPPED FOR WANT OF DATA: ../shared/{relative} is not here, so this check did not run")
    return path
