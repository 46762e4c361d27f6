"""Structured logs to stderr, as JSON lines for machines or in colour for people. Secrets are never passed in."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import structlog

from verifier.ports_observe import CURRENT

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logs(
    form: Literal["auto", "json", "console"], level: str, stream: TextIO | None = None
) -> None:
    """Set up logging for the process; `stream` defaults to stderr. Libraries' own logs take the same form.

    `auto` is for people where they look on, at a terminal, and else for machines.
    """
    out = _Unfailing(stream or sys.stderr)
    if form == "auto":
        form = "console" if out.isatty() else "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _of_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(form, colors=out.isatty())
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()], processors=[meta, *renderers]
        )
    )
    # Libraries that use the standard logger (aiohttp) speak up only when something is wrong.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    server = logging.getLogger("aiohttp.server")
    server.filters = [_ProtocolNoise()]


class _Unfailing:
    """A stream that drops what it cannot write: a full disk under the log, or no log at all, is no reason to refuse a guest."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        """None: the process was started without stderr."""

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # the latter where it was closed
                return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()


def _of_request(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Which request a line belongs to, and whom that concerns: costs nothing where nothing is logged."""
    observation = CURRENT.get()
    if observation is not None:
        event["request_id"] = observation.id
        for name in ("tenant", "attester", "trace_id"):
            value = getattr(observation, name)
            if value is not None:
                event.setdefault(name, value)
    return event


def _renderers(form: Literal["json", "console"], *, colors: bool) -> list[Any]:
    if form == "json":
        # Tracebacks without local variables: those hold tokens and keys.
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(transformer), structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24, exception_formatter=plain)]


class _ProtocolNoise(logging.Filter):
    """What is not HTTP is the sender's fault: one line without its bytes, which may hold a credential."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or type(error).__module__ != "aiohttp.http_exceptions":
            return True
        structlog.get_logger("vtpm_attest.web").info("http.malformed", problem=type(error).__name__)
        return False
