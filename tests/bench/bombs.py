"""What a hostile request costs: a row for each bomb of tests/fuzz/bombs.py. The MiB it may take are asserted in the tests."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.measure import Result
from tests.fuzz.bombs import BODIES, HEADS, IMPORTS, Blast, throw, throw_head, warm
from tests.fuzz.test_bombs import HEAD_MIB
from tests.stateful.site import Site
from verifier.logs import configure_logs

SECONDS: Final = 2.5
"""CPU, on one core, of this process: what makes and sends the request is in it, and the copy of the body that it needs."""
ROUNDS: Final = 2


def bombs() -> list[Result]:
    """The cheaper of two throws each: the first one of its kind loads what is loaded late."""
    configure_logs("json", "error", io.StringIO())
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        try:
            site.do(warm(site.verifier))
            for bomb in (*BODIES, *IMPORTS):
                data = bomb.make()
                blasts = [site.do(throw(site.verifier, bomb, data)) for _ in range(ROUNDS)]
                results.append(_row(bomb.name, f"{len(data):,} bytes", blasts, bomb.mib))
            for head in HEADS:
                blasts = [site.do(throw_head(site.verifier, head)) for _ in range(ROUNDS)]
                results.append(_row(head.name, f"{len(head.lines()):,} bytes", blasts, HEAD_MIB))
        finally:
            site.close()
    return results


def _row(name: str, size: str, blasts: list[Blast], most: int) -> Result:
    cpu, mib = min(one.cpu for one in blasts), max(one.mib for one in blasts)
    return Result(
        f"bomb: {name}",
        cpu * 1e3,
        "ms",
        f"{size}; {blasts[0].status}; {mib:.0f} MiB more",
        None,
        f"<= {SECONDS * 1e3:g} ms, {most} MiB",
        cpu <= SECONDS and mib <= most,
    )


BENCHES: Final = {"bombs": bombs}
