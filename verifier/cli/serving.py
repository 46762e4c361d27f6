"""`attest-verifier serve`: one process, or several under a parent; started by hand or by a service manager."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from verifier import main as root
from verifier.cli import host
from verifier.composition import VERSION
from verifier.errors import VerifierFault
from verifier.keys.tls import TlsFiles
from verifier.serving.manager import Manager, activated, hand_to_successor
from verifier.serving.place import Alone, Ending, Worker
from verifier.serving.sockets import Sockets, address_of, listen
from verifier.serving.supervisor import Supervisor
from verifier.serving.worker import METRICS, placement
from verifier.settings import Settings, SettingsError, environment, load_settings

MAX_WORKERS: Final = 256


def serve(config: Path | None, workers: int) -> None:
    """Serve until told to end; leaves with an exit code where that is not possible."""
    settings = host.read_settings(config, quiet=False)
    place = placement(environment())
    if place is not None:
        host.guarded(lambda: host.run_serving(root.serve(settings, Worker(place))))
        return
    if not 1 <= workers <= MAX_WORKERS:
        host.fail(
            host.EXIT_USAGE, f"--workers {workers}: between 1 and {MAX_WORKERS}, about one for each core"
        )
    manager = Manager.of(environment())
    slots = host.guarded(lambda: _slots(settings, workers))
    if workers == 1:
        _alone(config, settings, slots[0], manager)
    else:
        _several(config, settings, slots, manager)


def _slots(settings: Settings, workers: int) -> list[Sockets]:
    """What the service manager opened, for all of them together; else what the settings say, for each its own."""
    given = tuple(activated(environment()))
    if given:
        return [given] * workers
    return listen(settings.listen.host, settings.listen.port, workers)


def _alone(config: Path | None, settings: Settings, sockets: Sockets, manager: Manager) -> None:
    place = Alone(
        sockets,
        manager,
        announce=lambda tls: _announce(sockets, tls),
        usable=lambda: _usable(config),
    )
    ending = host.guarded(lambda: host.run_serving(root.serve(settings, place)))
    if ending is Ending.RELOAD and not place.stopped():
        successor = hand_to_successor(environment(), sockets)
        os.execve(sys.executable, _command(config), successor)  # noqa: S606 - itself
    manager.stopping()


def _several(config: Path | None, settings: Settings, slots: list[Sockets], manager: Manager) -> None:
    tls = host.guarded(lambda: host.run(root.prepare(settings)))
    with tempfile.TemporaryDirectory(prefix="vtpm-attest-") as shared:
        _supervise(config, slots, manager, tls, Path(shared))


def _supervise(
    config: Path | None, slots: list[Sockets], manager: Manager, tls: TlsFiles, shared: Path
) -> None:
    """Keep the workers; `shared`: where they leave their metrics for each other."""
    supervisor = Supervisor(
        command=_command(config),
        slots=slots,
        environment={**environment(), METRICS: str(shared)},
        manager=manager,
        # Beyond what a worker gives its own requests.
        grace=root.SHUTDOWN + 10,
        # Nobody else names what of the anchors is passed over: workers leave that to their parent.
        usable=lambda: _usable(config, quiet=False),
    )
    host.guarded(lambda: host.run(supervisor.run(lambda: _announce(slots[0], tls, len(slots)))))


def _command(config: Path | None) -> list[str]:
    """This command again, for one process."""
    start = "from verifier.cli.attest_verifier import main; main()"
    named = [] if config is None else ["--config", str(config)]
    return [sys.executable, "-c", start, "serve", *named]


def _check(config: Path | None) -> None:
    try:
        load_settings(config, environment())
    except SettingsError as error:
        raise VerifierFault(str(error)) from error


async def _usable(config: Path | None, *, quiet: bool = True) -> bool:
    """Whether a successor would start: a rehearsal, as the single process that would find out too late is gone."""
    try:
        _check(config)
    except VerifierFault as error:
        host.say(f"attest-verifier: not reloaded, the running settings stay: {error}")
        return False
    named = None if config is None else str(config)
    program = f"from verifier.cli.serving import rehearse; rehearse({named!r}, quiet={quiet})"
    rehearsal = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        code = await rehearsal.wait()
    except asyncio.CancelledError:
        rehearsal.kill()
        raise
    if code != 0:
        host.say("attest-verifier: not reloaded, what runs goes on; why is said above")
        return False
    return True


def rehearse(config: str | None, *, quiet: bool) -> None:
    """All of a start but the serving; leaves with an exit code where that is not possible."""
    settings = host.read_settings(None if config is None else Path(config), quiet=quiet)
    host.guarded(lambda: host.run(root.prepare(settings)))


def _announce(sockets: Sockets, tls: TlsFiles, workers: int = 1) -> None:
    by = f" with {workers} workers" if workers > 1 else ""
    host.out(f"vtpm-attest verifier {VERSION}{by} listening on {address_of(sockets[0])}")
    fingerprint = tls.ca_fingerprint()
    if fingerprint is not None:
        host.out(f"CA {tls.ca} SHA-256 {fingerprint.hex()}")
