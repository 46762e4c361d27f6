"""The fleet, page after page, with a bar on stderr: for what a verifier does a page at a time and keeps no state of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from verifier.cli import output

FIRST_PAGE: Final = 25
LARGEST_PAGE: Final = 200
_QUICK: Final = 3.0
_SLOW: Final = 8.0


def each_page(
    ask: Callable[[str | None, int], Mapping[str, Any]],
    take: Callable[[Mapping[str, Any]], None],
    *,
    total: int | None,
    start: str | None = None,
) -> None:
    """Ask for one page after the other, from `start` on, and hand each over; `ask` is given its cursor and size."""
    columns = (
        SpinnerColumn(),
        TextColumn("judging again"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=output.err, transient=True, disable=not output.err.is_terminal
    ) as progress:
        task, cursor, size = progress.add_task("", total=total), start, FIRST_PAGE
        while True:
            begun = time.monotonic()
            page = ask(cursor, size)
            size = next_size(size, time.monotonic() - begun)
            take(page)
            progress.advance(task, page["counts"]["examined"])
            cursor = page.get("cursor")
            if cursor is None:
                return


def next_size(size: int, seconds: float) -> int:
    """How large the next page is, after one of `size` took so long.

    Guests with long IMA lists take a thousand times as long as others: a page must be answered long before the
    connection is given up, and Ctrl-C must not wait.
    """
    if seconds > _SLOW:
        return max(size // 2, 1)
    return min(size * 2, LARGEST_PAGE) if seconds < _QUICK else size
