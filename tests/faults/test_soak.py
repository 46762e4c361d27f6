"""Two minutes of everything at once; `make soak` takes an hour."""

from __future__ import annotations

from tests.faults.soak import soak


async def test_everything_at_once_is_right_and_no_process_grows():
    report = await soak(1.5, guests=15, workers=2, database="sqlite")
    assert report.wrong == []
    assert report.done.keys() >= {
        "enrolled",
        "polled",
        "policies changed",
        "reloaded",
        "lists judged",
        "lines of events",
    }
    assert report.verdicts > 100
