"""Keys that an index lists: read when it changes, and never half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from verifier.errors import VerifierFault
from verifier.keys.files import RESTORE, stamp_of

INDEX: Final = "keys.json"
_log: Final = structlog.get_logger("vtpm_attest.keys")

K = TypeVar("K")


class WatchedKeys(Generic[K]):
    """What `read` gave when it last gave all of it.

    A change is noticed by the index's change time. Where what is new cannot be read, that is told, and what was read
    before goes on: whoever restores it is not waited for with what can be signed as well. From then on a change of any
    file of the folder is one.

    Raises:
        VerifierFault: at first, as `read`.
    """

    def __init__(self, directory: Path, read: Callable[[Path], tuple[K, ...]]) -> None:
        self._directory = directory
        self._read = read
        self._stamp = stamp_of(directory / INDEX)
        self._damaged: tuple[tuple[str, int], ...] | None = None
        self._keys = read(directory)

    def now(self) -> tuple[K, ...]:
        """As the folder is now."""
        stamp = stamp_of(self._directory / INDEX)
        if stamp == self._stamp and (self._damaged is None or self._damaged == self._stamps()):
            return self._keys
        found = self._stamps()
        try:
            self._keys, self._damaged = self._read(self._directory), None
        except VerifierFault as error:
            self._damaged = found
            _log.error("keys.damaged", problem=str(error), effect="the keys that were read before go on")
        self._stamp = stamp
        return self._keys

    def forget(self) -> None:
        """Read it anew, whatever the change time is said to be: a network file system may be late with that."""
        self._stamp = 0

    def _stamps(self) -> tuple[tuple[str, int], ...]:
        return tuple(sorted((path.name, stamp_of(path)) for path in self._directory.glob("*")))


def left_behind(directory: Path, pattern: str) -> Path | None:
    """The key file of a folder without an index: a first start died before it wrote that, or somebody lost it.

    Raises:
        VerifierFault: there are several. Which one signs, and until when, only the index says.
    """
    left = sorted(directory.glob(pattern))
    if len(left) > 1:
        raise VerifierFault(
            f"{directory / INDEX} is gone, and it alone says which of {len(left)} keys beside it signs; {RESTORE}"
        )
    return left[0] if left else None


def tell_made(directory: Path) -> None:
    """A key that others will trust was made: no key of a verifier comes to be without a word."""
    _log.info("keys.made", folder=str(directory))


def tell_adopted(directory: Path, key: Path) -> None:
    """The index was made anew."""
    _log.warning("keys.index-made-anew", index=str(directory / INDEX), key=str(key))
