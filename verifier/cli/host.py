"""What the commands of `attest-verifier` share: settings, an open service, messages, exit codes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

from cyclopts import Parameter

from verifier import main as root
from verifier.cli import output
from verifier.durations import Duration
from verifier.errors import EvidenceError, NotFoundError, VtpmAttestError
from verifier.logs import configure_logs
from verifier.settings import Settings, SettingsError, environment, load_settings

EXIT_USAGE: Final = 64
EXIT_INPUT: Final = 65
EXIT_UNAVAILABLE: Final = 69
EXIT_CONFIG: Final = 78

T = TypeVar("T")

Config = Annotated[Path | None, Parameter(name="--config", help="TOML file with settings.")]
Tenant = Annotated[str, Parameter(name="--tenant", help="Whose tokens; each tenant sees its own alone.")]
Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print one JSON document and nothing else."
    ),
]


def read_settings(config: Path | None, *, quiet: bool = True) -> Settings:
    """The settings; `quiet`: a command that answers and ends logs nothing but errors."""
    try:
        settings = load_settings(config, environment())
    except SettingsError as error:
        fail(
            EXIT_CONFIG,
            f"{error}\nnext: mend it, or name another file with --config; docs/settings.md has every key",
        )
    configure_logs(settings.log.format, "error" if quiet else settings.log.level)
    return settings


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end."""
    return asyncio.run(coroutine)


def run_serving(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on uvloop where that is installed (the extra `uvloop`), else on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def ask(settings: Settings, question: Callable[[root.Service], Awaitable[T]]) -> T:
    """Open the service beside a running one, put the question, and close it; leaves as `guarded` does."""

    async def put() -> T:
        async with root.open_service(settings) as service:
            return await question(service)

    return guarded(lambda: run(put()))


def guarded(action: Callable[[], T]) -> T:
    """Run it; what goes wrong on purpose is said on stderr with the next step, and is an exit code, no traceback."""
    try:
        return action()
    except EvidenceError as error:
        fail(EXIT_INPUT, f"{error}\nnext: {error.reason.entry.remedy}")
    except NotFoundError as error:
        fail(EXIT_INPUT, str(error))
    except VtpmAttestError as error:
        fail(EXIT_UNAVAILABLE, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        step = output.next_step(error)
        fail(EXIT_UNAVAILABLE, f"{where}{error.strerror or error}" + (f"\nnext: {step}" if step else ""))


def fail(code: int, text: str) -> NoReturn:
    """Say why, and leave."""
    say(f"attest-verifier: {text}")
    raise SystemExit(code)


def duration(option: str, text: str) -> timedelta:
    """A span as `90s`, `5m`, `24h`, `30d`; leaves with a usage error."""
    try:
        return Duration.parse(text)
    except ValueError as error:
        fail(EXIT_USAGE, f"{option}: {error}")


def time_text(moment: Any) -> str:  # noqa: ANN401 - datetime or None
    """RFC 3339, UTC; empty for None."""
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    out(json.dumps(document, indent=2))


def say(text: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(f"{text}\n")


def out(text: str) -> None:
    """A line of the answer, on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
