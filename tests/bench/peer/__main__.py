"""`make bench-peer`: both verifiers on the same evidence, the ratios, and build/bench-peer.json."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.peer import ours
from tests.bench.peer.environment import environment, prepare
from tests.bench.peer.inputs import make
from tests.conftest import ROOT

_WORDS = {
    "quote rsa": "quote, RSA-2048: signature, nonce, 11 golden PCRs",
    "quote ecc": "quote, P-256: the same",
    "boot log": "boot log: parse and replay (ours binds every event as well)",
    "first boot": "first boot, P-256: quote, log and policy",
    "ima list": "IMA list: replay to PCR 10, every entry looked up",
}


def main() -> int:
    """Run both, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peer", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter for Keylime's environment")
    parser.add_argument("--entries", type=int, default=100_000, help="of the IMA list")
    options = parser.parse_args()
    folder = ROOT / "build" / "peer"
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    with console.status("installing Keylime"):
        interpreter = prepare(folder, options.python)
    with tempfile.TemporaryDirectory() as name, console.status("measuring"):
        inputs = make(Path(name), options.entries)
        answer = subprocess.run(
            [interpreter, Path(__file__).parent / "peer_side.py", name],
            env=environment(folder), stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        peer = json.loads(answer.stdout)
        mine = ours.measure(inputs)
    if peer["boot_refused"]:
        console.print(f"[yellow]Keylime's policy refused this boot: {peer['boot_refused']}[/]")
    rows = [
        {
            "name": name,
            "work": _WORDS[name],
            "peer_us": peer["rows"][name] * 1e6,
            "ours_us": cost * 1e6,
            "ratio": peer["rows"][name] / cost,
        }
        for name, cost in mine.items()
    ]
    console.print(_table(rows, peer["version"]))
    document = {"keylime": peer["version"], "entries": options.entries, "rows": rows}
    (ROOT / "build" / "bench-peer.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _table(rows: list[dict[str, object]], version: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("CPU of one core")
    for title in (f"Keylime {version}", "vtpm-attest", "ratio"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            str(row["work"]), f"{row['peer_us']:,.0f} us", f"{row['ours_us']:,.0f} us", f"{row['ratio']:.1f}x"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
