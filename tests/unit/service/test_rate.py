"""Token buckets: what fits, when more comes, who is counted together, and what they take up."""

from __future__ import annotations

import pytest

from verifier.service.rate import RateLimit, RateLimitedError, network_of

NOW = 1_795_867_200.0


def spend(limit, key, now):
    limit.check(key, now)
    limit.take(key, now)


def spent(limit, key, now, most=100_000):
    """How many go through at once."""
    for count in range(most):
        try:
            spend(limit, key, now)
        except RateLimitedError:
            return count
    return most


@pytest.mark.parametrize(
    ("rate", "burst", "fit"),
    [(1, 3, 3), (1000, 10, 10_000), (3, 0.5, 1), (5 / 60, 60, 5), (7, 10, 70), (0.1, 1, 1)],
)
def test_a_full_bucket_holds_what_flows_in_during_a_burst_and_never_less_than_one(rate, burst, fit):
    limit = RateLimit(rate, burst, "too many")
    assert spent(limit, "a", NOW) == fit
    assert spent(limit, "b", NOW) == fit, "another's is its own"
    assert spent(limit, "a", NOW + 1 / rate) == 1
    assert spent(limit, "a", NOW + 10_000) == fit
    assert limit.refused == 4


def test_who_is_refused_is_told_when_there_is_one_again():
    limit = RateLimit(1 / 60, 180, "too many of these")
    assert spent(limit, "a", NOW) == 3
    with pytest.raises(RateLimitedError, match="too many of these; try again in 20 s") as caught:
        limit.check("a", NOW + 40)
    assert caught.value.retry_after == 20
    limit.check("a", NOW + 60)
    with pytest.raises(RateLimitedError) as soon:
        limit.check("a", NOW + 59.99)
    assert soon.value.retry_after == 1


def test_looking_takes_nothing_and_who_takes_more_than_there_is_waits_no_longer_than_a_burst():
    limit = RateLimit(1, 3, "too many")
    for _ in range(10):
        limit.check("a", NOW)
    for _ in range(10):
        limit.take("a", NOW)
    assert limit.wait("a", NOW) == pytest.approx(1)
    assert spent(limit, "a", NOW + 3) == 3


def test_a_clock_that_went_back_locks_nobody_out():
    limit = RateLimit(1, 3, "too many")
    assert spent(limit, "a", NOW) == 3
    assert spent(limit, "a", NOW - 3600) == 3
    assert limit.wait("a", NOW - 3600) > 0


def test_memory_is_bounded_and_the_oldest_key_is_forgotten():
    limit = RateLimit(1, 1, "too many", keys=100)
    for number in range(1000):
        limit.take(number, NOW)
    assert len(limit._full_at) == 100
    assert limit.wait(0, NOW) == 0
    assert limit.wait(999, NOW) > 0
    limit.take(900, NOW)
    for number in range(99):
        limit.take(number, NOW)
    assert limit.wait(900, NOW) > 0, "used lately"
    assert limit.wait(901, NOW) == 0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        (None, "", True),
        ("not:an:address", "not:an:other", False),
    ],
)
def test_an_ipv6_client_is_its_64_and_an_ipv4_one_its_address(one, other, together):
    assert (network_of(one) == network_of(other)) is together
