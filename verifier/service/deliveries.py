"""Sends events to webhooks: what is due, from the durable outbox, until it has arrived or is given up.

At least once: a delivery is claimed for a while before it is tried, so a replica that dies leaves it to the others,
and what arrived without our knowing arrives again, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from verifier.errors import VerifierFault
from verifier.ports import Clock, Random
from verifier.ports_events import Attempt, Claimed, Outbox, WebhookSender
from verifier.service.cloud_events import MEDIA_TYPE, document, event_id, signed_headers
from verifier.service.webhooks import SecretOf

_AT_ONCE: Final = 64
_AT_ONCE_EACH: Final = 4
"""To one webhook: one that hangs keeps none of the others waiting."""
_LOOK_EVERY: Final = 1.0
_AFTER_FAULT: Final = 2.0
_LEASE_MARGIN: Final = timedelta(seconds=15)
_GROWTH: Final = 4
_GONE: Final = 410
_log = structlog.get_logger("vtpm_attest.webhooks")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """How often and when a delivery is tried.

    Attributes:
        source: URL of this verifier.
        attempts: how often, before it is dead.
        timeout: of one attempt.
        first_retry: after the first attempt; four times as long after each further one.
        longest_retry: no pause is longer, but for the jitter.
    """

    source: str
    attempts: int
    timeout: timedelta
    first_retry: timedelta
    longest_retry: timedelta

    def pause(self, attempts: int, chance: float) -> timedelta:
        """Before the next attempt, after so many; `chance` in [0, 1) spreads it from half to one and a half."""
        grown = self.first_retry * float(_GROWTH ** min(attempts - 1, 16))
        return min(self.longest_retry, grown) * (0.5 + chance)


class Deliverer:
    """Tries what is due, several at once, in any number of replicas."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        sender: WebhookSender,
        secret_of: SecretOf,
        rules: DeliveryRules,
        clock: Clock,
        random: Random,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._secret_of = secret_of
        self._rules = rules
        self._clock = clock
        self._random = random
        self._tasks: dict[asyncio.Task[None], str] = {}
        self.wake = asyncio.Event()
        """Set when there may be something due."""
        self.outcomes: Counter[str] = Counter()
        """Attempts of this process: delivered, failed (to be tried again), dead."""

    async def run(self) -> None:
        """Deliver until cancelled. Whatever is being tried then is tried again by whoever comes next."""
        try:
            while True:
                self.wake.clear()
                try:
                    await self.start_due()
                except Exception as error:  # noqa: BLE001 - a bug too: nobody waits for this task
                    _log.error(
                        "webhooks.not-claimed",
                        problem=str(error),
                        exc_info=not isinstance(error, VerifierFault),
                    )
                    await asyncio.sleep(_AFTER_FAULT)
                with suppress(TimeoutError):
                    # Not wait_for: before Python 3.12 it loses a cancellation that comes as it is woken.
                    async with asyncio.timeout(_LOOK_EVERY):
                        await self.wake.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._sender.close()

    async def start_due(self) -> None:
        """Begin as many of the deliveries that are due as there is room for."""
        room = _AT_ONCE - len(self._tasks)
        if room <= 0:
            return
        now = self._clock.now()
        claimed = await self._outbox.claim_deliveries(
            now,
            now + self._rules.timeout + _LEASE_MARGIN,
            busy=Counter(self._tasks.values()),
            each=_AT_ONCE_EACH,
            limit=room,
        )
        for one in claimed:
            task = asyncio.create_task(self._deliver(one))
            self._tasks[task] = one.webhook.id
            task.add_done_callback(self._done)

    async def counts(self) -> Mapping[str, int]:
        """Deliveries of all tenants by status: the queue, and what is dead."""
        return await self._outbox.delivery_counts()

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self.wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease ends, and it is tried again: nothing is lost, but somebody should know.
            _log.error("webhook.not-noted", problem=str(error), exc_info=error)

    async def _deliver(self, one: Claimed) -> None:
        body, message_id = document(one.event, self._rules.source), event_id(one.event)
        signed = signed_headers(self._secret_of(one.webhook.id), message_id, body, self._clock.now())
        headers = {"Content-Type": f"{MEDIA_TYPE}; charset=utf-8", **signed}
        answer = await self._sender.send(one.webhook.url, body, headers)
        now, retry_at = self._clock.now(), None
        if answer.problem is not None and answer.status != _GONE:
            retry_at = self._retry_at(one.delivery.attempts, now)
        attempt = Attempt(
            delivered=answer.problem is None,
            at=now,
            retry_at=retry_at,
            http_status=answer.status,
            problem=answer.problem,
        )
        self._tell(one, attempt)
        await self._outbox.finish_delivery(one.delivery.id, one.delivery.attempts, attempt)

    def _retry_at(self, attempts: int, now: datetime) -> datetime | None:
        if attempts >= self._rules.attempts:
            return None
        chance = int.from_bytes(self._random.bytes(4), "big") / 2**32
        return now + self._rules.pause(attempts, chance)

    def _tell(self, one: Claimed, attempt: Attempt) -> None:
        outcome = "delivered" if attempt.delivered else "dead" if attempt.retry_at is None else "failed"
        self.outcomes[outcome] += 1
        level = {"delivered": "debug", "failed": "info", "dead": "warning"}[outcome]
        getattr(_log, level)(
            f"webhook.{outcome}",
            webhook=one.webhook.id,
            event_id=event_id(one.event),
            attempts=one.delivery.attempts,
            status=attempt.http_status,
            problem=attempt.problem,
        )
