"""A vCenter that answers, and an inventory that follows it. Keys of the CA are made once: RSA is slow."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.eventually import eventually
from tests.harness import FakeClock
from tests.vsphere_endpoint import Endpoint, Estate, make_tls
from verifier.appraisal.inventory import InventoryMachine, SourceStatus
from verifier.inventory.live import LiveInventory, open_inventory
from verifier.inventory.progress import SyncProgress
from verifier.inventory.settings import Credentials, InventorySettings, SecretFile, VcenterSettings
from verifier.logs import configure_logs

PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    return make_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def log() -> io.StringIO:
    """Everything that is logged, at the finest level."""
    stream = io.StringIO()
    configure_logs("json", "debug", stream)
    return stream


@dataclass
class Vcenter:
    """An endpoint, its estate, and settings that reach it."""

    endpoint: Endpoint
    settings: VcenterSettings
    password: Path
    progress: list[SyncProgress] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def estate(self) -> Estate:
        return self.endpoint.estate

    @property
    def service(self) -> Any:
        return self.endpoint.service

    @asynccontextmanager
    async def followed(self, *others: VcenterSettings, **changes: Any) -> AsyncIterator[LiveInventory]:
        own = replace(self.settings, **changes)
        inventory = await open_inventory(
            InventorySettings(vcenters=(own, *others)),
            clock=self.clock,
            environ={},
            progress=self.progress.append,
        )
        try:
            yield inventory
        finally:
            await inventory.close()

    @asynccontextmanager
    async def synced(self, **changes: Any) -> AsyncIterator[LiveInventory]:
        async with self.followed(**changes) as inventory:
            await eventually(lambda: whole(inventory))
            yield inventory


@pytest.fixture
def vcenter(tls, tmp_path, log) -> Iterator[Vcenter]:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    with Endpoint(tls) as endpoint:
        settings = VcenterSettings(
            name="dc1",
            host="127.0.0.1",
            port=endpoint.port,
            ca_file=tls.ca,
            credentials=Credentials(user="reader@vsphere.local", password=SecretFile(password)),
            wait=timedelta(seconds=1),
            timeout=timedelta(seconds=20),
            retry=timedelta(milliseconds=100),
        )
        yield Vcenter(endpoint, settings, password)


async def status_of(inventory: LiveInventory, name: str = "dc1") -> SourceStatus:
    return next(one for one in await inventory.status() if one.name == name)


async def whole(inventory: LiveInventory) -> bool:
    """Every source was read."""
    return all(one.synced_at is not None for one in await inventory.status())


async def named(inventory: LiveInventory, name: str) -> InventoryMachine | None:
    return next((one for one in await inventory.machines() if one.name == name), None)
