"""Pages of listings whose ETag is remembered for a moment, so that a poller is told 304 without a query."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from verifier.web.routing import Call


def unchanged_page(call: Call) -> str | None:
    """The ETag of the page that is asked for, where it is remembered."""
    return call.services.fleet.pages.get(call.tenant, _key(call))


def remember_page(call: Call) -> Callable[[str], None]:
    """For `Reply.remember`; to be called before the page is read."""
    pages, tenant = call.services.fleet.pages, call.tenant
    asked = pages.asking(tenant)
    return lambda etag: pages.keep(tenant, _key(call), etag, asked)


def _key(call: Call) -> Hashable:
    return call.request.path, call.encoding, call.query
