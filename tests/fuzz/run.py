"""One target: over files, to see what one of them does; or under atheris, which has to be installed (`make fuzz` does)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import load

USAGE = """usage: python -m tests.fuzz.run TARGET FILE...            what it makes of these inputs
       python -m tests.fuzz.run TARGET --atheris OPTION...  look for more, with options of libFuzzer"""


def replay(name: str, files: Sequence[str]) -> int:
    """Run a target over files; what may not be raised comes out with its traceback."""
    target = load(name)
    for file in files:
        print(file, "read" if target.survives(Path(file).read_bytes()) else "refused")
    return 0


def explore(name: str, options: Sequence[str]) -> None:
    """Under atheris, until its options end it; the first fault ends it too."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["verifier", "agent"], enable_loader_override=False):
        target = load(name)
        target.seeds()  # what is imported late is instrumented as well
    atheris.Setup([f"fuzz-{name}", *options], target.survives, internal_libfuzzer=True)
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case [name, "--atheris", *options]:
            explore(name, options)
            return 0
        case [name, _, *_]:
            return replay(name, arguments[1:])
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
