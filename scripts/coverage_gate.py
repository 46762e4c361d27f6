"""Print coverage per package and fail when a pure package is below its floor (branches counted)."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import coverage

FLOORS = dict.fromkeys(
    (f"verifier/{name}" for name in ("tcg", "crypto", "appraisal", "policy", "predict")), 95.0
)


def main() -> int:
    """Combine what the test processes recorded and hold it against the floors."""
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        data.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    covered: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for name, entry in files.items():
        package = "/".join(Path(name).parts[:2]) if Path(name).parts[0] == "verifier" else "agent"
        package = package.removesuffix(".py")
        summary = entry["summary"]
        covered[package] += summary["covered_lines"] + summary["covered_branches"]
        total[package] += summary["num_statements"] + summary["num_branches"]
    out = io.StringIO()
    failed = False
    for package in sorted(total):
        percent = 100.0 * covered[package] / total[package] if total[package] else 100.0
        floor = FLOORS.get(package)
        low = floor is not None and percent < floor
        failed |= low
        note = f"  floor {floor:.0f} %" + ("  TOO LOW" if low else "") if floor else ""
        out.write(f"{package:<28}{percent:6.1f} %{note}\n")
    sys.stdout.write(out.getvalue())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
