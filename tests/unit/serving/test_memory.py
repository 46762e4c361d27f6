"""Memory is settled at the start, and looked through in between only by a task of its own."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import weakref

import pytest

from verifier.serving import memory
from verifier.serving.memory import keep_little, settle, sweep, trim


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


_RETURNED = """
import asyncio
from verifier.serving.memory import keep_little, trim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_little()
before = resident()
kept = [bytearray(20_000) for _ in range(5_000)]
last = bytearray(20_000)  # above all of them: what is below does not go back by itself
taken = resident() - before
del kept
free = resident() - before
asyncio.run(trim())
print(taken, free, resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not GNU's")
def test_memory_that_is_free_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", _RETURNED], capture_output=True, text=True, check=True)
    taken, free, left = map(int, done.stdout.split())
    assert taken > 90_000_000
    assert free > taken / 2, "nothing to return: this test shows nothing"
    assert left < taken / 20


async def test_a_c_library_without_these_functions_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    keep_little()
    await trim()
