"""A part of the composition root: the transparency log, from settings to use cases."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from verifier.keys.log_keys import FileLogKeys
from verifier.ports import Clock
from verifier.service.log_proofs import LogProofs
from verifier.service.log_sequencer import LogSequencer
from verifier.service.recorder import Recorder
from verifier.settings import Settings
from verifier.settings_transparency import witness_keys
from verifier.store import SqlStore

KEYS: Final = "log"
"""Folder of the log's keys in the state directory."""


def wire_log(
    settings: Settings, store: SqlStore, recorder: Recorder, clock: Clock
) -> tuple[LogSequencer, LogProofs]:
    """What extends the log and what shows it. Raises `VerifierFault` for keys that cannot be used."""
    own = settings.transparency
    keys = log_keys(settings, clock)
    sequencer = LogSequencer(
        store=store, keys=keys, recorder=recorder, clock=clock, pause=own.interval, required=own.required
    )
    return sequencer, LogProofs(store, recorder, clock, witness_keys(own))


def log_keys(settings: Settings, clock: Clock) -> FileLogKeys:
    """Those of the state directory, made where there are none."""
    return FileLogKeys(settings.state_dir / KEYS, _origin(settings), clock.now)


def _origin(settings: Settings) -> str:
    url = urlsplit(settings.base_url)
    return settings.transparency.origin or f"{url.netloc}{url.path.rstrip('/')}/log"
