"""Only attested callers: who is calling, what their verdict is, whether that is enough. Whatever is not known is a denial."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from verifier.client.callers import Caller, Identified, Source, ambiguous
from verifier.client.client import AttestationClient
from verifier.client.errors import UNAVAILABLE, AttestationError, RefusedError, UnavailableError
from verifier.client.requirement import Admitted, Denied, Refusal, Requirement
from verifier.client.results import Standing

_LET_BE: Final = timedelta(seconds=2)
"""After the verifier did not answer, others do not wait for it again so soon."""
_RETRY_AFTER: Final = 5


@dataclass(frozen=True, slots=True)
class _Known:
    """What the verifier answered, and when; None: it knows of no verdict."""

    at: datetime
    standing: Standing | None


class Verdicts:
    """What the verifier says now of attesters, asked for once per attester and `fresh_for`.

    While it cannot be reached, its last word counts for `outlive` more, and never past the verdict's own end.

    Args:
        client: asks.
        fresh_for: how old an answer may be: how long a revocation may take to count here.
        outlive: how long the last answer counts while there is no newer one.
        patience: seconds that a caller waits for the verifier.
        size: how many attesters are remembered.
    """

    def __init__(
        self,
        client: AttestationClient,
        *,
        fresh_for: timedelta = timedelta(seconds=15),
        outlive: timedelta = timedelta(minutes=5),
        patience: float = 5.0,
        size: int = 10_000,
    ) -> None:
        self._client = client
        self._fresh_for = fresh_for
        self._outlive = outlive
        self._patience = patience
        self._size = size
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[_Known]] = {}
        self._failed_at: datetime | None = None

    async def standing(self, attester_id: str) -> Standing | None:
        """How the attester stands; None: the verifier knows of no verdict.

        Raises:
            AttestationError: that cannot be known now.
        """
        now = self._client.now()
        known = self._known.get(attester_id)
        if known is not None and now - known.at < self._fresh_for:
            self._known.move_to_end(attester_id)
            return known.standing
        try:
            return (await self._ask(attester_id, now)).standing
        except AttestationError:
            if known is not None and now - known.at < self._fresh_for + self._outlive:
                return known.standing
            raise

    async def _ask(self, attester_id: str, now: datetime) -> _Known:
        if self._failed_at is not None and now - self._failed_at < _LET_BE:
            raise UnavailableError("the verifier did not answer a moment ago")
        task = self._asking.get(attester_id)
        if task is None:
            task = asyncio.ensure_future(self._answer(attester_id))
            self._asking[attester_id] = task
            task.add_done_callback(lambda done: self._asked(attester_id, done))
        # Shared by all who wait for it: one that goes away must not take it from the others.
        return await asyncio.shield(task)

    def _asked(self, attester_id: str, done: asyncio.Task[_Known]) -> None:
        self._asking.pop(attester_id, None)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._failed_at = None
        elif isinstance(error, UnavailableError) and error.code == UNAVAILABLE:
            # Only of this: a fault that one attester's data causes must not shut others out.
            self._failed_at = self._client.now()

    async def _answer(self, attester_id: str) -> _Known:
        asked_at = self._client.now()
        try:
            async with asyncio.timeout(self._patience):
                standing: Standing | None = (await self._client.verdict(attester_id)).standing
        except TimeoutError as error:
            raise UnavailableError(f"the verifier did not answer within {self._patience} s") from error
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            standing = None
        known = _Known(asked_at, standing)
        self._known[attester_id] = known
        self._known.move_to_end(attester_id)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return known


class Gate:
    """Decides about callers.

    Every source that finds something must agree on who is calling, so a certificate beside an EAR binds the EAR to its key.

    Args:
        client: of the verifier; needs a token of scope `relying-party`, unless `live` is False.
        requirement: what a verdict must be.
        sources: how callers are known; at least one.
        live: ask the verifier also about callers that bring an EAR, so that a revocation counts within `fresh_for` rather than at
            the EAR's end.
        verdicts: the memory of verdicts; one of default settings by default.
    """

    def __init__(
        self,
        client: AttestationClient,
        requirement: Requirement,
        sources: Sequence[Source],
        *,
        live: bool = True,
        verdicts: Verdicts | None = None,
    ) -> None:
        if not sources:
            raise ValueError("name at least one source of who is calling")
        self._client = client
        self._requirement = requirement
        self._sources = tuple(sources)
        self._live = live
        self._verdicts = verdicts or Verdicts(client)

    async def decide(self, caller: Caller) -> Admitted | Denied:
        """Whether this caller is let in. Never raises for anything that a caller or the verifier does."""
        try:
            found = await self._identified(caller)
            if isinstance(found, Denied):
                return found
            return await self._judged(found)
        except AttestationError as error:
            retry_after = error.retry_after if isinstance(error, UnavailableError) else None
            return Denied(
                refusal=Refusal.UNAVAILABLE,
                detail="the verifier cannot tell now whether the caller is trusted",
                remedy="Try again later; the operator of this service finds the cause in its log.",
                cause=error.code,
                retry_after=int(retry_after or _RETRY_AFTER),
            )

    async def _identified(self, caller: Caller) -> tuple[Identified, ...] | Denied:
        answers = [await source.identify(caller) for source in self._sources]
        for answer in answers:
            if isinstance(answer, Denied):
                return answer
        found = tuple(answer for answer in answers if isinstance(answer, Identified))
        if not found:
            return Denied(
                refusal=Refusal.REQUIRED,
                detail="nothing in the request says which attester is calling",
                remedy="Send an EAR for this service in Attestation-Result, or what else this service accepts.",
            )
        if len({answer.attester_id for answer in found}) > 1:
            return ambiguous("certificate, EAR and proxy do not name the same attester")
        return found

    async def _judged(self, found: tuple[Identified, ...]) -> Admitted | Denied:
        now, attester_id = self._client.now(), found[0].attester_id
        standings = [answer.standing for answer in found if answer.standing is not None]
        if self._live or not standings:
            live = await self._verdicts.standing(attester_id)
            if live is None:
                return Denied(
                    refusal=Refusal.UNKNOWN,
                    detail="the verifier knows no verdict of this attester",
                    remedy="Enrol the machine with this verifier, and attest.",
                    attester_id=attester_id,
                )
            standings.append(live)
        for standing in standings:
            denied = self._requirement.denial(standing, now)
            if denied is not None:
                return denied
        return Admitted(standing=standings[-1], sources=tuple(answer.source for answer in found))
