"""A disk that is full, or may only be read, under the database, the keys and the log of a verifier."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.faults.crowd import Crowd
from tests.faults.ledger import check
from tests.faults.site import BIN, site
from tests.postgresql import started
from tests.small_disk import mounted


@pytest.fixture
def small_disk():
    """A file system of some megabytes, or a loud skip."""
    with mounted("8m") as disk:
        yield disk


def fill(disk: Path) -> Path:
    """To the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


async def test_the_disk_is_full_for_a_while(tmp_path, small_disk):
    async with site(small_disk, workers=2) as verifier:
        crowd = Crowd(verifier)
        await crowd.arrive(honest=6, hostile=2)
        async with crowd.attesting():
            await crowd.several_rounds(1)
            filler = fill(small_disk)
            while crowd.refusals["verifier-unavailable"] < 20:
                await asyncio.sleep(0.1)
                fill(small_disk)  # what was freed since
            filler.unlink()
            await crowd.several_rounds()
        check(crowd)
        assert crowd.refusals["verifier-unavailable"], "nobody noticed"
        assert not crowd.broken, "what cannot be stored is said, not cut off"


@pytest.mark.slow
@pytest.mark.parametrize("log_too", [False, True], ids=["tables", "and the write-ahead log"])
async def test_the_disk_of_postgresql_is_full_for_a_while(tmp_path, log_too):
    """Without room for its log the server ends; whoever looks after it makes room and starts it again."""
    with mounted("256m") as disk, started(durable=True, below=disk) as cluster:
        async with site(tmp_path, replicas=2, cluster=cluster) as verifier:
            crowd = Crowd(verifier)
            await crowd.arrive(honest=6, hostile=2)
            async with crowd.attesting():
                await crowd.several_rounds(1)
                filler = fill(disk)
                while crowd.refusals["verifier-unavailable"] < 20 or (log_too and cluster.running()):
                    if log_too:
                        with contextlib.suppress(RuntimeError):
                            await asyncio.to_thread(cluster.sql, "SELECT pg_switch_wal()")
                    await asyncio.sleep(0.1)
                    fill(disk)
                filler.unlink()
                if not cluster.running():
                    await asyncio.to_thread(cluster.start)
                await crowd.several_rounds()
            check(crowd)
            assert not crowd.broken, "what cannot be stored is said, not cut off"


async def test_a_folder_that_may_only_be_read_is_named_by_a_service_that_cannot_start(tmp_path, small_disk):
    async with site(small_disk) as verifier:
        (replica,) = verifier.replicas
        replica.kill()
        await replica.ended()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        done = await asyncio.to_thread(
            subprocess.run,
            [BIN, "serve", "--config", replica.config],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 69, done.stderr
        assert "Traceback" not in done.stderr
        assert str(verifier.state) in done.stderr
