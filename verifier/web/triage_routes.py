"""Unknown entries of IMA lists over the fleet."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from verifier.service.triage import merged
from verifier.web import messages as m
from verifier.web.messages import Body, Cursor, Label
from verifier.web.routing import AUDITORS, Call, Reply, Route


class UnknownQuery(Body, frozen=True):
    """Whose lists to look through, and from where."""

    label: Label | None = None
    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 25


class UnknownFile(Body, frozen=True):
    """A file that attesters of the page have measured and that their policy's runtime sets do not have."""

    path: str
    """As a runtime set writes it."""
    digest: str
    change: Literal["unknown", "changed"]
    """`changed`: the path is known with other content."""
    package: str | None
    """What the sets have of this path."""
    known_as: str | None
    """Another path this content is known under."""
    attesters: int
    examples: list[str]
    """Ids of the first of them."""


class UnknownReply(Body, frozen=True):
    """One page of attesters; entries are those of this page alone."""

    examined: int
    affected: int
    unread: list[str]
    """Attesters whose list is not kept whole, so that what they run is not among the entries."""
    entries: list[UnknownFile]
    cursor: str | None


async def unknown(call: Call) -> Reply:
    """What runs and is not known."""
    query: UnknownQuery = call.query
    label = None if query.label is None else m.split_label(query.label)
    page = await call.services.triage.page(call.tenant, label, query.cursor, query.limit)
    entries = [
        UnknownFile(
            path=entry.path,
            digest=entry.digest,
            change="changed" if entry.change == "changed" else "unknown",
            package=entry.package,
            known_as=entry.known_as,
            attesters=seen.count,
            examples=seen.examples,
        )
        for entry, seen in merged(page.entries)
    ]
    reply = UnknownReply(
        examined=page.examined,
        affected=page.affected,
        unread=page.unread,
        entries=entries,
        cursor=page.cursor,
    )
    return Reply(body=reply)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/runtime/unknown",
        access=AUDITORS,
        handler=unknown,
        summary="Files that attesters have run and no runtime set of their policy has, a page of attesters at a time",
        query=UnknownQuery,
        response=UnknownReply,
    ),
)
