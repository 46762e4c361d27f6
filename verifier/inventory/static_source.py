"""Follows a static inventory file: read at start, read again when it or a certificate it names has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import structlog

from verifier.appraisal.inventory import InventoryEvent
from verifier.inventory.compare import events_between
from verifier.inventory.errors import InventoryError, InventoryFileError
from verifier.inventory.registry import Registry
from verifier.inventory.settings import StaticSettings
from verifier.inventory.static_files import StaticInventory, read_static
from verifier.inventory.threads import in_thread
from verifier.ports import Clock

T = TypeVar("T")

_LIMIT: Final = 60.0
"""Seconds that reading may take; a file on a dead network share answers never."""
_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class StaticSource:
    """One file. A version of it that cannot be used changes nothing but the status: the last good one stands."""

    def __init__(self, settings: StaticSettings, registry: Registry, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._files: tuple[Path, ...] = (settings.path,)
        self._stamp: _Stamp | None = None
        self._loaded = False
        self._problem: str | None = None
        self._reading = asyncio.Lock()
        self._log = structlog.get_logger("vtpm_attest.inventory").bind(source=settings.name)

    async def check(self) -> None:
        """Read the file if it changed since it was last read.

        Raises:
            InventoryFileError: it must not be used as it is now.
        """
        async with self._reading:
            await self._check()

    async def _check(self) -> None:
        stamp = await self._in_thread(lambda: _stamp(self._files))
        read_at = None
        if stamp != self._stamp:
            read_at = self._clock.now()
            found = await self._in_thread(lambda: read_static(self._settings.name, self._settings.path))
            self._take(found, token=f"{stamp[0][0]}")
            # A stamp made before reading: what is written meanwhile is seen next time. A file that was not
            # among those stamped is read once more.
            self._stamp = stamp if found.files == self._files else None
            self._files = found.files
        self._registry.current(self._settings.name, at=self._clock.now(), read_at=read_at)
        if self._problem is not None:
            self._log.info("inventory.recovered")
            self._problem = None

    async def run(self) -> None:
        """Look at the file until cancelled."""
        while True:
            await asyncio.sleep(self._settings.interval.total_seconds())
            await self.sync()

    async def sync(self) -> None:
        """Look at the file now; what is wrong with it becomes the source's status."""
        try:
            await self.check()
        except InventoryError as error:
            self._registry.failed(self._settings.name, str(error))
            if str(error) != self._problem:
                self._log.warning("inventory.failed", problem=str(error), kind=type(error).__name__)
            self._problem = str(error)

    def _take(self, found: StaticInventory, token: str) -> None:
        now = self._clock.now()
        held = {machine.key: machine for machine in self._registry.of_source(self._settings.name)}
        listed = {machine.key for machine in found.machines}
        gone = [machine for key, machine in held.items() if key not in listed]
        events: list[InventoryEvent] = []
        # Something was known before: read by this process, or kept by one of before.
        if self._loaded or held:
            for machine in found.machines:
                events += events_between(held.get(machine.key), machine, at=now, token=token)
            for machine in gone:
                events += events_between(machine, None, at=now, token=token)
        removed = [machine.key for machine in gone]
        self._registry.apply(at=now, changed=found.machines, removed=removed, events=events)
        self._loaded = True

    async def _in_thread(self, call: Callable[[], T]) -> T:
        name = self._settings.name
        try:
            return await in_thread(call, limit=_LIMIT, name=f"inventory-{name}")
        except TimeoutError:
            detail = f"not read within {_LIMIT:.0f} seconds"
            raise InventoryFileError(self._settings.path, None, "", detail) from None


def _stamp(files: Iterable[Path]) -> _Stamp:
    """Changes when a file does: time of modification (ns), size, inode. Zeros: it is not there."""
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)
