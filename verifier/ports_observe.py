"""What is observed of the service while it works: stages, waits, queues and caches. Nothing is ever decided by it.

Whoever works notes what happens, on the observation of the request it works for; the web layer makes metrics, log
lines and spans of it when the request is over. Without a request (command line, background work) nothing is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter_ns
from typing import Final, NamedTuple, Protocol

from verifier.appraisal.stages import Stage

MAX_PARTS: Final = 256
"""Bounds what one request notes: a stream may stay open for days."""


class Part(NamedTuple):
    """Work of the store or of a worker process for one request; nanoseconds of `perf_counter_ns`."""

    name: str
    asked: int
    begun: int
    """When its turn came: until then it waited in a queue."""
    ended: int


class StageSpan(NamedTuple):
    """A stage from its beginning to its end; nanoseconds of `perf_counter_ns`."""

    stage: Stage
    begun: int
    ended: int


@dataclass(slots=True)
class RetentionState:
    """What this process has dropped since its start, and from when on there is history, as it saw last."""

    verdicts: int = 0
    partitions: int = 0
    partition_bytes: int = 0
    judgements: int = 0
    blobs: int = 0
    events: int = 0
    leaves: int = 0
    history_begins: datetime | None = None


class Observation:
    """One request, as it goes on."""

    __slots__ = ("attester", "families", "id", "parts", "stages", "started", "status", "tenant", "trace_id")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.started = perf_counter_ns()
        self.attester: str | None = None
        """An attester that exists; never what a client merely says."""
        self.tenant: str | None = None
        self.trace_id: str | None = None
        self.stages: list[tuple[Stage, int]] = []
        """Stages entered, and when."""
        self.parts: list[Part] = []
        self.status: str | None = None
        """Tier of the verdict that was recorded."""
        self.families: frozenset[str] = frozenset()
        """Of the reasons why that is not affirming."""

    def elapsed(self) -> int:
        """Nanoseconds since the request's head was read."""
        return perf_counter_ns() - self.started

    def spans(self, ended: int) -> list[StageSpan]:
        """The stages, the last of them until `ended`."""
        ends = [*(at for _, at in self.stages[1:]), ended]  # each ended as the next began
        return [StageSpan(stage, begun, end) for (stage, begun), end in zip(self.stages, ends, strict=False)]

    def spent(self, ended: int) -> dict[Stage, int]:
        """Nanoseconds in each stage; one may have been entered again: evidence overtaken is judged anew."""
        spent: dict[Stage, int] = {}
        for stage, begun in reversed(self.stages):
            spent[stage] = spent.get(stage, 0) + ended - begun
            ended = begun
        return spent

    def note(self, part: Part) -> None:
        """Something was done for the request."""
        if len(self.parts) < MAX_PARTS:
            self.parts.append(part)


class RequestHead(NamedTuple):
    """Of a request, for its span."""

    method: str
    route: str | None
    """Template of the path; None: no route answers it."""
    scheme: str
    version: str
    """Of HTTP."""
    peer: str | None


class RequestTrace(Protocol):
    """The span of a request."""

    def end(self, status: int | None) -> None:
        """The reply is made; None: nobody waited for one."""


class RequestTracer(Protocol):
    """Makes spans of observations."""

    def begin(self, head: RequestHead, headers: Mapping[str, str], observation: Observation) -> RequestTrace:
        """Begin the span of a request, in the caller's trace if `headers` name one; sets `trace_id`."""


CURRENT: Final[ContextVar[Observation | None]] = ContextVar("vtpm_attest_observation", default=None)


def enter(stage: Stage) -> None:
    """A stage of the request at hand begins."""
    observation = CURRENT.get()
    if observation is not None:
        observation.stages.append((stage, perf_counter_ns()))


def about(tenant: str, attester: str | None = None) -> None:
    """Whom the request at hand concerns."""
    observation = CURRENT.get()
    if observation is not None:
        observation.tenant = tenant
        observation.attester = attester or observation.attester


def request_id() -> str:
    """Of the request at hand; empty where there is none."""
    observation = CURRENT.get()
    return "" if observation is None else observation.id


@contextmanager
def part(name: str) -> Iterator[None]:
    """Note how long this takes, as a part without a queue before it."""
    observation = CURRENT.get()
    if observation is None:
        yield
        return
    begun = perf_counter_ns()
    try:
        yield
    finally:
        observation.note(Part(name, begun, begun, perf_counter_ns()))


@dataclass(slots=True)
class QueueState:
    """A queue since the process started; counted by whoever keeps it."""

    waiting: int = 0
    taken: int = 0
    """Items whose turn has come."""
    waited: float = 0.0
    """Seconds all of those waited, in sum."""
    batches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCounts:
    """What waits for a person: enrolments, and incidents by kind."""

    pending_enrollments: int
    incidents: Mapping[str, int]


class CacheState(NamedTuple):
    """A cache since the process started."""

    hits: int
    misses: int
    entries: int
