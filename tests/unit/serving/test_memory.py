"""Memory is settled at the start, and looked through in between only by a task of its own."""

from __future__ import annotations

import gc
import weakref

import pytest

from verifier.serving.memory import settle, sweep


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_it_was():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def test_garbage_that_has_grown_old_waits_for_the_sweep_and_goes_with_it():
    settle()
    assert gc.get_freeze_count() > 10_000, "what was there at the start is not looked through again"
    node = Node()
    gone = weakref.ref(node)
    gc.collect(1)  # it is old now
    del node
    keep = [[] for _ in range(400_000)]  # as much as many attestations make
    assert gone() is not None
    await sweep()
    assert gone() is None
    assert len(keep) == 400_000
