"""A share of the simulated lives; `make lifecycles` lives them all (10,000 honest, 2,000 with a clone or rollback)."""

from __future__ import annotations

from tests.lifecycles.lives import Life
from tests.lifecycles.run import run


def test_no_honest_life_raises_an_alarm(tmp_path):
    """Reboots, sleep, power loss, crashes at any step, lost and doubled messages, a restored database: nothing."""
    outcome = run("honest", 300, folder=tmp_path)
    assert outcome.lives == 300
    assert outcome.wrong == []
    assert [event.__name__ for event in Life.HONEST if not outcome.seen[event.__name__]] == []
    assert len([name for name in outcome.seen if name.startswith("died ")]) >= 10, (
        "agents died at every kind of step"
    )


def test_every_clone_and_every_rollback_is_found_by_its_name(tmp_path):
    outcome = run("guilty", 100, folder=tmp_path)
    assert outcome.lives == 100
    assert outcome.wrong == []
    assert outcome.seen["copied cold, same UUID"]
    assert outcome.seen["copied from memory, same UUID"]
    assert outcome.seen["restored with memory"]
    assert outcome.seen["restored without memory"]
