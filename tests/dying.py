"""Agent and verifier as processes that kill themselves between two steps: `python -m tests.dying agent|verifier ...`.

The programs are the real ones; around some of their methods there is a boundary at which SIGKILL strikes. It leaves
no time for anything: what was done is done, what was in memory is gone.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

AGENT_STEPS = {
    "agent.transport:Transport": ("post",),
    "agent.esapi:EsapiTpm": (
        "quote",
        "nv_attributes",
        "nv_define_extend",
        "nv_read",
        "nv_extend",
        "nv_certify",
    ),
    "agent.state:StateFile": ("save",),
}
VERIFIER_STEPS = {
    "verifier.service.challenge:ChallengeService": ("issue",),
    "verifier.service.attestation:AttestationService": ("attest",),
    "verifier.store.store:SqlStore": ("record", "release_secret"),
}
DIE_AT = "die-at"
"""File in the verifier's state folder that holds the name of a boundary; it is removed before the verifier dies."""


def kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("still alive")


def around(steps: dict[str, tuple[str, ...]], boundary: Callable[[str], None]) -> None:
    """Put a boundary before and after each of these methods."""
    for place, names in steps.items():
        module, _, owner = place.partition(":")
        __import__(module)
        kind = getattr(sys.modules[module], owner)
        for name in names:
            setattr(kind, name, _bounded(getattr(kind, name), name, boundary))


def _bounded(method: Any, name: str, boundary: Callable[[str], None]) -> Any:
    @functools.wraps(method)
    def bounded(*arguments: Any, **options: Any) -> Any:
        boundary(f"before {name}")
        result = method(*arguments, **options)
        boundary(f"after {name}")
        return result

    @functools.wraps(method)
    async def bounded_later(*arguments: Any, **options: Any) -> Any:
        boundary(f"before {name}")
        result = await method(*arguments, **options)
        boundary(f"after {name}")
        return result

    return bounded_later if inspect.iscoroutinefunction(method) else bounded


def agent(number: str, trace: str, *arguments: str) -> int:
    """Die at boundary `number`, counted from 0; the boundaries passed are written to `trace`."""
    from agent.cli import main

    left = int(number)

    def boundary(name: str) -> None:
        nonlocal left
        with Path(trace).open("a") as file:
            file.write(f"{name}\n")
        if left == 0:
            kill()
        left -= 1

    around(AGENT_STEPS, boundary)
    return main(list(arguments))


def verifier(state: str, *arguments: str) -> int:
    """Serve until `die-at` names the boundary that is reached."""
    from verifier.cli.attest_verifier import main

    order = Path(state) / DIE_AT

    def boundary(name: str) -> None:
        if order.exists() and order.read_text() == name:
            order.unlink()
            kill()

    around(VERIFIER_STEPS, boundary)
    sys.argv = ["attest-verifier", *arguments]
    main()
    return 0


if __name__ == "__main__":
    sys.exit({"agent": agent, "verifier": verifier}[sys.argv[1]](*sys.argv[2:]))
