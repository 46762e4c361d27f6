"""The fleet, page after page, with a bar on stderr: for what a verifier does a page at a time and keeps no state of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from verifier.cli import output
from verifier.service.page_size import FIRST_PAGE, next_size


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
