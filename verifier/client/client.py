"""The client of relying parties: verdicts, EARs and events of one verifier."""

from __future__ import annotations

import asyncio
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec

from verifier.client.ear import EarRules, EarVerifier
from verifier.client.errors import EarError, EarFault, ReplyError, UnavailableError
from verifier.client.keys import KeySet
from verifier.client.results import Ear, Event, Lifecycle, Summary, Tier, Verdict
from verifier.client.sse import Received, SseReader
from verifier.client.transport import UNREADABLE, Reply, Retry, Transport

EAR_MEDIA_TYPE: Final = "application/eat+jwt"
_BULK: Final = 1000
_LONGEST_WAIT: Final = 60
_SILENCE: Final = 45.0
"""The verifier gives a sign of life every 15 s."""
_TYPE_PREFIX: Final = "vtpm-attest."
_NO_DATA: Final = frozenset({"ready", "gap"})


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


class AttestationClient:
    """Asks one verifier about attesters.

    It fails closed: whatever keeps it from knowing is an error, and no verdict that it returns is affirming past its time.

    Args:
        url: https:// address of the verifier.
        token: API token of the scope `relying-party`; without one only EARs can be verified.
        ca: the verifier's CA (file or context); the system's CAs by default.
        issuer: the verifier's `public_url`, which its EARs name; `url` by default.
        retry: how often to try, how long to wait between.
        timeout: seconds that one attempt may take.
        keys_outlive: how long EAR keys are believed beyond their time while the verifier cannot be reached.
        now: the clock.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | ssl.SSLContext | None = None,
        issuer: str | None = None,
        retry: Retry | None = None,
        timeout: float = 30.0,
        keys_outlive: timedelta = timedelta(minutes=15),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._transport = Transport(url, token, ca=ca, retry=retry, timeout=timeout)
        self._retry = retry or Retry()
        self.issuer = (issuer or url).rstrip("/")
        self.now = now
        self._ears = EarVerifier(KeySet(self._transport, now, keys_outlive), now)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def verdict(self, attester_id: str) -> Verdict:
        """The latest verdict, as it stands now; asked for conditionally, so it is cheap while nothing changed.

        Raises:
            RefusedError: `not-found` (no such attester, or it never attested), `unauthenticated`, `forbidden`.
            UnavailableError, ReplyError.
        """
        reply = await self._transport.get(_path(attester_id))
        return _of(reply.decode(Verdict), attester_id)

    async def wait_for_change(self, verdict: Verdict, *, within: float) -> Verdict:
        """The next verdict of this attester that is another one, or the same again when `within` seconds are over.

        Another one: judged anew, or its end has come, or the attester was revoked. The verifier holds the answer back, so
        this costs one request a minute and comes at once.

        Raises:
            As `verdict`; `rate-limited` (UnavailableError) where too many wait already.
        """
        ends = asyncio.get_running_loop().time() + within
        latest = verdict
        while (left := ends - asyncio.get_running_loop().time()) > 0:
            wait = max(1, min(_LONGEST_WAIT, int(left)))
            reply = await self._transport.get(_path(verdict.attester_id), wait=wait)
            latest = _of(reply.decode(Verdict), verdict.attester_id)
            if _mark(latest) != _mark(verdict):
                break
        return latest

    async def verdicts(self, attester_ids: Iterable[str]) -> dict[str, Summary | None]:
        """What is known of many attesters, a thousand per request; None for those nobody knows.

        Raises:
            RefusedError, UnavailableError, ReplyError: then nothing is known of any of them.
        """
        ids = list(dict.fromkeys(attester_ids))
        found: dict[str, Summary | None] = {}
        for start in range(0, len(ids), _BULK):
            part = ids[start : start + _BULK]
            reply = (await self._transport.post("/v1/verdicts", {"ids": part})).decode(_Bulk)
            answers = {line.attester_id: line for line in reply.verdicts} | dict.fromkeys(reply.unknown)
            if answers.keys() != set(part):
                raise ReplyError("an answer about other attesters than were asked for")
            found |= answers
        return {attester_id: found[attester_id] for attester_id in ids}

    async def by_label(self, key: str, value: str) -> AsyncIterator[Summary]:
        """All attesters with this label, by id, a page at a time. Labels are the operator's word."""
        async for line in self._listed({"label": f"{key}={value}"}):
            yield line

    async def by_ek(self, ek_sha256: str) -> Summary | None:
        """The attester of this TPM, by SHA-256 of its EK's SubjectPublicKeyInfo in hex; None where there is none.

        The EK is proven: from an inventory you trust, this is the way to ask about a machine.
        """
        found = [line async for line in self._listed({"ek": ek_sha256})]
        if len(found) > 1 or any(line.ek_sha256 != ek_sha256.lower() for line in found):
            raise ReplyError("an answer about other EKs than the one asked for")
        return found[0] if found else None

    async def by_uuid(self, smbios_uuid: str) -> tuple[Summary, ...]:
        """Every attester that ever claimed this SMBIOS UUID, retired ones too.

        A UUID is a guest's own word: several may have claimed it, and of several none is to be believed. Prefer `by_ek`.
        """
        return tuple([line async for line in self._listed({"uuid": smbios_uuid})])

    async def _listed(self, query: dict[str, str]) -> AsyncIterator[Summary]:
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = (await self._transport.get("/v1/verdicts", query | more | {"limit": "500"})).decode(_Page)
            for line in page.verdicts:
                yield line
            cursor = page.cursor
            if cursor is None:
                return

    async def ear(self, attester_id: str, *, audience: str | None = None, nonce: str | None = None) -> Ear:
        """The verdict as a signed EAR, verified here: to keep, or to hand on to whom `audience` names.

        Args:
            attester_id: whose.
            audience: for whom it is.
            nonce: 8 to 88 characters of base64 or base64url, echoed in it: it proves that the EAR is new.

        Raises:
            EarError: what came is not to be believed.
            RefusedError, UnavailableError, ReplyError.
        """
        query = {
            name: value for name, value in (("audience", audience), ("nonce", nonce)) if value is not None
        }
        reply = await self._transport.get(_path(attester_id), query, accept=EAR_MEDIA_TYPE)
        ear = await self.verify_ear(_token(reply), audience=audience, nonce=nonce)
        return _ear_of(ear, attester_id)

    async def log_proof(self, attester_id: str, *, sequence: int | None = None) -> bytes:
        """Proof that a verdict, the latest one without a `sequence`, is in the verifier's transparency log: a file to be kept.

        It is not checked here, but for whose verdict it is: `attestctl audit verify FILE --key KEY` does, offline. A verdict
        that was just given is waited for.

        Raises:
            RefusedError: `not-found`: no such verdict, or it is from before there was a log.
            UnavailableError, ReplyError.
        """
        query = {"attester": attester_id} | ({} if sequence is None else {"sequence": str(sequence)})
        reply = await self._transport.get("/v1/log/proof/inclusion", query)
        try:
            entry = msgspec.json.decode(reply.decode(_LogProof).entry, type=_LogEntry)
        except UNREADABLE as error:
            raise ReplyError(f"a proof of no verdict: {error}") from error
        if entry.attester_id != attester_id or sequence not in {None, entry.sequence}:
            raise ReplyError(f"a proof of another verdict: {entry.attester_id}, sequence {entry.sequence}")
        return reply.content

    async def log_checkpoint(self, *, cosigned: bool = False) -> str:
        """The signed state of the transparency log, or the newest that a witness has cosigned: text to be kept.

        It is not checked here.

        Raises:
            RefusedError, UnavailableError, ReplyError.
        """
        query = {"cosigned": "true"} if cosigned else {}
        reply = await self._transport.get("/v1/log/checkpoint", query, accept="text/plain")
        try:
            return reply.content.decode()
        except UnicodeDecodeError as error:
            raise ReplyError(f"a checkpoint that is no text: {error.reason}") from error

    async def appraise(
        self, bundle: Mapping[str, object] | bytes, nonce: bytes, *, attester_id: str | None = None
    ) -> Verdict:
        """Have evidence judged that was made over your own nonce (background check); nothing of it is stored.

        Proves that the TPM of the verdict's attester signed this state after the nonce was made. It does not prove that who
        sent the bundle is that machine. The verdict's `sequence` is 0.

        Args:
            bundle: what `attest-agent attest --nonce` wrote, decoded or as it is.
            nonce: 8 to 64 bytes, random (`secrets.token_bytes(32)`), given to one machine once.
            attester_id: whose evidence it has to be; else it is whoever has the EK of the bundle: look at the verdict.

        Raises:
            RefusedError: among others `quote-nonce`, `quote-signature`, `ak-unproven`, `evidence-overtaken` (collect it again).
            UnavailableError, ReplyError.
        """
        reply = await self._transport.post("/v1/appraisals", _question(bundle, nonce, attester_id))
        answer = reply.decode(_Appraisal)
        if answer.nonce != nonce:
            raise ReplyError("a judgement about another nonce than the one that was sent")
        return _of(answer.verdict, attester_id or answer.verdict.attester_id)

    async def appraise_ear(
        self,
        bundle: Mapping[str, object] | bytes,
        nonce: bytes,
        *,
        audience: str | None = None,
        attester_id: str | None = None,
    ) -> Ear:
        """As `appraise`, as an EAR that carries the nonce, verified: to hand on to whom `audience` names.

        Raises:
            EarError, and as `appraise`.
        """
        query = {} if audience is None else {"audience": audience}
        reply = await self._transport.post(
            "/v1/appraisals", _question(bundle, nonce, attester_id), query, accept=EAR_MEDIA_TYPE
        )
        echoed = urlsafe_b64encode(nonce).rstrip(b"=").decode()
        ear = await self.verify_ear(_token(reply), audience=audience, nonce=echoed)
        return _ear_of(ear, attester_id or ear.standing.attester_id)

    async def verify_ear(self, token: str, *, audience: str | None, nonce: str | None = None) -> Ear:
        """Verify an EAR that somebody presents; the verifier is asked for nothing but its published keys.

        See `EarVerifier.verify` for what this proves and what not.
        """
        return await self._ears.verify(token, EarRules(issuer=self.issuer, audience=audience), nonce=nonce)

    async def events(
        self,
        *,
        kinds: tuple[str, ...] = (),
        attester: str | None = None,
        label: str | None = None,
        tier: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[Event]:
        """Follow what happens; a broken stream is taken up again where it ended, each event once and in order.

        Ends only by an error: RefusedError (token revoked, filter refused), or ReplyError. While the verifier cannot be
        reached it waits and tries again, with back-off, for as long as the caller listens.

        Args:
            kinds: only these; all that the token may see by default.
            attester: only of this one.
            label: `key=value` that the attester must have.
            tier: only `verdict.changed` to this tier.
            after: id of the last event that was seen; None begins now.
        """
        query = {"kind": ",".join(kinds), "attester": attester, "label": label, "tier": tier}
        wanted = urlencode({name: value for name, value in query.items() if value})
        address = "/v1/events" + (f"?{wanted}" if wanted else "")
        attempt = 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
            asked: float | None = None
            try:
                async with self._transport.stream(address, headers, _SILENCE) as content:
                    reader = SseReader()
                    async for part in content.iter_any():
                        for received in reader.feed(part):
                            attempt = attempt if received.kind in _NO_DATA else 0
                            after = received.id
                            yield _event(received)
            except UnavailableError as error:
                asked = error.retry_after
            await asyncio.sleep(max(asked or 0.0, self._retry.drawn(attempt)))
            attempt = min(attempt + 1, 16)


class _Appraisal(msgspec.Struct):
    nonce: bytes
    verdict: Verdict


class _LogProof(msgspec.Struct):
    entry: str


class _LogEntry(msgspec.Struct):
    attester_id: str
    sequence: int


class _Bulk(msgspec.Struct):
    verdicts: list[Summary]
    unknown: list[str] = []


class _Page(msgspec.Struct):
    verdicts: list[Summary]
    cursor: str | None = None


def _question(
    bundle: Mapping[str, object] | bytes, nonce: bytes, attester_id: str | None
) -> dict[str, object]:
    evidence = msgspec.Raw(bundle) if isinstance(bundle, bytes) else bundle
    asked: dict[str, object] = {"nonce": nonce, "evidence": evidence}
    return asked if attester_id is None else asked | {"attester_id": attester_id}


def _token(reply: Reply) -> str:
    try:
        return reply.content.decode("ascii")
    except UnicodeDecodeError as error:
        raise ReplyError("an EAR that is not ASCII") from error


def _ear_of(ear: Ear, attester_id: str) -> Ear:
    if ear.standing.attester_id != attester_id:
        raise EarError(EarFault.SUBJECT, f"an EAR of {ear.standing.attester_id}, not of {attester_id}")
    return ear


def _mark(verdict: Verdict) -> tuple[int, Lifecycle, Tier]:
    return verdict.sequence, verdict.lifecycle, verdict.status


def _path(attester_id: str) -> str:
    return f"/v1/attesters/{quote(attester_id, safe='')}/verdict"


def _of(verdict: Verdict, attester_id: str) -> Verdict:
    if verdict.attester_id != attester_id:
        raise ReplyError(f"a verdict of {verdict.attester_id} where that of {attester_id} was asked for")
    return verdict


class _CloudEvent(msgspec.Struct):
    type: str
    time: datetime
    data: dict[str, Any]


def _event(received: Received) -> Event:
    if received.kind in _NO_DATA:
        return Event(kind=received.kind, id=received.id)
    try:
        document = msgspec.json.decode(received.data, type=_CloudEvent)
    except UNREADABLE as error:
        raise ReplyError(f"an event that is no CloudEvent: {error}") from error
    attester_id = document.data.get("attester_id")
    return Event(
        kind=document.type.removeprefix(_TYPE_PREFIX),
        id=received.id,
        attester_id=attester_id if isinstance(attester_id, str) else None,
        data=document.data,
        time=document.time,
    )
