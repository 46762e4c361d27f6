"""A limit on failures that forgets, and does not grow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from verifier.service.attempts import AttemptLimiter, TooManyAttemptsError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_failures_are_counted_per_key_and_forgotten_after_a_minute():
    limiter = AttemptLimiter(2)
    for _ in range(2):
        limiter.admit("a", NOW)
        limiter.failed("a", NOW)
    with pytest.raises(TooManyAttemptsError) as caught:
        limiter.admit("a", NOW + timedelta(seconds=20))
    assert caught.value.retry_after == 40
    limiter.admit("b", NOW)
    limiter.admit("a", NOW + timedelta(seconds=60))


def test_a_clock_that_went_back_does_not_lock_anyone_out():
    limiter = AttemptLimiter(1)
    limiter.failed("a", NOW)
    limiter.admit("a", NOW - timedelta(hours=1))


def test_memory_is_bounded():
    limiter = AttemptLimiter(1)
    for number in range(10_500):
        limiter.failed(str(number), NOW)
    assert len(limiter._failures) == 10_000
    limiter.admit("0", NOW)  # forgotten
    with pytest.raises(TooManyAttemptsError):
        limiter.admit("10499", NOW)
