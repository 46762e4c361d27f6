"""Where the broken verifiers keep their data."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgresql import Cluster, started


@pytest.fixture(scope="session")
def durable_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that a commit survives. Only for tests that leave it running as it was."""
    with started(durable=True) as server:
        yield server


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One that a test may do anything to."""
    with started(durable=True) as server:
        yield server
