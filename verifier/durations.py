"""Time spans as they are written in settings."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

DURATION: Final = re.compile(r"^([0-9]{1,9})(s|m|h|d)$")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(timedelta):
    """A time span written as `90s`, `5m`, `24h` or `30d`."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `90s`, `5m`, `24h` or `30d`. Raises `ValueError` otherwise."""
        found = DURATION.match(text)
        if found is None:
            raise ValueError(f"{text!r} is not a duration such as 90s, 5m, 24h or 30d")
        return cls(seconds=int(found[1]) * _UNITS[found[2]])
