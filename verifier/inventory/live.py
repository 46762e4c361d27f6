"""The configured sources as one `Inventory`: opened once, kept up to date in the background, asked from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Protocol

import structlog

from verifier.appraisal.inventory import (
    InventoryChanges,
    InventoryEvent,
    InventoryMachine,
    MachineKey,
    SourceStatus,
)
from verifier.inventory.errors import InventorySettingError
from verifier.inventory.progress import ProgressCallback, ignore_progress
from verifier.inventory.registry import Registry, SourceName
from verifier.inventory.settings import InventorySettings, VcenterSettings
from verifier.inventory.static_source import StaticSource
from verifier.ports import Clock
from verifier.ports_inventory import HeldInventory


class _Source(Protocol):
    def run(self) -> Coroutine[None, None, None]: ...

    async def sync(self) -> None: ...


async def open_inventory(
    settings: InventorySettings,
    *,
    clock: Clock,
    environ: Mapping[str, str],
    progress: ProgressCallback = ignore_progress,
) -> LiveInventory:
    """A `LiveInventory` that is started: files are read, vCenters are followed.

    Raises:
        InventoryFileError: a file must not be used; nothing is running then.
        InventorySettingError: a vCenter is configured and pyVmomi is not installed.
    """
    inventory = LiveInventory(settings, clock=clock, environ=environ, progress=progress)
    await inventory.start()
    return inventory


def _vcenter(
    settings: VcenterSettings,
    registry: Registry,
    clock: Clock,
    environ: Mapping[str, str],
    progress: ProgressCallback,
) -> _Source:
    try:
        # An extra of the distribution: whoever has no vCenter needs no pyVmomi.
        from verifier.inventory.vsphere.source import VcenterSource  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pyVmomi":
            raise
        raise InventorySettingError(
            f"{settings.name}: pyVmomi is not installed; install vtpm-attest[vsphere]"
        ) from error
    return VcenterSource(settings, registry, clock, environ, progress)


class LiveInventory:
    """The `Inventory` port over the configured sources. Knows nothing until it is started.

    Args:
        settings: what to follow.
        clock: for the age of what is held.
        environ: where credentials named by variable are found.
        progress: told, on the event loop, how far a vCenter's machines were read.

    Raises:
        InventorySettingError: a vCenter is configured and pyVmomi is not installed.
    """

    def __init__(
        self,
        settings: InventorySettings,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        progress: ProgressCallback = ignore_progress,
    ) -> None:
        files = [SourceName(one.name, "file", str(one.path)) for one in settings.files]
        vcenters = [SourceName(one.name, "vsphere", one.host) for one in settings.vcenters]
        self._registry = Registry([*files, *vcenters])
        self._files = [StaticSource(one, self._registry, clock) for one in settings.files]
        self._vcenters = [
            _vcenter(one, self._registry, clock, environ, progress) for one in settings.vcenters
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def restore(self, held: HeldInventory) -> None:
        """See `Inventory.restore`."""
        self._registry.restore(held)

    async def start(self) -> None:
        """Read the files, and begin to follow the vCenters. Once, within a running event loop.

        Does not wait for a vCenter: one that is down is told of by `status`, and tried again for as long as it takes.

        Raises:
            InventoryFileError: a file must not be used; nothing is running then.
        """
        for file in self._files:
            await file.check()
        self._tasks = [asyncio.create_task(source.run()) for source in self._sources()]
        for task in self._tasks:
            task.add_done_callback(_report_fault)

    def _sources(self) -> Iterable[_Source]:
        return (*self._files, *self._vcenters)

    async def machines(self) -> tuple[InventoryMachine, ...]:
        """See `Inventory.machines`."""
        return self._registry.machines()

    async def machines_of(self, keys: Collection[MachineKey]) -> tuple[InventoryMachine, ...]:
        """See `Inventory.machines_of`."""
        found = (self._registry.get(key) for key in keys)
        return tuple(machine for machine in found if machine is not None)

    async def lookup_ek(self, fingerprint: bytes) -> tuple[InventoryMachine, ...]:
        """See `Inventory.lookup_ek`."""
        return self._registry.by_ek(fingerprint)

    async def lookup_smbios(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """See `Inventory.lookup_smbios`."""
        return self._registry.by_smbios(uuid)

    async def lookup_instance(self, uuid: str) -> tuple[InventoryMachine, ...]:
        """See `Inventory.lookup_instance`."""
        return self._registry.by_instance(uuid)

    async def events_of(self, machines: Collection[MachineKey]) -> tuple[InventoryEvent, ...]:
        """See `Inventory.events_of`."""
        return self._registry.events_of(machines)

    async def changed(self, since: str, at_most: timedelta) -> None:
        """See `Inventory.changed`."""
        await self._registry.changed(since, at_most)

    async def changes(self, since: str | None) -> InventoryChanges:
        """See `Inventory.changes`."""
        return self._registry.changes(since)

    async def status(self) -> tuple[SourceStatus, ...]:
        """See `Inventory.status`."""
        return self._registry.status()

    async def sync(self) -> None:
        """See `Inventory.sync`."""
        await asyncio.gather(*(source.sync() for source in self._sources()))

    async def close(self) -> None:
        """Stop following; log out of every vCenter that still answers. What was read can still be asked for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _report_fault(task: asyncio.Task[None]) -> None:
    """A source that ends by itself is a fault of ours: it is told of, and its status grows stale."""
    if not task.cancelled() and task.exception() is not None:
        log = structlog.get_logger("vtpm_attest.inventory")
        log.error("inventory.source_ended", exc_info=task.exception())
