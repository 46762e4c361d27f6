"""A boot storm seen from outside: the queue in the metrics while it lasts, and afterwards who is in the fleet."""

from __future__ import annotations

import collections
import http.client
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tests.bench.fleet import host
from tests.bench.fleet.crew import Outcome

_WAITING = re.compile(r'^vtpm_attest_queue_waiting\{.*queue="([^"]+)".*\} ([0-9.e+]+)$', re.MULTILINE)


_CLOSED = re.compile(
    r'^vtpm_attest_connections_(?:shed|given_up)_total(?:\{.*what="([^"]+)".*\})? ([0-9.e+]+)$', re.MULTILINE
)
_KERNEL = re.compile(
    r"^vtpm_attest_(connections_waiting|handshakes|connections)(?:\{.*\})? ([0-9.e+]+)$", re.MULTILINE
)


@dataclass(frozen=True)
class Storm:
    """What a boot storm showed."""

    seconds: float
    """Until the last new guest had a verdict."""
    known: int
    known_attestations: int
    known_p50_ms: float
    known_p99_ms: float
    known_worst_ms: float
    sent_away: dict[str, int]
    """How often, of new and of known guests."""
    retry_after: list[float]
    """Of all times to come back, in seconds: least, median, most; then how many different ones."""
    queues: dict[str, float]
    """The most that waited in each, as `/metrics` said once a second."""
    closed: dict[str, float]
    """Connections that the verifier closed: given up, by why, or `shed` to make room."""
    peak_mb: list[float]
    """The most memory that each of the verifier's processes ever had."""
    attesters: int | None
    """That the API lists afterwards; None: it was not ours to ask."""


class Watcher:
    """Asks a verifier of our own: its metrics once a second, and its list of attesters at the end."""

    def __init__(self, own: host.Verifier) -> None:
        self._own = own
        self._token = host.api_token(own.config, "admin")
        self._tls = ssl.create_default_context(cafile=str(own.ca))
        self._tls.check_hostname = False
        self._over = threading.Event()
        self.most: dict[str, float] = collections.defaultdict(float)
        self.closed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> list[float]:
        """Stop watching; the peak of each process's memory, in MB."""
        self._over.set()
        self._thread.join()
        return sorted((host.Memory.of(pid).peak for pid in self._own.processes()), reverse=True)

    def attesters(self) -> Iterator[dict[str, Any]]:
        """Every one, page by page."""
        cursor = ""
        while cursor is not None:
            page = json.loads(self._get(f"/v1/attesters?limit=500{f'&cursor={cursor}' if cursor else ''}"))
            yield from page["attesters"]
            cursor = page.get("cursor")

    def _watch(self) -> None:
        while not self._over.wait(1):
            try:
                page = self._get("/metrics").decode()
            except OSError:
                continue
            waiting: dict[str, float] = collections.defaultdict(float)
            for queue, value in (*_WAITING.findall(page), *_KERNEL.findall(page)):
                waiting[queue] += float(value)
            self.closed = {
                what or "shed": float(value) for what, value in _CLOSED.findall(page) if float(value)
            }
            for queue, total in waiting.items():
                self.most[queue] = max(self.most[queue], total)

    def _get(self, path: str) -> bytes:
        split = urlsplit(self._own.url)
        connection = http.client.HTTPSConnection(
            split.hostname or "", split.port, context=self._tls, timeout=60
        )
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status} {content[:200]!r}")
            return content
        finally:
            connection.close()


def storm(outcomes: list[Outcome], watcher: Watcher | None, guests: int) -> tuple[Storm, list[str]]:
    """What it showed, and what must not be."""
    known = sorted(latency for out in outcomes for latency in out.known_latencies)
    away = {party: [s for out in outcomes for s in out.sent_away[party]] for party in ("new", "known")}
    every = sorted(away["new"] + away["known"])
    told = {name: said for out in outcomes for name, said in out.told.items()}
    wrong = [] if len(told) == guests else [f"{len(told)} of {guests} guests were told a verdict"]
    peak, listed = [], None
    if watcher is not None:
        peak, found = watcher.end(), list(watcher.attesters())
        listed = len(found)
        wrong += list(_differences(told, found))

    def at(share: float) -> float:
        return known[min(len(known) - 1, int(share * len(known)))] * 1e3 if known else 0.0

    return (
        Storm(
            seconds=max(out.seconds for out in outcomes),
            known=sum(out.known for out in outcomes),
            known_attestations=len(known),
            known_p50_ms=at(0.5),
            known_p99_ms=at(0.99),
            known_worst_ms=at(1.0),
            sent_away={party: len(times) for party, times in away.items()},
            retry_after=[every[0], median(every), every[-1], len(set(every))] if every else [],
            queues={} if watcher is None else {k: v for k, v in sorted(watcher.most.items()) if v},
            closed={} if watcher is None else watcher.closed,
            peak_mb=[round(value, 1) for value in peak],
            attesters=listed,
        ),
        wrong,
    )


def _differences(told: dict[str, tuple[str, str]], found: list[dict[str, Any]]) -> Iterator[str]:
    """Every guest has exactly one attester, and the verdict that it was told, which is the one it deserves."""
    names = collections.Counter(one["hostname"] for one in found)
    yield from (f"{name} is in the fleet {count} times" for name, count in names.items() if count > 1)
    listed = {one["id"]: (one["hostname"], one["status"]) for one in found}
    yield from (f"{name} enrolled and is not in the fleet" for name in told.keys() - listed.keys())
    yield from (f"{name} is in the fleet and was never told so" for name in listed.keys() - told.keys())
    for name, said in told.items():
        if name in listed and listed[name] != said:
            yield f"{name} was told {said}, the fleet says {listed[name]}"
