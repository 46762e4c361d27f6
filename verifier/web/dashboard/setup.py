"""Puts the dashboard into the application: pages, templates, static files."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final

import aiohttp_jinja2
import jinja2
from aiohttp import web
from aiohttp.typedefs import Handler

from verifier.ports import Random
from verifier.reasons import Reason
from verifier.service.services import Services
from verifier.web.dashboard.handlers import CLOSING, PAGES
from verifier.web.dashboard.pages import CSP, PageDispatcher
from verifier.web.dashboard.sessions import Sessions
from verifier.web.routing import WebConfig

_HERE: Final = "verifier.web.dashboard"
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC: Final = "/dashboard/static/{hash}/{name}"
NAMES: Final = (*(page.name for page in PAGES), "get_dashboard_static")
"""Of all operations, for the metrics."""


def add_dashboard(
    app: web.Application, services: Services, config: WebConfig, session_key: bytes, random: Random
) -> None:
    """Add every page. A browser asks for the static files once: their address holds their digest."""
    static = _static_files()
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.PackageLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": _when, "utc": _utc, "span": _span, "remedy": _remedy}
    environment.globals["static"] = {
        name: f"/dashboard/static/{digest}/{name}" for name, (digest, _) in static.items()
    }
    sessions = Sessions(session_key, random)
    for page in PAGES:
        handler = PageDispatcher(page, services, sessions, config).handle
        app.router.add_route(page.method, page.path, handler, name=page.name)
    app.router.add_route("GET", _STATIC, _server_of(static), name="get_dashboard_static")
    app[CLOSING] = asyncio.Event()
    app.on_shutdown.append(_close)


async def _close(app: web.Application) -> None:
    """Open streams would hold up the end."""
    app[CLOSING].set()


def _static_files() -> dict[str, tuple[str, bytes]]:
    found = {}
    for entry in files(_HERE).joinpath("static").iterdir():
        content = entry.read_bytes()
        found[entry.name] = (hashlib.sha256(content).hexdigest()[:16], content)
    return found


def _server_of(static: dict[str, tuple[str, bytes]]) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        digest, content = static.get(name, ("", b""))
        if not digest or request.match_info["hash"] != digest:
            raise web.HTTPNotFound
        headers = {
            "Content-Type": f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8",
            "Cache-Control": "public, max-age=31536000, immutable",
            "Content-Security-Policy": CSP,
        }
        return web.Response(body=content, headers=headers)

    return serve


def _utc(moment: datetime) -> str:
    """As people read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def _when(moment: datetime, now: datetime) -> str:
    """How long ago, or in how long."""
    seconds = int((moment - now).total_seconds())
    text = _span(abs(seconds))
    if text == "0 s":
        return "now"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def _span(seconds: float) -> str:
    """A length of time in its largest unit."""
    size, unit = next((one for one in _SPANS if seconds >= one[0]), _SPANS[-1])
    return f"{int(seconds // size)} {unit}"


def _remedy(code: str) -> str:
    """What to do about a finding; nothing for a code this version does not know."""
    try:
        return Reason(code).entry.remedy
    except ValueError:
        return ""
