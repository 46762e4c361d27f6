"""`attest-agent wait`: until the agent of this machine has got the verdict that is waited for."""

from __future__ import annotations

import time
from typing import Final

from agent.commands import Clockwork, Output
from agent.config import Settings
from agent.errors import Exit, NotAttestedError
from agent.standing import DEFAULT_DIRECTORY, StandingFiles

_POLL: Final = 0.2
"""Seconds between two looks at a file in memory, while a boot waits."""


def wait(settings: Settings, output: Output, clockwork: Clockwork) -> int:
    """Return 0 once this machine is attested; asks neither TPM nor verifier.

    Raises:
        NotAttestedError: it was not within `attested_wait`.
    """
    files = StandingFiles(settings.runtime_dir or DEFAULT_DIRECTORY, settings.attested_on)
    started = time.monotonic()
    while (standing := files.attested(time.time())) is None:
        if time.monotonic() - started >= settings.attested_wait:
            raise _not_attested(settings, files)
        clockwork.sleep(_POLL)
    output.result(standing, f"attested: {standing.status}, valid until {standing.valid_until}")
    return Exit.AFFIRMING


def _not_attested(settings: Settings, files: StandingFiles) -> NotAttestedError:
    found = files.read()
    if found is None:
        why = "no verdict came"
    elif found.ended(time.time()):
        why = f"the last verdict, {found.status}, ended at {found.valid_until}"
    else:
        why = f"the verdict is {found.status}, and `attested_on` is {settings.attested_on!r}"
    return NotAttestedError(
        f"this machine was not attested within {settings.attested_wait:g} s: {why}",
        "`systemctl status attest-agent` says what the agent is waiting for, `attest-agent attest` shows what speaks "
        "against a verdict; attested.path reaches attested.target as soon as there is the right one",
    )
