"""Small inputs that would become large, deep or endless are refused by name, and the process stays as small as it was.

What they cost is a row each of `make bench` (tests/bench/bombs.py); no clock is looked at here.
"""

from __future__ import annotations

import pytest

from tests.fuzz.bombs import BODIES, HEADS, IMPORTS, throw, throw_head, warm
from tests.stateful.site import Site

HEAD_MIB = 16


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    running = Site(tmp_path_factory.mktemp("bombs"))
    running.do(warm(running.verifier))
    yield running
    running.close()


@pytest.mark.parametrize("bomb", [*BODIES, *IMPORTS], ids=lambda bomb: bomb.name)
def test_what_would_explode_is_refused_by_name_and_costs_little_memory(site, bomb):
    blast = site.do(throw(site.verifier, bomb, bomb.make()))
    assert (blast.status, blast.code) == bomb.answer
    assert blast.mib <= bomb.mib, "what this needs on top of the verifier as it was"
    assert site.call("GET", "/healthz").status == 200


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_heads_of_any_size_and_number_are_answered_and_kept_nowhere(site, head):
    blast = site.do(throw_head(site.verifier, head))
    assert blast.status == head.status
    assert blast.mib <= HEAD_MIB
