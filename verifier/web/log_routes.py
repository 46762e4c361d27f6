"""The transparency log over the API: checkpoints and tiles as every log of C2SP has them, and proofs."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from verifier.errors import EvidenceError, RefusedError
from verifier.reasons import Reason
from verifier.transparency.bundle import Bundle, Consistency
from verifier.web.messages import Body
from verifier.web.routing import AUDITORS, READERS, Call, Reply, Route

_TEXT: Final = "text/plain"
_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_Number = Annotated[int, Meta(ge=0, le=2**62)]


class CheckpointQuery(Body, frozen=True):
    """Which one: the newest, unless one of these is said."""

    size: _Number | None = None
    """Of the log then; only some are kept."""
    cosigned: bool = False
    """The newest one that a witness has cosigned."""


class InclusionQuery(Body, frozen=True):
    """What is to be proven: a verdict, the latest one of its attester without a sequence, or an entry of the audit log."""

    attester: str | None = None
    sequence: Annotated[int, Meta(ge=1, le=2**63 - 2)] | None = None
    audit: Annotated[int, Meta(ge=1, le=2**63 - 1)] | None = None


class ConsistencyQuery(Body, frozen=True):
    """From how many leaves to how many; to those of the newest checkpoint where nothing is said."""

    old: _Number = field(name="from")
    new: _Number | None = field(name="to", default=None)


class InclusionProof(Body, frozen=True):
    """A proof that stands for itself, but for the log's key: `attestctl audit verify` checks it."""

    format: Literal["vtpm-attest-log-proof/1"]
    entry: str
    """The very bytes whose hash is the leaf."""
    index: int
    proof: list[str]
    """Hashes from the leaf upward, hex."""
    checkpoint: str
    """Signed note of the state of the log that the proof leads to."""


class ConsistencyProof(Body, frozen=True):
    """A proof between two sizes of the log."""

    old: int = field(name="from")
    new: int = field(name="to")
    proof: list[str]
    """Hex."""


class Cosigned(Body, frozen=True):
    """Whose cosignatures are kept."""

    witnesses: list[str]


async def checkpoint(call: Call) -> Reply:
    """A signed note."""
    query: CheckpointQuery = call.query
    found = await call.services.log.checkpoint(size=query.size, cosigned=query.cosigned)
    return Reply(body=found.note.encode(), media_type=f"{_TEXT}; charset=utf-8")


async def tile(call: Call) -> Reply:
    """Hashes, 32 bytes each."""
    path = call.request.match_info
    found = await call.services.log.tile(f"tile/{path['level']}/{path['number']}")
    return Reply(body=found, media_type=_BINARY, headers=_FOR_EVER)


async def inclusion(call: Call) -> Reply:
    """A proof that stands for itself, but for the log's key."""
    query: InclusionQuery = call.query
    log = call.services.log
    if query.audit is not None:
        if call.caller.scopes.isdisjoint(AUDITORS):
            raise RefusedError(Reason.FORBIDDEN, "entries of the audit log are for auditors and operators")
        if query.attester is not None or query.sequence is not None:
            raise EvidenceError(Reason.MALFORMED_REQUEST, "either an attester or an entry of the audit log")
        return _json(await log.audit(call.tenant, query.audit))
    if query.attester is None:
        raise EvidenceError(Reason.MALFORMED_REQUEST, "name an attester, or an entry of the audit log")
    return _json(await log.verdict(call.tenant, query.attester, query.sequence))


async def consistency(call: Call) -> Reply:
    """A proof between two sizes."""
    query: ConsistencyQuery = call.query
    return _json(await call.services.log.growth(query.old, query.new))


async def cosign(call: Call) -> Reply:
    """Keep what a witness has signed."""
    return Reply(body=Cosigned(witnesses=list(await call.services.log.cosign(call.body))))


def _json(found: Bundle | Consistency) -> Reply:
    return Reply(body=found.encode(), media_type=_JSON)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/log/checkpoint",
        access=READERS,
        handler=checkpoint,
        summary="The signed state of the transparency log (c2sp.org/tlog-checkpoint)",
        response=None,
        media_type=_TEXT,
        query=CheckpointQuery,
        conditional=True,
        reasons=(Reason.NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/v1/log/tile/{level}/{number}",
        pattern="/v1/log/tile/{level}/{number:.+}",
        access=READERS,
        handler=tile,
        summary="A tile of the log's tree: 256 hashes, or with `.p/N` behind it the first N (c2sp.org/tlog-tiles)",
        response=None,
        media_type=_BINARY,
        reasons=(Reason.NOT_FOUND,),
    ),
    Route(
        method="GET",
        path="/v1/log/proof/inclusion",
        access=READERS,
        handler=inclusion,
        summary="Proof that a verdict, or an entry of the audit log, is in the transparency log",
        response=InclusionProof,
        query=InclusionQuery,
        reasons=(Reason.NOT_FOUND, Reason.FORBIDDEN),
    ),
    Route(
        method="GET",
        path="/v1/log/proof/consistency",
        access=READERS,
        handler=consistency,
        summary="Proof that the log begins with what it was",
        response=ConsistencyProof,
        query=ConsistencyQuery,
        reasons=(Reason.NOT_FOUND,),
    ),
    Route(
        method="POST",
        path="/v1/log/cosignatures",
        access=READERS,
        handler=cosign,
        summary="Keep a witness' cosignature: the checkpoint with its line below it (c2sp.org/tlog-cosignature)",
        response=Cosigned,
        request_media_type=_TEXT,
        reasons=(Reason.NOT_FOUND,),
    ),
)
