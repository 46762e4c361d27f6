"""How much a pattern lets through: one that excludes everything is no policy."""

from __future__ import annotations

import enum
from typing import Final

from verifier.policy.runtime.patterns import Patterns


class Breadth(enum.Enum):
    """What excluding by a pattern comes to."""

    EVERYTHING = "everything"
    """Paths that have nothing in common match: whatever a guest runs would pass."""
    PROGRAMS = "programs"
    """Any name in a folder that programs, libraries or kernel modules are loaded from."""
    NARROW = "narrow"


_ANYWHERE: Final = (
    (b"/q7zk", b"/usr/bin/q7zk", b"/home/q7/zk", b"/srv/q7/zk/q7zk", b"/q7/zk"),
    (b"/q7zk.so", b"/usr/lib/q7zk.so", b"/home/q7/zk.so", b"/q7/zk.so", b"/opt/zk/q7.so"),
    (b"/q7zk.py", b"/usr/bin/q7zk.py", b"/home/q7/zk.py", b"/opt/q7/zk.py", b"/q7/zk.py"),
    (b"/q7zk.ko", b"/lib/modules/q7/zk.ko", b"/home/q7/zk.ko", b"/opt/zk.ko", b"/q7/zk.ko"),
)
"""Names nobody has, all over a file system: a pattern that matches all of a row is bound to no place."""
_PLACES: Final = (
    b"/usr/bin/",
    b"/usr/sbin/",
    b"/usr/local/bin/",
    b"/usr/local/sbin/",
    b"/bin/",
    b"/sbin/",
    b"/usr/libexec/",
    b"/usr/lib/",
    b"/usr/lib64/",
    b"/usr/lib/x86_64-linux-gnu/",
    b"/lib/modules/6.1.0/kernel/drivers/",
    b"/usr/lib/modules/6.1.0/kernel/drivers/",
    b"/usr/lib/systemd/",
)
_NAMES: Final = (b"q7zk", b"q7zk.so.1", b"q7zk.ko")


def breadth(patterns: Patterns) -> tuple[Breadth, str]:
    """The widest thing that patterns, together, let through, and an example of it (empty where narrow).

    Judged by probes, so it errs towards `NARROW`: that a pattern is narrow proves nothing about it.
    """
    for row in _ANYWHERE:
        if all(map(patterns.match, row)):
            return Breadth.EVERYTHING, row[1].decode()
    for place in _PLACES:
        for name in _NAMES:
            if patterns.match(place + name):
                return Breadth.PROGRAMS, (place + name).decode()
    return Breadth.NARROW, ""
