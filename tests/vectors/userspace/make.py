"""Make the vectors of this folder with a software TPM. See README.md.

    python -m tests.vectors.userspace.make [NAME...]

Each is what `attest-agent collect` writes of a machine on a TPM of its own: keys, nonces and signatures are new with
every run, what was measured is the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import swtpm
from tests.real_systemd import Machine

FOLDER = Path(__file__).parent
OTHER = "0" * 31 + "1"
BOOTS: Mapping[str, Mapping[str, Any]] = {
    "systemd-262": {},
    "systemd-262-other-machine": {"machine_id": OTHER},
    "systemd-262-encrypted": {"encrypted": True},
    "systemd-259": {"secret": b"a secret that only this machine has"},
}


def make(name: str) -> None:
    """Boot, measure, collect, keep."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = swtpm.manufacture(folder / "tpm", folder / "ca", certificates=False)
        with swtpm.Swtpm(made.state) as tpm:
            machine = Machine(tpm, folder)
            machine.systemd.boot(**BOOTS[name])
            bundle = json.loads(machine.collected().read_text())
    (FOLDER / f"{name}.json").write_text(json.dumps(bundle, indent=1) + "\n")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or BOOTS:
        make(chosen)
