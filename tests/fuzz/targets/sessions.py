"""Cookies and the state of a sign-in: nothing is opened that was not sealed here, and a changed one never is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from verifier.errors import RefusedError
from verifier.web.dashboard.sessions import Sessions

RAISES = (RefusedError,)
RUNS = 2000
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Fixed:
    """The `Random` port."""

    def bytes(self, size: int) -> bytes:
        return bytes(size)


SESSIONS = Sessions(bytes(32), Fixed())  # type: ignore[arg-type] - no more is asked of it
COOKIE = SESSIONS.begin(bytes(32), NOW)
STATE = SESSIONS.seal(b"state", b"content")
OPEN = SESSIONS.open(COOKIE, NOW)


def seeds() -> Iterator[bytes]:
    yield COOKIE.encode()
    yield STATE.encode()
    yield SESSIONS.csrf(OPEN).encode()  # type: ignore[arg-type] - it was just begun


def target(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = SESSIONS.open(text, NOW)
    assert found is None or found == OPEN
    assert SESSIONS.open(text, NOW + timedelta(days=365)) is None
    content = SESSIONS.unseal(b"state", text, 4096)
    assert content in {None, b"content"}
    assert OPEN is not None
    SESSIONS.check_csrf(OPEN, data.decode("utf-8", "replace"))  # as a form is decoded
