"""What a process of the tests makes once, and starts of the verifier share."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from verifier.store import upgrade
from verifier.web import app, openapi

# Of the constant routes; half of what it costs to start the service.
app.build_document = functools.cache(openapi.build_document)


def migrated(path: Path) -> None:
    """Put an empty database of this version there, as `upgrade` would; what is there already is left alone."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(_template(), path)


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vtpm-once-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    upgrade(f"sqlite:///{folder}/template.db")
    return folder / "template.db"
