"""How the transparency log stands, for Prometheus."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

import prometheus_client as prom

from verifier.ports_log import LogFigures

_TEXTS: Final = {
    "size": "Leaves in the tree of the transparency log",
    "waiting": "Leaves that are not in the tree yet",
    "oldest_waiting_seconds": "Age of the oldest of them; 0: there are none",
    "checkpoint_timestamp_seconds": "When the log was signed last; NaN: never",
    "witnesses": "Witnesses of the newest checkpoint that was cosigned at all",
    "damaged": "1 while the log is not what was signed, so that nothing is added or signed",
}


class LogGauges:
    """Gauges `vtpm_attest_log_*`."""

    def __init__(self, registry: prom.CollectorRegistry) -> None:
        self._gauges = {
            name: prom.Gauge(f"vtpm_attest_log_{name}", text, registry=registry)
            for name, text in _TEXTS.items()
        }

    def set(self, figures: LogFigures | None, now: datetime, *, damaged: bool) -> None:
        """Replace what was said before; `figures` None: the database did not say."""
        self._gauges["damaged"].set(damaged)
        told = dict.fromkeys(_TEXTS.keys() - {"damaged"}, math.nan)
        if figures is not None:
            oldest, signed = figures.oldest_waiting, figures.checkpoint_at
            told = {
                "size": figures.size,
                "waiting": figures.waiting,
                "oldest_waiting_seconds": 0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0),
                "checkpoint_timestamp_seconds": math.nan if signed is None else signed.timestamp(),
                "witnesses": figures.witnesses,
            }
        for name, value in told.items():
            self._gauges[name].set(value)
