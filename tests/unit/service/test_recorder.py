"""One path for every change of state, checked on the source: a second path would be a hole in the audit log."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path

import pytest

import verifier.service
from verifier.ports import Store
from verifier.service.events import LocalEvents

READS = {
    "attester_past",
    "ahead_of_database",
    "held_inventory",
    "inventory_events",
    "anchor_assignments",
    "anchor_set",
    "attester_of_ek",
    "attester_state",
    "attesters_of_uuid",
    "blob",
    "close",
    "current_policy",
    "enrollment",
    "enrollments_of_ek",
    "evidence_of",
    "fleet_samples",
    "has_blob",
    "has_offer",
    "history",
    "ima_pieces",
    "list_assignments",
    "list_attesters",
    "list_audit",
    "list_enrollments",
    "list_policies",
    "history_begins",
    "list_tokens",
    "marks",
    "standings",
    "standings_of",
    "nonce_spent",
    "nonces_dropped_until",
    "ping",
    "rejudging",
    "tenants",
    "unfinished_rejudgings",
    "policy_revision",
    "policy_revisions",
    "predecessors_of",
    "secret",
    "secrets",
    "status_counts",
    "storage",
    "open_counts",
    "survey",
    "token_by_hash",
}
METHODS = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}


def calls(path: Path) -> set[str]:
    """Store methods called in a module, as `….store.x(` or `…_store.x(`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if owner.endswith("store"):
                found.add(node.func.attr)
    return found


def modules() -> list[Path]:
    return sorted(Path(verifier.service.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_only_the_recorder_writes(path):
    written = calls(path) & (METHODS - READS)
    assert path.stem == "recorder" or not written


def test_the_recorder_covers_every_write_of_the_store():
    recorder = next(path for path in modules() if path.stem == "recorder")
    assert calls(recorder) == METHODS - READS


async def test_a_subscriber_that_sleeps_loses_the_oldest_and_blocks_nobody():
    events = LocalEvents()
    subscription = events.subscribe()
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    for number in range(1000):
        await events.verdict(number, None)
    assert await first == 744
    rest = [await anext(subscription) for _ in range(255)]
    assert rest[-1] == 999
    await subscription.aclose()
    assert not events._queues
