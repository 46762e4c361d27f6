"""How large a page of attesters may be, where some take a thousand times as long as others."""

from __future__ import annotations

from typing import Final

FIRST_PAGE: Final = 25
LARGEST_PAGE: Final = 200
_QUICK: Final = 3.0
_SLOW: Final = 8.0


def next_size(size: int, seconds: float) -> int:
    """How large the next page is, after one of `size` took so long.

    Guests with long IMA lists take a thousand times as long as others: a page must be answered long before the
    connection is given up, and Ctrl-C must not wait.
    """
    if seconds > _SLOW:
        return max(size // 2, 1)
    return min(size * 2, LARGEST_PAGE) if seconds < _QUICK else size
