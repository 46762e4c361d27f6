"""Follows one vCenter for as long as the verifier runs.

Logs in, reads, waits for changes, and begins anew when something breaks. Its failures are kept here: they age the
source's status and stop nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog

from verifier.appraisal.inventory import InventoryEvent, InventoryMachine, MachineKey
from verifier.inventory.compare import READ_FROM_RECORDS, events_between
from verifier.inventory.errors import (
    InventoryError,
    InventorySettingError,
    VcenterLoginError,
    VcenterSessionError,
    VcenterTimeoutError,
    VcenterUnreachableError,
)
from verifier.inventory.progress import ProgressCallback, SyncProgress
from verifier.inventory.registry import Registry
from verifier.inventory.settings import Login, VcenterSettings
from verifier.inventory.threads import in_thread
from verifier.inventory.vsphere.mirror import Mirror
from verifier.inventory.vsphere.reading import Reading, carry_over
from verifier.inventory.vsphere.session import VcenterSession
from verifier.ports import Clock

T = TypeVar("T")

_FIRST_PAUSE: Final = 1.0
_LOGOUT_LIMIT: Final = 3.0
_LOOK_FOR_PASSWORD: Final = 5.0
"""Seconds between looks whether a refused password was replaced."""


class VcenterSource:
    """One vCenter. `run` never returns and raises nothing but cancellation."""

    def __init__(
        self,
        settings: VcenterSettings,
        registry: Registry,
        clock: Clock,
        environ: Mapping[str, str],
        progress: ProgressCallback,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._environ = environ
        self._progress = progress
        self._mirror = Mirror()
        self._log = structlog.get_logger("vtpm_attest.inventory").bind(source=settings.name)
        self._events_since: datetime | None = None
        self._whole_at: datetime | None = None
        """When every machine's details were last read; None until then."""
        self._failures = 0
        self._problem: str | None = None
        self._refused: Login | None = None
        self._asked = asyncio.Event()
        """Somebody wants everything read anew: do not wait."""
        self._read_all = False
        self._began_with_nothing = True
        """Nothing is known of before this process, so nothing that is found can be called new."""

    async def run(self) -> None:
        """Follow the vCenter until cancelled."""
        self._began_with_nothing = not self._registry.of_source(self._settings.name)
        while True:
            try:
                await self._serve()
            except InventoryError as error:
                self._failed(error)
                await self._pause(error)

    async def sync(self) -> None:
        """Have every machine read again with the next answer, or try at once what is being waited for.

        A password that was refused is not sent again before its time: that would lock the account.
        """
        self._read_all = True
        self._asked.set()

    async def _serve(self) -> None:
        login = self._settings.credentials.read(self._environ)
        try:
            await self._follow(VcenterSession(self._settings, login))
        except VcenterLoginError:
            self._refused = login
            raise

    async def _follow(self, session: VcenterSession) -> None:
        polite = True
        try:
            await self._step(session, lambda: session.open(self._events_since))
            await self._cycle(session, listing=True)
            while True:
                await self._cycle(session, listing=False)
        except (VcenterUnreachableError, VcenterTimeoutError):
            polite = False
            raise
        finally:
            self._events_since = session.latest_event or self._events_since
            if polite:
                with contextlib.suppress(InventoryError, TimeoutError):
                    await in_thread(session.close, limit=_LOGOUT_LIMIT, name=self._thread)
            session.abort()

    async def _cycle(self, session: VcenterSession, *, listing: bool) -> None:
        """One round: wait for changes, read what changed, read events. The source is current at its end."""
        at_once = listing or self._asked.is_set() or bool(self._mirror.dirty)
        wait = 0 if at_once else math.ceil(self._settings.wait.total_seconds())
        updates = await self._step(session, lambda: session.poll(wait), wait)
        gone = self._mirror.take(updates, listing=listing)
        self._remove(gone)
        if listing:
            self._remove(self._vanished())
        now = self._clock.now()
        asked, self._read_all = self._read_all, False
        self._asked.clear()
        whole = asked or self._whole_at is None or now - self._whole_at >= self._settings.full_sync
        if whole:
            self._mirror.read_all_again()
        await self._read_details(session)
        events = await self._step(session, session.events)
        self._registry.apply(events=events)
        if whole:
            self._whole_at, self._began_with_nothing = now, False
        self._current(session.warnings, now if whole else None)

    async def _read_details(self, session: VcenterSession) -> None:
        todo = self._mirror.dirty
        if not todo:
            return
        done = 0
        self._advance(done, len(todo))
        pages = session.details(todo)
        while (page := await self._step(session, lambda: next(pages, None))) is not None:
            self._take_page(page)
            done += len(page)
            self._advance(min(done, len(todo)), len(todo))
        # Those that were asked for and not given are gone; vCenter tells so with the next changes.
        self._mirror.read(todo)
        self._advance(len(todo), len(todo))

    def _advance(self, done: int, total: int) -> None:
        progress = SyncProgress(self._settings.name, done, total)
        self._registry.advance(progress)
        self._progress(progress)

    def _take_page(self, page: list[Reading]) -> None:
        now = self._clock.now()
        machines: list[InventoryMachine] = []
        events: list[InventoryEvent] = []
        for reading in page:
            before = self._registry.get(reading.machine.key)
            machine = carry_over(before, reading.machine)
            machines.append(machine)
            # Of what is there when the source is first read, nothing is known to be new.
            if before is not None or not self._began_with_nothing:
                token = reading.version or now.isoformat()
                events += events_between(before, machine, at=now, token=token, kinds=READ_FROM_RECORDS)
        self._registry.apply(at=now, changed=machines, events=events)
        self._mirror.read(machine.key.id for machine in machines)

    def _remove(self, moids: tuple[str, ...]) -> None:
        now = self._clock.now()
        keys = [MachineKey(self._settings.name, moid) for moid in moids]
        events: list[InventoryEvent] = []
        for key in keys:
            before = self._registry.get(key)
            events += events_between(before, None, at=now, token="gone")  # noqa: S106 - names a reading
        self._registry.apply(removed=keys, events=events)

    def _vanished(self) -> tuple[str, ...]:
        """Machines that were known before this process and are not there any more."""
        known = self._mirror.known
        held = self._registry.of_source(self._settings.name)
        return tuple(one.key.id for one in held if one.key.id not in known)

    def _current(self, warnings: tuple[str, ...], read_at: datetime | None) -> None:
        unread = sum(1 for one in self._registry.of_source(self._settings.name) if one.problems)
        if unread:
            warnings = (*warnings, f"{unread} machines could not be read in full")
        self._registry.current(self._settings.name, at=self._clock.now(), read_at=read_at, warnings=warnings)
        if self._problem is not None or not self._failures:
            self._log.debug("inventory.current")
        if self._problem is not None:
            self._log.info("inventory.recovered")
        self._failures, self._problem, self._refused = 0, None, None

    def _failed(self, error: InventoryError) -> None:
        self._failures += 1
        if isinstance(error, VcenterSessionError) and self._failures == 1:
            self._log.info("inventory.session_lost", problem=str(error))
            return
        self._registry.failed(self._settings.name, str(error))
        if str(error) != self._problem:
            self._log.warning("inventory.failed", problem=str(error), kind=type(error).__name__)
        self._problem = str(error)

    async def _pause(self, error: InventoryError) -> None:
        longest = self._settings.retry.total_seconds()
        if isinstance(error, VcenterSessionError) and self._failures == 1:
            return  # sessions expire; a new one is all it takes
        if isinstance(error, VcenterLoginError):
            await self._wait_for_password()
            return
        pause = min(longest, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._asked.wait()
        # One question is one attempt at once; `_read_all` stays until everything was read.
        self._asked.clear()

    async def _wait_for_password(self) -> None:
        """Do not send a password again that was refused: vCenter locks accounts after a few."""
        until = asyncio.get_running_loop().time() + self._settings.login_retry.total_seconds()
        pause = min(_LOOK_FOR_PASSWORD, self._settings.retry.total_seconds())
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(pause)
            try:
                if self._settings.credentials.read(self._environ) != self._refused:
                    return
            except InventorySettingError:
                continue  # being replaced just now

    async def _step(self, session: VcenterSession, call: Callable[[], T], wait: float = 0) -> T:
        """One blocking call, within the time an answer may take (besides the time vCenter was told to wait)."""
        limit = wait + self._settings.timeout.total_seconds()
        try:
            return await in_thread(call, limit=limit, name=self._thread)
        except TimeoutError:
            session.abort()
            raise VcenterTimeoutError(
                self._settings.name, f"no answer within {timedelta(seconds=limit)}"
            ) from None

    @property
    def _thread(self) -> str:
        return f"inventory-{self._settings.name}"
