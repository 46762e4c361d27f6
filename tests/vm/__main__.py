"""`make vm-test`, `make vm-test-all`: boot guests one after another and hold their verdicts against what is expected."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.vm.judging import differences, findings
from tests.vm.lab import Lab, elapsed
from tests.vm.machine import accelerator
from tests.vm.rootfs import RootFs, root_filesystem
from tests.vm.scenarios import SCENARIOS, Scenario
from tests.vm.tools import BUILD, ROOT, LabError, missing

console = Console(stderr=True, highlight=False)
RUNS = BUILD / "runs"
UNAVAILABLE = 69


@dataclass
class Result:
    """How a scenario went."""

    scenario: str
    story: str
    seconds: float = 0
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """0 when every verdict was as expected, 1 when one was not, 69 when guests cannot be booted here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that machines and verifiers are stopped
    arguments = _arguments()
    chosen = [one for one in SCENARIOS if _wanted(one, arguments)]
    if lacking := missing():
        console.print(
            f"[bold yellow]NO GUEST WAS BOOTED[/]: {', '.join(lacking)} missing; scripts/install-system-packages.sh vm"
        )
        return 0 if arguments.may_skip else UNAVAILABLE
    BUILD.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    console.print("guest's root file system: looking, building what is not there")
    try:
        files = root_filesystem()
    except LabError as error:
        console.print(f"[bold yellow]NO GUEST WAS BOOTED[/]: {escape(str(error))}")
        return 0 if arguments.may_skip else UNAVAILABLE
    how = accelerator(BUILD)
    console.print(
        f"guest's root file system: {elapsed(started)} s; {len(chosen)} scenarios under {how.split(',')[0]}"
    )
    results = [_judged(scenario, files, how) for scenario in chosen]
    _show(results)
    if arguments.json:
        print(json.dumps([vars(result) for result in results], indent=1))
    return 1 if any(result.wrong for result in results) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="names; those of `make test` by default")
    parser.add_argument("--all", action="store_true", help="every scenario")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--may-skip", action="store_true", help="it is no failure that guests cannot be booted here"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - {one.name for one in SCENARIOS}:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}")
    if arguments.list:
        for one in SCENARIOS:
            print(f"{one.name:20} {one.story}")
        sys.exit(0)
    return arguments


def _wanted(scenario: Scenario, arguments: argparse.Namespace) -> bool:
    if arguments.scenarios:
        return scenario.name in arguments.scenarios
    return arguments.all or scenario.quick


def _judged(scenario: Scenario, files: RootFs, how: str) -> Result:
    """Play it; what was wrong is in the result, and its files stay in build/vm/runs."""
    result, started = Result(scenario.name, scenario.story), time.monotonic()
    folder = RUNS / scenario.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lab = Lab(folder, how, files)
    try:
        _play(scenario, lab, result)
    except (LabError, OSError, RuntimeError) as error:
        result.wrong.append(f"{type(error).__name__}: {error}")
    finally:
        if result.wrong:
            lab.keep()
        lab.close()
    result.seconds = elapsed(started)
    if not result.wrong and "KEEP" not in os.environ:
        shutil.rmtree(folder)
    if result.wrong:
        console.print(
            f"{scenario.name}: [bold red]not as expected[/] ({result.seconds} s; {folder.relative_to(ROOT)})"
        )
        console.print(escape("\n".join(f"  {line}" for line in result.wrong)))
    else:
        console.print(f"{scenario.name}: [green]as expected[/] ({result.seconds} s)")
    return result


def _play(scenario: Scenario, lab: Lab, result: Result) -> None:
    for expected, verdict in zip_longest(scenario.expected, scenario.play(lab)):
        if verdict is None or expected is None:
            result.wrong.append(
                "fewer verdicts than expected" if verdict is None else "a verdict more than expected"
            )
            return
        result.verdicts.append(_short(verdict))
        (lab.folder / f"verdict{len(result.verdicts)}.json").write_text(json.dumps(verdict, indent=1))
        result.wrong += differences(expected, verdict)


def _short(verdict: dict[str, Any]) -> dict[str, Any]:
    return {
        "tier": verdict["status"],
        "lifecycle": verdict["lifecycle"],
        "findings": list(findings(verdict)),
    }


def _show(results: list[Result]) -> None:
    table = Table(title="Guests that really booted", title_justify="left", show_lines=True)
    for column in ("scenario", "verdicts", "findings", "s", "as expected"):
        table.add_column(column, overflow="fold")
    for result in results:
        tiers = "\n".join(
            f"{one['tier']}" + (f" ({one['lifecycle']})" if one["lifecycle"] != "enrolled" else "")
            for one in result.verdicts
        )
        told = "\n".join(name for one in result.verdicts for name in one["findings"])
        table.add_row(result.scenario, tiers, told, f"{result.seconds:.0f}", "no" if result.wrong else "yes")
    Console(stderr=True, width=140, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
