"""A verifier killed at every write of everything that changes something, or told at each that the disk is full."""

from __future__ import annotations

import pytest

from tests.faults import operations
from tests.faults.striking import Strike
from tests.faults.world import sweep, world

QUICK = operations.enrolment
EVERY = {operations.rejudging: 9}
"""The steps between are left out where each takes long: whoever was killed is waited for."""
ON_DISK = tuple(one for one in operations.ALL if one is not operations.challenge)
"""A nonce is not kept before it is spent: to hand one out writes nothing."""
AT_ONCE = tuple(one for one in ON_DISK if one is not operations.rejudging)
"""A job in the background is not done while the disk is full, however long it is waited for."""
RECORDED = (operations.first_attestation, operations.attestation, operations.attestation_after_reboot)
"""What SQLite's own process writes."""
TORN = (operations.enrolment, operations.attestation_after_reboot, operations.policy)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """What a killed process was re-judging is gone on with once its claim has run out (`rejudgings.LEASE`)."""
    monkeypatch.setattr("tests.eventually.PATIENCE", 150.0)


@pytest.fixture
def cluster(request):
    """None: SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("durable_cluster")


def each(*, quick: bool):
    """Every operation on every database."""
    return [
        pytest.param(
            database,
            operation,
            marks=[] if quick and operation is QUICK and database == "sqlite" else [pytest.mark.slow],
            id=f"{database}-{operation.__name__}",
        )
        for database in ("sqlite", "postgresql")
        for operation in operations.ALL
    ]


@pytest.mark.parametrize(("cluster", "operation"), each(quick=True), indirect=["cluster"])
async def test_killed_before_every_write(tmp_path, cluster, operation):
    async with world(tmp_path, cluster) as made:
        assert await sweep(made, operation, Strike.KILL, every=EVERY.get(operation, 1)) > 0


@pytest.mark.parametrize(
    "operation",
    [pytest.param(one, marks=pytest.mark.slow) for one in RECORDED],
    ids=lambda one: one.__name__,
)
async def test_the_process_that_writes_is_killed_before_every_write(tmp_path, operation):
    """The verifier itself goes on; whoever attests then is told to come again."""
    async with world(tmp_path) as made:
        first = made.child
        assert await sweep(made, operation, Strike.ALONE) > 0
        assert made.child is first


@pytest.mark.slow
@pytest.mark.parametrize("operation", TORN, ids=lambda one: one.__name__)
async def test_killed_in_the_middle_of_every_write(tmp_path, operation):
    """Half of it is in the file, or on its way to the client."""
    async with world(tmp_path) as made:
        assert await sweep(made, operation, Strike.TEAR) > 0
        assert made.torn, "no write was torn"


@pytest.mark.parametrize(
    "operation", [pytest.param(one, marks=pytest.mark.slow, id=one.__name__) for one in AT_ONCE]
)
async def test_the_disk_is_full_from_every_write_on(tmp_path, operation):
    async with world(tmp_path) as made:
        assert await sweep(made, operation, Strike.FULL, every=EVERY.get(operation, 1)) > 0


@pytest.mark.parametrize(
    "operation", [pytest.param(one, marks=pytest.mark.slow, id=one.__name__) for one in ON_DISK]
)
async def test_the_disk_fails_at_every_write_once(tmp_path, operation):
    async with world(tmp_path) as made:
        assert await sweep(made, operation, Strike.BROKEN, every=EVERY.get(operation, 1)) > 0
