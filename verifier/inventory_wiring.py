"""From settings to inventories, and to what enrolment asks for where there are some. A part of the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from verifier import background
from verifier.errors import VerifierFault
from verifier.inventory.live import LiveInventory
from verifier.ports import Clock, Store
from verifier.ports_enrollment import EnrollmentBounds
from verifier.service.enrollment import EnrollmentRules
from verifier.service.inventory import InventoryService
from verifier.service.inventory_keeper import InventoryKeeper
from verifier.service.known import AskInventory
from verifier.service.methods import Method, Requirements, parse_methods
from verifier.service.recorder import Recorder
from verifier.settings import Settings
from verifier.settings_inventory import inventory_settings

_PAUSE: Final = 1.0
"""Between two times that changes are kept: what comes together is stored together."""
_PURGE_EVERY: Final = 6 * 3600.0


def sources(settings: Settings, clock: Clock, environ: Mapping[str, str]) -> LiveInventory | None:
    """The configured sources, not yet read; None where there are none.

    Raises:
        InventorySettingError: a vCenter is configured and pyVmomi is not installed.
    """
    if not settings.inventory:
        return None
    return LiveInventory(inventory_settings(settings.inventory), clock=clock, environ=environ)


@asynccontextmanager
async def follow(
    inventory: LiveInventory | None, *, store: Store, recorder: Recorder, clock: Clock, history: timedelta
) -> AsyncIterator[None]:
    """Begin with what was kept, read the files, follow the vCenters without waiting for them; keep what they say.

    Raises:
        InventoryFileError: a file must not be used.
        StoreUnavailable: the database cannot be read.
    """
    if inventory is None:
        yield
        return
    keeper = InventoryKeeper(
        inventory=inventory, store=store, recorder=recorder, clock=clock, history=history
    )
    await keeper.restore()
    await inventory.start()
    tasks = [
        asyncio.create_task(background.repeat(_PAUSE, keeper.keep, "inventory.keep-failed", at_once=True)),
        asyncio.create_task(background.repeat(_PURGE_EVERY, keeper.purge, "inventory.purge-failed")),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def question(inventory: InventoryService) -> AskInventory | None:
    """What enrolment asks of an inventory; None where there is none, which is not the same as one that knows nobody."""
    return inventory.ask if inventory.configured else None


def enrollment_rules(settings: Settings) -> EnrollmentRules:
    """What enrolment asks for, and how long it waits."""
    own = settings.enrollment
    return EnrollmentRules(
        requirements=_requirements(settings),
        lifetime=own.lifetime,
        approval_lifetime=own.approval_lifetime,
        bounds=EnrollmentBounds(per_tenant=own.max_pending, per_source=own.max_pending_per_address),
    )


def _requirements(settings: Settings) -> Requirements:
    """The methods; one that nobody can answer stops the service, as it would refuse every machine."""
    requirements = parse_methods(settings.enrollment.methods)
    if Method.INVENTORY in requirements and not settings.inventory:
        raise VerifierFault(
            "enrollment.methods asks for 'inventory', and no inventory is configured: add [[inventory]]"
        )
    return requirements
