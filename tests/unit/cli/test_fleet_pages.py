"""Pages of a fleet: each once, from where one is told to begin, and as large as the verifier is quick."""

from __future__ import annotations

import pytest

from verifier.cli import fleet_pages
from verifier.cli.fleet_pages import each_page
from verifier.service.page_size import FIRST_PAGE, LARGEST_PAGE, next_size


class Fleet:
    """A verifier that takes as long as it is told for each guest; cursors are numbers."""

    def __init__(self, guests, seconds, monkeypatch):
        self.guests, self.seconds, self.now, self.asked = guests, seconds, 0.0, []
        monkeypatch.setattr(fleet_pages.time, "monotonic", lambda: self.now)

    def ask(self, cursor, limit):
        begin = int(cursor or 0)
        end = min(begin + limit, self.guests)
        self.asked.append((begin, end))
        self.now += (end - begin) * self.seconds
        return {"counts": {"examined": end - begin}} | ({} if end == self.guests else {"cursor": str(end)})


@pytest.mark.parametrize(("start", "first"), [(None, 0), ("700", 700)])
@pytest.mark.parametrize("seconds", [0.0001, 0.1, 2.0])
def test_every_guest_is_on_one_page_whatever_their_size(monkeypatch, start, first, seconds):
    fleet, taken = Fleet(1_000, seconds, monkeypatch), []
    each_page(fleet.ask, taken.append, total=None, start=start)
    assert fleet.asked[0][0] == first
    assert fleet.asked[-1][1] == 1_000
    assert all(end == begin for (_, end), (begin, _) in zip(fleet.asked, fleet.asked[1:], strict=False))
    assert sum(page["counts"]["examined"] for page in taken) == 1_000 - first


def test_quick_verifiers_get_large_pages_and_slow_ones_are_not_waited_for(monkeypatch):
    quick = Fleet(2_000, 0.001, monkeypatch)
    each_page(quick.ask, lambda _: None, total=None)
    assert max(end - begin for begin, end in quick.asked) == LARGEST_PAGE
    slow = Fleet(100, 2.0, monkeypatch)
    each_page(slow.ask, lambda _: None, total=None)
    sizes = [end - begin for begin, end in slow.asked]
    assert sizes[0] == FIRST_PAGE
    assert max(size * 2.0 for size in sizes[4:]) <= 8.0


def test_a_page_is_never_empty():
    assert next_size(1, 60.0) == 1
