"""Where `attestctl watch` hears that something changed: the stream of events, read beside whoever shows the fleet."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from verifier.cli.event_stream import GAP, Message, followed
from verifier.cli.remote import Remote, RemoteError
from verifier.cli.watch_fleet import Change, Fleet

_PAGE: Final = 500
_RETRY_STREAM: Final = 30.0
_ONE_BY_ONE: Final = 20
"""More machines that changed at once than this, and all are read anew."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no stream for now, and why."""

    why: str


Heard = Message | Lost


class Listener:
    """Follows the stream in a thread of its own, which ends with the process: a read from a socket cannot be interrupted.

    Args:
        remote: the verifier.
        label: only events about attesters with it.
    """

    def __init__(self, remote: Remote, label: str | None) -> None:
        self._remote = remote
        self._label = label
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self, seconds: float) -> list[Heard]:
        """What was heard, as soon as there is something; nothing after so many seconds."""
        heard: list[Heard] = []
        with suppress(queue.Empty):
            heard.append(self._heard.get(timeout=seconds))
            while True:
                heard.append(self._heard.get_nowait())
        return heard

    def _listen(self) -> None:
        pause = threading.Event().wait
        while True:
            try:
                query = {"label": self._label}
                for message in followed(self._remote, query, None, say=self._say, pause=pause):
                    self._heard.put(message)
            except RemoteError as error:
                self._say(f"no stream of events ({str(error).splitlines()[0]})")
                pause(_RETRY_STREAM)

    def _say(self, text: str) -> None:
        self._heard.put(Lost(text))


class Reader:
    """Reads the fleet, as little of it as will do.

    Args:
        remote: the verifier.
        label: only attesters with it.
    """

    def __init__(self, remote: Remote, label: str | None) -> None:
        self.fleet = Fleet()
        self._remote = remote
        self._label = label
        self._counts: Any = None

    def all(self) -> list[Change]:
        """Read every machine."""
        self._counts = self._remote.get("/v1/status")
        items: list[Mapping[str, Any]] = []
        cursor = None
        while True:
            query = {"label": self._label, "limit": _PAGE, "cursor": cursor}
            reply = self._remote.get("/v1/attesters", query)
            items += reply["attesters"]
            cursor = reply.get("cursor")
            if cursor is None:
                return self.fleet.replace(items)

    def unless_same(self) -> list[Change]:
        """Read every machine if the counts are others than before: verdicts run out without an event."""
        return [] if self._remote.get("/v1/status") == self._counts else self.all()

    def of(self, heard: list[Message]) -> list[Change]:
        """Read the machines that these messages tell of."""
        named = [each.data.get("data", {}).get("attester_id") for each in heard if each.is_event]
        attesters = list(dict.fromkeys(name for name in named if name))
        if any(each.kind == GAP for each in heard) or len(attesters) > _ONE_BY_ONE:
            return self.all()
        return [change for name in attesters for change in self._one(name)]

    def _one(self, number: str) -> list[Change]:
        reply = self._remote.get("/v1/attesters", {"label": self._label, "search": number})
        found = {item["id"]: item for item in reply["attesters"]}
        return self.fleet.put(number, found.get(number))
