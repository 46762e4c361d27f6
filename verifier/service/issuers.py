"""Issuer certificates that a machine does not bring: asked for where its certificates say, if that is allowed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from verifier.crypto.aia import FetchRules, missing_issuer_urls, read_issuers
from verifier.crypto.endorsement import MAX_INTERMEDIATES
from verifier.ports import Clock
from verifier.ports_trust import AnchorPurpose, IssuerSource
from verifier.service.anchor_sets import TrustedAnchors
from verifier.service.endorsement import Candidate

MAX_FETCHES: Final = 4
"""Per enrolment: a chain of issuers is rarely longer."""
_CACHE: Final = 256
_KEEP: Final = timedelta(days=1)
_KEEP_FAILURE: Final = timedelta(minutes=1)


class IssuerFinder:
    """Completes what a machine sent with issuers from the network. Off unless hosts are listed.

    What is fetched is a helper and trusted no more than what the machine itself sends: only an anchor makes a
    path. An answer is kept for a day, a failure for a minute; one URL is asked once at a time.
    """

    def __init__(self, source: IssuerSource, rules: FetchRules, clock: Clock, *, timeout: timedelta) -> None:
        self._source = source
        self._rules = rules
        self._clock = clock
        self._timeout = timeout
        self._cache: OrderedDict[str, tuple[datetime, tuple[bytes, ...]]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[tuple[bytes, ...]]] = {}

    async def complete(self, candidate: Candidate, trusted: TrustedAnchors) -> Candidate:
        """The candidate with the issuers that were missing, as far as they could be had in the time allowed."""
        asked: set[str] = set()
        deadline = asyncio.get_running_loop().time() + self._timeout.total_seconds()
        while len(asked) < MAX_FETCHES:
            urls = [url for url in self._missing(candidate, trusted) if url not in asked]
            left = deadline - asyncio.get_running_loop().time()
            if not urls or left <= 0:
                break
            asked.add(urls[0])
            found = await self._ask(urls[0], timedelta(seconds=left))
            room = MAX_INTERMEDIATES - len(candidate.issuers)
            candidate = replace(candidate, issuers=(*candidate.issuers, *found[: max(0, room)]))
        return candidate

    def _missing(self, candidate: Candidate, trusted: TrustedAnchors) -> tuple[str, ...]:
        def urls(certificates: Sequence[bytes], purpose: AnchorPurpose) -> tuple[str, ...]:
            anchors = trusted.anchors(purpose)
            if not len(anchors):  # nothing could end there
                return ()
            return missing_issuer_urls(
                certificates, helpers=candidate.issuers, anchors=anchors, rules=self._rules
            )

        return (
            *urls(candidate.ek_certificates, AnchorPurpose.EK),
            *urls(candidate.ak_certificates, AnchorPurpose.AK),
            *urls(candidate.device_certificates, AnchorPurpose.DEVICE),
        )

    async def _ask(self, url: str, timeout: timedelta) -> tuple[bytes, ...]:  # noqa: ASYNC109 - handed on
        now = self._clock.now()
        kept = self._cache.get(url)
        if kept is not None and now < kept[0]:
            return kept[1]
        if url not in self._asking:
            self._asking[url] = asyncio.create_task(self._fetch(url, timeout))
        # Shielded: one caller that gives up must not take the answer from the others.
        return await asyncio.shield(self._asking[url])

    async def _fetch(self, url: str, timeout: timedelta) -> tuple[bytes, ...]:  # noqa: ASYNC109 - handed on
        try:
            body = await self._source.fetch(url, timeout)
            found = () if body is None else read_issuers(body)
            until = self._clock.now() + (_KEEP if found else _KEEP_FAILURE)
            self._cache[url] = (until, found)
            self._cache.move_to_end(url)
            if len(self._cache) > _CACHE:
                self._cache.popitem(last=False)
            return found
        finally:
            del self._asking[url]
