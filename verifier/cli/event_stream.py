"""The verifier's stream of events as a client sees it: server-sent events (HTML, section 9.2), and coming back to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from verifier.cli.remote import HttpError, Remote, RemoteError, UnreachableError

PATH: Final = "/v1/events"
MEDIA_TYPE: Final = "text/event-stream"
TYPE_PREFIX: Final = "vtpm-attest."
READY, GAP, END = "ready", "gap", "end"
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_MAY_PASS: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream: its kind, the position after it, and what it says (the CloudEvent)."""

    kind: str
    position: str
    data: Mapping[str, Any]

    @property
    def is_event(self) -> bool:
        """Whether it tells of something that happened, and not of the stream itself."""
        return self.kind not in {READY, GAP, END}


def messages(lines: Iterable[bytes]) -> Iterator[Message]:
    """The messages in the lines of a stream; what is incomplete at its end is dropped, as the standard has it."""
    fields: dict[str, str] = {}
    for raw in lines:
        name, _, value = raw.decode().rstrip("\r\n").partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif "event" in fields:
            yield Message(fields["event"], fields.get("id", ""), json.loads(fields.get("data", "{}")))
        if not raw.strip():
            fields = {}


def stored(remote: Remote, query: Mapping[str, object | None], since: str) -> Iterator[Message]:
    """What is stored after `since`, and then the message `end`."""
    with remote.lines(PATH, {**query, "last_event_id": since, "follow": "false"}, MEDIA_TYPE) as lines:
        yield from messages(lines)


def followed(
    remote: Remote,
    query: Mapping[str, object | None],
    since: str | None,
    *,
    say: Callable[[str], None],
    pause: Callable[[float], object],
) -> Iterator[Message]:
    """A stream for ever: each event once and in order, over as many connections as it takes.

    Args:
        remote: the verifier.
        query: filters.
        since: go on after this position; None: from now on.
        say: is told when a connection is lost, and when there is one again.
        pause: waits so many seconds.

    Raises:
        RemoteError: the first connection fails, or a later one is refused for good (a token that was revoked).
    """
    position, lost, connected = since, 0, False
    while True:
        try:
            with remote.lines(PATH, {**query, "last_event_id": position}, MEDIA_TYPE) as lines:
                for message in messages(lines):
                    if lost:
                        say(
                            "connected again; nothing was missed"
                            if message.kind != GAP
                            else "connected again"
                        )
                    lost, connected = 0, True
                    position = message.position
                    yield message
            problem = "the verifier ended the stream"
            wait: float | None = None
        except RemoteError as error:
            if not connected or not may_pass(error):
                raise
            problem, wait = str(error), getattr(error, "retry_after", None)
        wait = wait or min(_FIRST_PAUSE * 2**lost, _LONGEST_PAUSE)
        lost += 1
        say(f"{problem}; trying again in {wait:g} s")
        pause(wait)


def may_pass(error: RemoteError) -> bool:
    """Whether trying again later is of use."""
    return isinstance(error, UnreachableError) or (isinstance(error, HttpError) and error.status in _MAY_PASS)
