"""What a route is: path, who may call it, what goes in and what comes out. Data, so that it can be walked."""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from aiohttp import hdrs, web
from msgspec import Struct

from verifier.errors import EvidenceError
from verifier.ports import Scope, TokenRecord
from verifier.ports_sign_in import SignIn
from verifier.reasons import Reason
from verifier.service.admission import Party
from verifier.service.services import Services
from verifier.web.messages import NoQuery
from verifier.web.metrics_exchange import Exchange
from verifier.web.proxies import Proxies
from verifier.web.wire_codec import JSON, MAX_SMALL_BODY, MEDIA_TYPES, MSGPACK

_MSGPACK_NAMES: Final = MEDIA_TYPES - {JSON}


class Access(enum.Enum):
    """Routes without an API token. Every other route names its scopes."""

    PUBLIC = "public"
    """Nothing there is secret, and nothing changes."""
    AGENT = "agent"
    """The body authenticates itself: a join token, an activation proof, or a quote."""


READERS = frozenset({Scope.RELYING_PARTY, Scope.DASHBOARD, Scope.OPERATOR, Scope.AUDITOR, Scope.ADMIN})
WATCHERS = READERS - {Scope.RELYING_PARTY}
OPERATORS = frozenset({Scope.OPERATOR, Scope.ADMIN})
AUDITORS = frozenset({Scope.AUDITOR, Scope.OPERATOR, Scope.ADMIN})
ADMINS = frozenset({Scope.ADMIN})

SECURITY_HEADERS: Final[dict[str, str]] = {
    hdrs.SERVER: "vtpm-attest",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=31536000",
}
"""On every reply."""


STEADY: Final = web.RequestKey("steady", bool)
"""Key of a request that was a steady attestation, and was heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """What the web layer is told about itself."""

    issuer: str
    """Public URL without a trailing slash."""
    version: str
    ca_pem: bytes | None
    """CA that agents pin; None: they use their system's roots."""
    body_timeout: float
    large_bodies: int
    """Bytes that large bodies may take together."""
    connections: int
    """How many are kept open."""
    most_connections: int
    """How many are open at once, busy ones among them."""
    handshakes: int
    """How many are under way at once."""
    access_log: bool
    access_sample: int = 1
    """One of so many requests that were answered well is logged; of the others each."""
    metrics_life: float = 0.0
    """Seconds for which one rendering of the metrics is handed out again."""
    metrics_exchange: Exchange | None = None
    """With the other workers of the same service; None: there are none."""
    sign_in: SignIn | None = None
    """Of people, through a provider; None: with tokens alone."""
    proxies: Proxies | None = None
    """Whose word counts for where a request comes from; None: nobody's."""


class Call(Struct, frozen=True, kw_only=True):
    """One request, authenticated and decoded. `body` and `query` are of the types the route names."""

    request: web.Request
    services: Services
    config: WebConfig
    principal: TokenRecord | None
    body: Any
    query: Any

    @property
    def caller(self) -> TokenRecord:
        """The token of a scoped route."""
        if self.principal is None:  # a route that asks for it without naming scopes would be a hole
            raise EvidenceError(Reason.UNAUTHENTICATED, "this call needs an API token")
        return self.principal

    @property
    def tenant(self) -> str:
        """The tenant of the caller; all it sees is within it."""
        return self.caller.tenant

    @property
    def encoding(self) -> str:
        """The media type of a message for this client: JSON unless it asks for MessagePack."""
        return MSGPACK if _named(self.request.headers.get(hdrs.ACCEPT, "")) & _MSGPACK_NAMES else JSON

    @property
    def is_conditional(self) -> bool:
        """Whether the client says which answer it has."""
        return "If-None-Match" in self.request.headers

    def knows(self, etag: str) -> bool:
        """Whether the client has the answer with this ETag (RFC 9110, section 13.1.2: weak comparison)."""
        wanted = self.request.headers.get("If-None-Match")
        if wanted is None:
            return False
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        return f'"{etag}"' in tags or "*" in tags

    def accepts(self, media_type: str) -> bool:
        """Whether the client named this media type in `Accept`."""
        return media_type in _named(self.request.headers.get(hdrs.ACCEPT, ""))


@lru_cache(maxsize=64)
def _named(accepted: str) -> frozenset[str]:
    """The media types of an `Accept` header; clients have few of them."""
    return frozenset(part.split(";")[0].strip().lower() for part in accepted.split(","))


class Reply(Struct, frozen=True, kw_only=True):
    """What a handler answers: a message to be encoded, or bytes with their own media type."""

    body: object
    status: int = 200
    media_type: str | None = None
    etag: str | None = None
    """Set by the handler where it knows a cheaper one than the digest of the body."""
    remember: Callable[[str], None] | None = None
    """Told the ETag of the answer."""
    headers: Mapping[str, str] = {}
    stream: Callable[[], Awaitable[web.StreamResponse]] | None = None
    """Sends the reply itself, piece by piece; it must not fail once it has begun."""


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A header of requests that an operation reads itself, for the document."""

    name: str
    description: str
    pattern: str
    """Of its value, a regular expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the API. `access` has no default: a route nobody thought about cannot exist."""

    method: str
    path: str
    access: Access | frozenset[Scope]
    handler: Handler
    summary: str
    response: type[Any] | None
    """Message of the 2xx reply; None: `media_type` alone says it."""
    media_type: str = JSON
    pattern: str | None = None
    """The path as the router takes it, where a parameter goes beyond one segment."""
    request: type[Any] | None = None
    """Message of the body; None with `request_media_type` set: raw bytes of that type."""
    request_media_type: str | None = None
    body_optional: bool = False
    """None is decoded where no body is sent."""
    query: type[Any] = NoQuery
    headers: tuple[HeaderParameter, ...] = ()
    status: int = 200
    max_body: int = MAX_SMALL_BODY
    conditional: bool = False
    """Carries an ETag and answers 304."""
    unchanged: Callable[[Call], str | None] | None = None
    """The ETag of the answer, where it is known without asking the database."""
    party: Party | Callable[[web.Request], Party] | None = None
    """Whose turn this call has to wait for (`verifier.service.admission`), by its head; None: it costs little."""
    probe: bool = False
    """Asked by balancers: no limit by address, which is theirs, may take this replica out of service."""
    reasons: tuple[Reason, ...] = ()
    """Refusals that are this route's own, for the document; the common ones are known."""

    @property
    def has_body(self) -> bool:
        """Whether a request body is expected."""
        return self.request is not None or self.request_media_type is not None

    @property
    def name(self) -> str:
        """For metrics and operation ids: no identifiers, so few values."""
        return f"{self.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', self.path).strip('_')}"
