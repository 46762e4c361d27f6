"""How often somebody may do something: token buckets in bounded memory."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from verifier.errors import RefusedError
from verifier.ports import Clock, TokenRecord
from verifier.reasons import Reason

_MAX_KEYS: Final = 10_000
_MINUTE: Final = 60.0
_FUZZ: Final = 1e-6
"""Seconds: what sums of floating point numbers of the size of today's date are exact to."""


class RateLimitedError(RefusedError):
    """Come back after `retry_after` seconds."""

    def __init__(self, seconds: float, what: str) -> None:
        self.retry_after = max(1, math.ceil(seconds - _FUZZ))
        super().__init__(Reason.RATE_LIMITED, f"{what}; try again in {self.retry_after} s")


class RateLimit:
    """A bucket for each key, full at first: `rate` tokens a second flow in, `rate * burst` fit, and one in any case.

    Of a bucket nothing is kept but when it will be full again. The key that was used longest ago is forgotten first, which makes
    its bucket full. Times are seconds of one clock; one that goes back locks nobody out.

    Args:
        rate: tokens a second.
        burst: seconds in which an empty bucket becomes full.
        what: happened too often, for whoever is refused.
        keys: how many are kept.
    """

    def __init__(self, rate: float, burst: float, what: str, keys: int = _MAX_KEYS) -> None:
        self._each = 1 / rate
        self._burst = burst
        self._what = what
        self._keys = keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()
        self.refused = 0
        """How often somebody was."""

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until there is a token; 0: there is one."""
        full_at = self._full_at.get(key)
        if full_at is None:
            return 0.0
        missing = full_at - now
        wait = missing - self._burst + self._each
        return wait if wait > _FUZZ and missing <= self._burst + _FUZZ else 0.0

    def check(self, key: Hashable, now: float) -> None:
        """Raises `RateLimitedError` where no token is left; takes none."""
        if wait := self.wait(key, now):
            self.refused += 1
            raise RateLimitedError(wait, self._what)

    def take(self, key: Hashable, now: float) -> None:
        """Take a token, where one is left."""
        full_at = self._full_at.get(key, now)
        missing = full_at - now
        if not 0 <= missing <= self._burst + _FUZZ:
            missing = 0.0
        self._full_at[key] = now + min(missing + self._each, self._burst)
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRules:
    """How often, in one process; 0: no bound.

    Attributes:
        identity: calls a second of one caller (token, subject of an issuer, name in a certificate).
        tenant: calls a second of all callers of one tenant together.
        address: calls a second from one address.
        refusals: a second, of credentials from one address.
        attester: attestations a minute of one machine.
        machines: attestations a second of all machines of one tenant together.
        burst: seconds for which whoever was quiet may save up.
    """

    identity: float
    tenant: float
    address: float
    refusals: float
    attester: float
    machines: float
    burst: float


class Rates:
    """Who is called too often by whom.

    Only what is proven is counted against somebody: calls with a credential that is good, attestations that were recorded. Nobody
    can use up another's.
    """

    def __init__(self, rules: RateRules, clock: Clock) -> None:
        self._clock = clock
        self._identity = _limit(rules.identity, rules.burst, "too many calls of this caller")
        self._tenant = _limit(rules.tenant, rules.burst, "too many calls of this caller's tenant")
        self._address = _limit(rules.address, rules.burst, "too many calls from this address")
        self._refusals = _limit(
            rules.refusals, rules.burst, "too many credentials from this address were refused"
        )
        self._attester = _limit(
            rules.attester / _MINUTE, max(rules.burst, _MINUTE), "too many attestations of this machine"
        )
        self._machines = _limit(
            rules.machines, rules.burst, "too many attestations of the machines of this tenant"
        )

    def called_from(self, address: str | None) -> None:
        """Count a call by its address. Raises `RateLimitedError`, as all of these do."""
        if self._address is not None:
            key, now = network_of(address), self._now()
            self._address.check(key, now)
            self._address.take(key, now)

    def called_by(self, caller: TokenRecord) -> None:
        """Count a call by its caller, who is known, and by the caller's tenant."""
        identity, tenant, now = (caller.tenant, caller.id), caller.tenant, self._now()
        if self._identity is not None:
            self._identity.check(identity, now)
        if self._tenant is not None:
            self._tenant.check(tenant, now)
            self._tenant.take(tenant, now)
        if self._identity is not None:
            self._identity.take(identity, now)

    def too_many_refused(self, address: str | None) -> bool:
        """Whether strangers from this address have to wait."""
        return self._refusals is not None and self._refusals.wait(network_of(address), self._now()) > 0

    def stranger(self, address: str | None) -> None:
        """Somebody brings a credential that this process has not seen lately."""
        if self._refusals is not None:
            self._refusals.check(network_of(address), self._now())

    def refused(self, address: str | None) -> None:
        """Count a credential that was not good."""
        if self._refusals is not None:
            self._refusals.take(network_of(address), self._now())

    def attests(self, attester_id: str, tenant: str, at: datetime) -> None:
        """A machine that says it is this one has sent evidence."""
        now = at.timestamp()
        if self._attester is not None:
            self._attester.check(attester_id, now)
        if self._machines is not None:
            self._machines.check(tenant, now)

    def attested(self, attester_id: str, tenant: str, at: datetime) -> None:
        """Count evidence that came then, was proven to be of this machine, and recorded."""
        now = at.timestamp()
        if self._attester is not None:
            self._attester.take(attester_id, now)
        if self._machines is not None:
            self._machines.take(tenant, now)

    def refusals(self) -> Mapping[str, int]:
        """How many calls were turned away, by which limit."""
        limits = {
            "identity": self._identity,
            "tenant": self._tenant,
            "address": self._address,
            "refusals": self._refusals,
            "attester": self._attester,
            "machines": self._machines,
        }
        return {name: 0 if limit is None else limit.refused for name, limit in limits.items()}

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _limit(rate: float, burst: float, what: str) -> RateLimit | None:
    return RateLimit(rate, burst, what) if rate > 0 else None


@lru_cache(maxsize=4096)
def network_of(address: str | None) -> str:
    """What is counted together: an IPv4 address, the /64 of an IPv6 one, for whoever has one of those has all of it."""
    if address is None or ":" not in address:
        return address or ""
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
