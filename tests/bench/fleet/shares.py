"""A fixed share of a processor for each worker of a verifier: control groups of Linux, version 1 (`cpu`) or 2.

With a share of its own a worker is as fast as it is, whatever guests and database need beside it: what two workers do and one
does can then be compared by the clock, on a machine that has not a processor for each of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PERIOD_US: Final = 10_000
"""A worker that has used its share up stands still until the next period begins: short, or it shows in latencies."""
_LEAST_US: Final = 1_000
"""The kernel takes no smaller quota."""
_LONGEST_US: Final = 1_000_000
_REMOVAL: Final = 5.0
"""Seconds that processes which begin or end just then are waited for."""
NEEDED: Final = (
    "a share of a processor needs a control group: Linux, root, and the cgroup controller `cpu`"
    " (version 1 mounted, or version 2 with `cpu` in cgroup.subtree_control of a group above this process)"
)


class NoShareError(Exception):
    """No control group can be made here; the text says what is needed."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where control groups can be made that limit the use of processors."""

    folder: Path
    """The group that they are made in: this process's own, or one above it."""
    unified: bool
    """Version 2."""


def found(mounts: str, own: str) -> list[Hierarchy]:
    """Places to try, best first. `mounts`: text of /proc/self/mountinfo; `own`: of /proc/self/cgroup."""
    paths = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines())}
    places = []
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        root, point = (_plain(field) for field in head.split()[3:5])
        kind, _, options = tail.split(maxsplit=2)
        if kind == "cgroup" and "cpu" in options.split(","):
            path = next((path for names, path in paths.items() if "cpu" in names.split(",")), "/")
            places.append(Hierarchy(_below(point, root, path), unified=False))
        elif kind == "cgroup2":
            # Groups with processes in them can have no limited ones below: often the place is further up.
            nearest, top = _below(point, root, paths.get("", "/")), Path(point)
            above = [folder for folder in nearest.parents if folder == top or top in folder.parents]
            places += [Hierarchy(folder, unified=True) for folder in (nearest, *above)]
    return sorted(places, key=lambda place: place.unified)


def _below(point: str, root: str, path: str) -> Path:
    """Where a group is seen; the mount shows the hierarchy from `root` on."""
    inside = os.path.relpath(path, root)
    return Path(point) if inside.startswith("..") else Path(os.path.normpath(f"{point}/{inside}"))


def _plain(field: str) -> str:
    """Mountinfo writes blanks and their like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def quota(share: float) -> tuple[int, int]:
    """Microseconds of processor time for each period, and the period; one processor is 1.0.

    Raises:
        ValueError: less than the kernel can give, or nothing.
    """
    period = max(PERIOD_US, round(_LEAST_US / share)) if share > 0 else _LONGEST_US + 1
    if period > _LONGEST_US:
        raise ValueError(
            f"a share of {share:g} of a processor: at least {_LEAST_US / _LONGEST_US:g} is possible"
        )
    return round(share * period), period


@contextlib.contextmanager
def limited(
    families: Sequence[Callable[[], Sequence[int]]], share: float, places: Sequence[Hierarchy] | None = None
) -> Iterator[list[Path]]:
    """Until the end of the block each family of processes has this share of a processor, in a control group of its own.

    Args:
        families: each says which processes belong to it just now; such as they start later belong to it, too.
        share: 1.0 is one processor.
        places: instead of those that this process's mounts show.

    Raises:
        NoShareError: no control group can be made.
        ValueError: there is no such share.
    """
    amount = quota(share)
    if places is None:
        places = _mounted()
    with contextlib.ExitStack() as stack:
        made = []
        for number, family in enumerate(families):
            group, home = _group(places, f"vtpm-fleet-{os.getpid()}-{number}", amount)
            stack.callback(_removed, group, home)
            made.append(group)
            _moved(family, group)
        yield made


def refused(share: float) -> str | None:
    """Why nobody can be given this share here; None: it can be done."""
    try:
        with limited([list], share):
            return None
    except NoShareError as error:
        return str(error)


def _mounted() -> list[Hierarchy]:
    try:
        return found(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    except OSError as error:
        raise NoShareError(f"{NEEDED}; {error}") from error


def _group(places: Sequence[Hierarchy], name: str, amount: tuple[int, int]) -> tuple[Path, Path]:
    """A new one with this limit, and this process's own, in which whatever it started was until now."""
    refused = "no such hierarchy is mounted"
    for place in places:
        group = place.folder / name
        try:
            if place.unified and "cpu" not in (place.folder / "cgroup.subtree_control").read_text().split():
                (place.folder / "cgroup.subtree_control").write_text("+cpu")
            group.mkdir()
            _limit(group, amount, unified=place.unified)
        except OSError as error:
            refused = f"{place.folder}: {error.strerror or error}"
            with contextlib.suppress(OSError):
                group.rmdir()
        else:
            home = next(one.folder for one in places if one.unified is place.unified)
            return group, home
    raise NoShareError(f"{NEEDED}; {refused}")


def _limit(group: Path, amount: tuple[int, int], *, unified: bool) -> None:
    if unified:
        (group / "cpu.max").write_text(f"{amount[0]} {amount[1]}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(amount[1]))
        (group / "cpu.cfs_quota_us").write_text(str(amount[0]))


def _moved(family: Callable[[], Sequence[int]], group: Path) -> None:
    """All of them, with those that were started meanwhile: what is started from within the group is in it."""
    inside: set[int] = set()
    while missing := set(family()) - inside:
        for pid in missing:
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(pid))
        inside |= missing


def _removed(group: Path, home: Path) -> None:
    """Processes that are left go on without the limit."""
    until = time.monotonic() + _REMOVAL
    while True:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (home / "cgroup.procs").write_text(pid)
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
