"""Files that are read while somebody still writes them: the running service stays as it is, and says which file it was."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.eventually import eventually
from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import site

FILES = {"settings": "replica-0.toml", "policy": "policies/secure-boot.yaml", "anchor": "anchors/anchor0.der"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", FILES)
async def test_a_half_written_file_is_named_and_changes_nothing(tmp_path, name, workers, monkeypatch):
    monkeypatch.setattr("tests.eventually.PATIENCE", 150.0)
    async with site(tmp_path, workers=workers) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=3, hostile=1)
        (replica,) = verifier.replicas
        file = tmp_path / FILES[name]
        whole = file.read_bytes()
        before = set(replica.processes())
        async with crowd.attesting():
            for part in (len(whole) // 2, len(whole) // 3):
                said = len(replica.log())
                file.write_bytes(whole[:part])
                replica.signal(signal.SIGHUP)

                async def told(known=said):
                    return file.name in replica.log()[known:]

                await eventually(told)
                await crowd.several_rounds(1)
                # A file in the folder of anchors is passed over: workers begin anew with the others.
                assert name == "anchor" or before <= set(replica.processes())
            file.write_bytes(whole)
            replica.signal(signal.SIGHUP)
            await asyncio.sleep(1)
            await crowd.several_rounds(1)
        check(crowd)
