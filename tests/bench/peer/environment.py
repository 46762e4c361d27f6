"""Keylime in an environment of its own: packages pinned and hash-checked, a configuration that really evaluates."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_PARTS = ("verifier", "registrar", "tenant", "logging", "ca", "agent")
# The default policy for boot logs accepts everything, and evaluates it once in an agent's life.
_VERIFIER = """\
measured_boot_imports = []
measured_boot_policy_name = example
measured_boot_evaluate = always
"""
# Keylime imports the bindings of GnuPG, which are no package of Python's; only allowlists signed with PGP need them.
_NO_GPG = """\
class errors:
    class BadSignatures(Exception): ...


class Context: ...
"""


def prepare(folder: Path, python: str) -> Path:
    """The interpreter of its environment, made where there is none yet."""
    found = folder / "venv" / "bin" / "python"
    wanted = (_HERE / "requirements.txt").read_bytes()
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_bytes() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", folder / "venv"], check=True)
        subprocess.run(
            [found, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes", "-r",
             _HERE / "requirements.txt"],
            check=True,
        )  # fmt: skip
        stamp.write_bytes(wanted)
    return found


def environment(folder: Path) -> dict[str, str]:
    """What it needs to find its configuration, and nothing of ours."""
    stubs, state = folder / "stubs", folder / "state"
    for path in (stubs, state):
        path.mkdir(exist_ok=True)
    (stubs / "gpg.py").write_text(_NO_GPG)
    found = {name: value for name, value in os.environ.items() if not name.startswith(("KEYLIME", "PYTHON"))}
    for part in _PARTS:
        path = folder / f"{part}.conf"
        path.write_text(f"[{part}]\nversion = 2.5\n{_VERIFIER if part == 'verifier' else ''}")
        found[f"KEYLIME_{part.upper()}_CONFIG"] = str(path)
    return found | {"KEYLIME_DIR": str(state), "PYTHONPATH": str(stubs), "PYTHONWARNINGS": "ignore"}
