"""Every target over its seeds, what once broke it, and seeded mutations: read or refused by name, within bounds.

`make fuzz` looks further, for hours where it is let.
"""

from __future__ import annotations

import pytest

from tests.fuzz.measured import cost
from tests.fuzz.mutate import LONGEST, mutations
from tests.fuzz.targets import load, names

MEASURED = 16
"""So many inputs are run under instruments, which slow them down several times."""


@pytest.mark.parametrize("name", names())
def test_whatever_comes_is_read_or_refused_by_name(name):
    target = load(name)
    seeds = target.seeds()
    assert seeds, "a target needs seeds: random bytes alone never get past the first field"
    # A seed need not be accepted: the corpora have damaged ones on purpose.
    read = {target.survives(data) for data in seeds}
    assert True in read, "no seed is read: what lies behind the first check is not reached"
    for path in target.regressions():
        target.survives(path.read_bytes())
    hostile = [b"", b"\0", b"\xff" * 64, b"[" * 3000, *mutations(seeds, target.runs, name)]
    for data in hostile:
        target.survives(data)
    longest = sorted((data for data in seeds if len(data) <= LONGEST), key=len)[-1:]
    for data in [*longest, *hostile[-MEASURED:]]:
        spent = cost(lambda data=data: target.survives(data))
        assert spent.memory <= target.memory.of(data), (len(data), spent)
        assert spent.calls <= target.calls.of(data), (len(data), spent)
