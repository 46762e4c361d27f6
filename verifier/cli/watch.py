"""`attestctl watch`: the fleet as it changes, a table on a terminal and a line per change elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from verifier.cli import output
from verifier.cli.event_stream import may_pass
from verifier.cli.events import JsonLines
from verifier.cli.fleet import Where
from verifier.cli.remote import Remote, RemoteError
from verifier.cli.watch_fleet import Change, Fleet, State
from verifier.cli.watch_source import Listener, Lost, Reader

_TICK: Final = 1.0
_LIVE_INTERVAL: Final = 15.0
"""Seconds between looks at the counts while a stream tells of changes."""
_SHORTEST: Final = 1.0
_RECENT: Final = 5
_AROUND: Final = _RECENT + 6
"""Lines of the screen that are not machines."""


def watch(
    *,
    label: str | None = None,
    status: State | None = None,
    interval: float = 5.0,
    jsonl: JsonLines = False,
    where: Where | None = None,
) -> int:
    """Show the fleet as it changes, the worst first, until Ctrl-C (exit code 130).

    On a terminal a live table; elsewhere a line for each machine whose state changes. It hears of changes from the
    stream of events; where there is none, it says so and asks again every --interval seconds. With --json the fleet as
    it is now, once.

    Example:
        attestctl watch --label role=web
        attestctl watch --status contraindicated | tee changes.log
        attestctl watch --jsonl | jq -r 'select(.after == "stale").hostname'
        attestctl watch --json

    Args:
        label: only machines with this label, KEY=VALUE.
        status: only machines in this state; lines also tell who leaves it.
        interval: seconds between questions while there is no stream, at least 1.
        jsonl: print one JSON document per change: id, hostname, before, after, reasons, seen_at.
    """
    at = where or Where()
    if at.json and jsonl:
        output.usage("--json prints one document and ends, --jsonl prints one per change: choose one")
    if interval < _SHORTEST:
        output.usage(f"--interval {interval:g}: at least {_SHORTEST:g} second")
    if at.json:
        output.print_json(at.ask(lambda remote: _snapshot(remote, label, status)))
        return 0

    def question(remote: Remote) -> None:
        if output.out.is_terminal and not jsonl:
            _follow(remote, label, interval, _Screen(remote.server, status))
        else:
            _follow(remote, label, interval, _Lines(status, jsonl=jsonl))

    at.ask(question)
    return 0


def _snapshot(remote: Remote, label: str | None, state: State | None) -> object:
    reader = Reader(remote, label)
    reader.all()
    return {"counts": reader.fleet.counts(), "machines": reader.fleet.shown(state)}


class _View(Protocol):
    def begin(self, fleet: Fleet) -> None:
        """It was read for the first time."""

    def update(self, fleet: Fleet, changes: list[Change]) -> None:
        """Something may have changed; time went on."""

    def connection(self, problem: str | None) -> None:
        """How it stands with the stream of events; None: well."""

    def end(self) -> None:
        """Leave the terminal as it should be."""


def _follow(remote: Remote, label: str | None, interval: float, view: _View) -> None:
    """Show a fleet for ever. Raises `RemoteError` where going on is of no use."""
    reader = Reader(remote, label)
    listener = Listener(remote, label)
    reader.all()
    view.begin(reader.fleet)
    live, anew, due = False, False, time.monotonic() + interval
    try:
        while True:
            heard = listener.wait(_TICK)
            messages = [each for each in heard if not isinstance(each, Lost)]
            for each in heard:
                was, live = live, not isinstance(each, Lost)
                if isinstance(each, Lost):
                    view.connection(each.why)
                elif not was:
                    view.connection(None)
                    anew = True  # what happened while there was no stream
            changes = _tried(partial(reader.of, messages), view) if messages else []
            if anew or time.monotonic() >= due:
                changes += _tried(reader.unless_same if live and not anew else reader.all, view)
                anew = False
                due = time.monotonic() + (_LIVE_INTERVAL if live else interval)
            view.update(reader.fleet, changes)
    finally:
        view.end()


def _tried(read: Callable[[], list[Change]], view: _View) -> list[Change]:
    """What reading brought; nothing where the verifier is away for now."""
    try:
        return read()
    except RemoteError as error:
        if not may_pass(error):
            raise
        view.connection(str(error).splitlines()[0])
        return []


class _Lines:
    """A line per change on stdout; what is not a change, on stderr."""

    def __init__(self, state: State | None, *, jsonl: bool) -> None:
        self._state = state
        self._jsonl = jsonl
        self._problem: str | None = "connecting"

    def begin(self, fleet: Fleet) -> None:
        output.remark(f"watching {_summary(fleet)}")

    def update(self, fleet: Fleet, changes: list[Change]) -> None:  # noqa: ARG002 - of the protocol
        for change in changes:
            if change.concerns(self._state):
                self._print(change)

    def connection(self, problem: str | None) -> None:
        if problem != self._problem:
            output.remark(problem or "live: the stream of events tells of changes")
        self._problem = problem

    def end(self) -> None:
        """Nothing to leave."""

    def _print(self, change: Change) -> None:
        now = f"{output.utcnow():%Y-%m-%dT%H:%M:%SZ}"
        if not self._jsonl:
            output.out.print(f"{now}  {_words(change)}", soft_wrap=True)
            return
        machine = change.machine
        output.print_line(
            {
                "id": machine.id,
                "hostname": machine.hostname,
                "before": change.before,
                "after": change.after,
                "reasons": machine.reasons,
                "seen_at": now,
            }
        )


class _Screen:
    """A table that is drawn again, as many machines as fit, and what changed last below it."""

    def __init__(self, server: str, state: State | None) -> None:
        self._server = server
        self._state = state
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._problem: str | None = "connecting"
        self._live = Live(console=output.out, auto_refresh=False)

    def begin(self, fleet: Fleet) -> None:
        self._live.start()
        self.update(fleet, [])

    def update(self, fleet: Fleet, changes: list[Change]) -> None:
        for change in changes:
            if change.concerns(self._state):
                self._recent.append(f"[dim]{output.utcnow():%H:%M:%SZ}[/]  {_words(change)}")
        self._live.update(self._drawn(fleet), refresh=True)

    def connection(self, problem: str | None) -> None:
        self._problem = problem

    def end(self) -> None:
        self._live.stop()

    def _drawn(self, fleet: Fleet) -> RenderableType:
        mood = "[green]live[/]" if self._problem is None else f"[yellow]{escape(self._problem)}[/]"
        machines = fleet.shown(self._state)
        room = max(output.out.height - _AROUND, 3)
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for column, ratio in (("machine", 3), ("state", None), ("judged", None), ("expires", None), ("why", 4), ("id", None)):  # fmt: skip
            table.add_column(column, ratio=ratio, no_wrap=True, overflow="ellipsis")
        for each in machines[:room]:
            table.add_row(
                escape(each.hostname),
                output.tier_text(each.state),
                output.when(each.judged_at),
                output.when(each.valid_until),
                escape(", ".join(each.reasons)),
                each.id,
            )
        hidden = len(machines) - room
        more = [Text(f"and {hidden} more, none of them worse", style="dim")] if hidden > 0 else []
        head = Text.from_markup(f"[bold]{escape(self._server)}[/]  {_summary(fleet)}  {mood}")
        recent = [Text.from_markup(line) for line in self._recent]
        for line in (head, *recent):
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(head, Text(), table, *more, Text(), *recent)


def _summary(fleet: Fleet) -> str:
    counts = fleet.counts()
    total = sum(counts.values())
    parts = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{total} machine{'' if total == 1 else 's'}" + (f": {parts}" if parts else "")


def _words(change: Change) -> str:
    machine = change.machine
    before = output.tier_text(change.before) if change.before else "new"
    after = output.tier_text(change.after) if change.after else "not there any more"
    reasons = (
        f"  {escape(', '.join(machine.reasons))}"
        if change.after in {"warning", "contraindicated", "none"}
        else ""
    )
    return f"{escape(machine.hostname or '?')} ({machine.id})  {before} -> {after}{reasons}"
