"""One module per target: `target`, `seeds`, `RAISES`, and bounds where the usual ones do not fit."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

REGRESSIONS = Path(__file__).parent.parent / "regressions"
"""Inputs that once broke a target, by its name: they are run first, for ever."""


@dataclass(frozen=True, slots=True)
class Bound:
    """At most this much for each byte of the input, and that much whatever its size."""

    per_byte: int
    constant: int

    def of(self, data: bytes) -> int:
        return self.per_byte * len(data) + self.constant


MEMORY = Bound(64, 1 << 20)
"""Bytes that Python holds at most at any moment."""
CALLS = Bound(60, 20_000)
"""Function calls, Python's and C's: a clock that no other load on the machine turns."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed, and what may be expected of it."""

    name: str
    run: Callable[[bytes], None]
    raises: tuple[type[Exception], ...]
    make_seeds: Callable[[], Iterable[bytes]]
    runs: int
    memory: Bound
    calls: Bound

    def survives(self, data: bytes) -> bool:
        """Run it; whether it was read. Raises what may not be raised."""
        try:
            self.run(data)
        except self.raises:
            return False
        return True

    def seeds(self) -> list[bytes]:
        return list(dict.fromkeys(self.make_seeds()))

    def regressions(self) -> list[Path]:
        return sorted(path for path in (REGRESSIONS / self.name).glob("*") if path.is_file())


def names() -> list[str]:
    """Of all targets, without importing any."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def load(name: str) -> Target:
    """A target by its name."""
    module = importlib.import_module(f"{__name__}.{name}")
    return Target(
        name,
        module.target,
        module.RAISES,
        module.seeds,
        getattr(module, "RUNS", 400),
        getattr(module, "MEMORY", MEMORY),
        getattr(module, "CALLS", CALLS),
    )
