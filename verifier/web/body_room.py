"""How much memory the bodies of requests may take together."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from verifier.service.admission import OverloadedError

FREE: Final = 256 * 1024
"""Bytes of every body that are not counted: steady attestations are heard however many long lists are on their way."""
RETRY_SECONDS: Final = 5


class BodyBudget:
    """Bytes that large bodies may take, from their first byte until their request is answered.

    What is announced counts for nothing, only what has come: whoever opens connections and sends nothing takes no room.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._lock = threading.Lock()  # bodies are expanded in threads

    def add(self, size: int) -> None:
        """Take room; raises `OverloadedError` where there is not so much left."""
        with self._lock:
            if self.taken + size > self.limit:
                raise OverloadedError(
                    RETRY_SECONDS, "other large requests are being judged; send this one again"
                )
            self.taken += size

    def give_back(self, size: int) -> None:
        """Give room back."""
        with self._lock:
            self.taken -= size


class Room:
    """The room that one request has taken; given back when it is left."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0
        self._taken = 0

    def grow(self, size: int) -> None:
        """So many bytes more have come, or have been expanded; raises `OverloadedError` where they do not fit."""
        self._size += size
        more = self._size - FREE - self._taken
        if more > 0:
            self._budget.add(more)
            self._taken += more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0
