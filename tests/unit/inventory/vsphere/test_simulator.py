"""Against a vCenter that others wrote: govmomi's simulator (`vcsim`), where it is installed.

It knows no vTPM (0.24, which Debian has the library of), so what it checks is the protocol: login, views, filters,
incremental updates, pages, events.
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from tests.eventually import eventually
from tests.unit.inventory.vsphere.conftest import Vcenter, named, status_of
from tests.unit.inventory.vsphere.test_following import events
from verifier.appraisal.inventory import EventKind

_ADDRESS = re.compile(r"GOVC_URL=https://\S*?127\.0\.0\.1:(\d+)")


@pytest.fixture
def simulator(vcenter, tls) -> Iterator[Vcenter]:
    """Settings that reach a running simulator with the same TLS files, user and password."""
    program = shutil.which("vcsim")
    if program is None:
        pytest.skip("SKIPPED FOR WANT OF vcsim: the inventory was not held against another's vCenter")
    options = ["-l", "127.0.0.1:0", "-tlscert", tls.chain, "-tlskey", tls.key, "-vm", "3"]
    login = ["-username", "reader@vsphere.local", "-password", "correct horse"]
    process = subprocess.Popen(
        [program, *map(str, options), *login], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        address = next(found for line in process.stdout if (found := _ADDRESS.search(line)))
        yield replace(
            vcenter,
            settings=replace(vcenter.settings, port=int(address[1]), timeout=timedelta(seconds=10)),
        )
    finally:
        process.terminate()
        process.wait()


async def test_machines_are_followed_and_a_clone_is_told_of(simulator, tls):
    async with simulator.synced() as inventory:
        machines = await inventory.machines()
        assert len(machines) == 6  # three on a host, three in a cluster
        assert all(one.smbios_uuid and one.instance_uuid and one.has_vtpm is False for one in machines)
        first = machines[0]
        context = ssl.create_default_context(cafile=tls.ca)
        operator = SmartConnect(
            host="127.0.0.1",
            port=simulator.settings.port,
            user="reader@vsphere.local",
            pwd="correct horse",
            sslContext=context,
        )
        source = vim.VirtualMachine(first.key.id, operator._stub)
        source.Clone(
            folder=source.parent,
            name="copy",
            spec=vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False),
        )
        copy = await eventually(lambda: named(inventory, "copy"))
        assert copy.smbios_uuid not in {one.smbios_uuid for one in machines}
        (told,) = await eventually(lambda: events(inventory, EventKind.CLONED))
        assert (told.machine.name, told.origin.name) == ("copy", first.name)
        vim.VirtualMachine(copy.key.id, operator._stub).Destroy()
        await eventually(lambda: _gone(inventory))
        Disconnect(operator)
        assert (await status_of(inventory)).problem is None


async def _gone(inventory) -> bool:
    return await named(inventory, "copy") is None
