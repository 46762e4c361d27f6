"""What a page of the dashboard is, and the way from a request to it: session, form, errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote

import aiohttp_jinja2
import structlog
from aiohttp import web

from verifier.errors import EvidenceError, RefusedError
from verifier.ports import Scope, TokenRecord
from verifier.ports_observe import request_id
from verifier.reasons import Reason
from verifier.service.services import Services
from verifier.service.tokens import is_session
from verifier.web.bodies import read_body
from verifier.web.dashboard.sessions import COOKIE, Session, Sessions, check_same_origin
from verifier.web.problems import is_ours, problem_of
from verifier.web.routing import OPERATORS, WebConfig

HOME: Final = "/dashboard"
LOGIN: Final = "/dashboard/login"
CSP: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MAX_FORM: Final = 512 * 1024
_MAX_FIELDS: Final = 32
_FORM: Final = "application/x-www-form-urlencoded"
_log = structlog.get_logger("vtpm_attest.dashboard")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCall:
    """One request of a page. `form`: fields of a POST, the last of each name."""

    request: web.Request
    services: Services
    sessions: Sessions
    config: WebConfig
    session: Session | None = None
    principal: TokenRecord | None = None
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> TokenRecord:
        """Who looks; only pages with scopes have one."""
        if self.principal is None:
            raise RefusedError(Reason.UNAUTHENTICATED, "this page needs a session")
        return self.principal

    @property
    def actor(self) -> str:
        """Who decides, for the audit log: a token by its id, a person also by name."""
        return f"{self.caller.id} {self.caller.label}" if is_session(self.caller) else self.caller.id

    @property
    def tenant(self) -> str:
        """Whose fleet is shown."""
        return self.caller.tenant

    @property
    def before(self) -> int | None:
        """`?before=`: where a list, newest first, goes on.

        :raises EvidenceError: it is no number that an entry could have.
        """
        text = self.request.query.get("before", "")
        if not text:
            return None
        if not text.isdecimal() or not text.isascii() or len(text) > 18:  # noqa: PLR2004 - of a 64-bit number
            raise EvidenceError(Reason.MALFORMED_REQUEST, "`before` is a number", structure="query")
        return int(text)

    def render(self, template: str, *, status: int = 200, **context: Any) -> web.Response:  # noqa: ANN401 - of templates
        """The page."""
        scopes = frozenset() if self.principal is None else self.principal.scopes
        shared = {
            "signed_in": self.principal is not None,
            "may_decide": bool(scopes & OPERATORS),
            "may_audit": bool(scopes & AUDITORS),
            "label": "" if self.principal is None else self.principal.label,
            "csrf": "" if self.session is None else self.sessions.csrf(self.session),
            "path": self.request.path,
            "now": self.services.clock.now(),
            "version": self.config.version,
            "sign_in": None if self.config.sign_in is None else self.config.sign_in.name,
        }
        return aiohttp_jinja2.render_template(template, self.request, shared | context, status=status)


AUDITORS: Final = frozenset({Scope.OPERATOR, Scope.AUDITOR, Scope.ADMIN})
PageHandler: TypeAlias = Callable[[PageCall], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page. `scopes` has no default: a page nobody thought about cannot exist; None: anyone."""

    method: str
    path: str
    handler: PageHandler
    scopes: frozenset[Scope] | None
    max_form: int = MAX_FORM

    @property
    def name(self) -> str:
        """For metrics."""
        words = self.path.replace("{", "").replace("}", "").strip("/").replace("/", "_").replace(".", "_")
        return f"{self.method.lower()}_{words}"


class PageDispatcher:
    """The aiohttp handler of one page."""

    def __init__(self, page: Page, services: Services, sessions: Sessions, config: WebConfig) -> None:
        self._page = page
        self._services = services
        self._sessions = sessions
        self._config = config

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Session first, then the form, then the page; whatever is refused is told on a page."""
        call = PageCall(
            request=request, services=self._services, sessions=self._sessions, config=self._config
        )
        try:
            self._services.rates.called_from(request.remote)
            opened = await self._opened(call)
            response = _to_login(request) if opened is None else await self._page.handler(opened)
        except web.HTTPException as redirect:
            response = redirect
        except Exception as error:  # noqa: BLE001 - the border of the pages
            response = _refused(call, error)
        if not response.prepared:
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers["Content-Security-Policy"] = CSP
        return response

    async def _opened(self, call: PageCall) -> PageCall | None:
        """With session and form; None: sign in first."""
        session, principal = None, None
        if self._page.scopes is not None:
            session = self._sessions.open(call.request.cookies.get(COOKIE, ""), self._services.clock.now())
            if session is None:
                return None
            try:
                principal = await self._services.tokens.resume(session.token_hash)
            except RefusedError:
                return None
            if not principal.scopes & self._page.scopes:
                needed = ", ".join(sorted(self._page.scopes))
                raise RefusedError(Reason.FORBIDDEN, f"this needs a token with one of the scopes {needed}")
            self._services.rates.called_by(principal)
        form = await self._form(call.request, session) if self._page.method == "POST" else {}
        return PageCall(
            request=call.request,
            services=call.services,
            sessions=call.sessions,
            config=call.config,
            session=session,
            principal=principal,
            form=form,
        )

    async def _form(self, request: web.Request, session: Session | None) -> dict[str, str]:
        check_same_origin(request)
        if request.content_type != _FORM:
            raise EvidenceError(Reason.UNSUPPORTED_MEDIA_TYPE, f"forms are {_FORM}")
        body = bytes(await read_body(request, self._page.max_form, self._config.body_timeout))
        try:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
        except (UnicodeDecodeError, ValueError) as error:
            raise EvidenceError(
                Reason.MALFORMED_REQUEST, "the form cannot be read", structure="form"
            ) from error
        if session is not None:
            self._sessions.check_csrf(session, fields.pop("csrf", ""))
        return fields


def _to_login(request: web.Request) -> web.Response:
    """Back here afterwards, but only to a page that can be read again."""
    target = quote(request.path_qs, safe="") if request.method == "GET" else ""
    return web.Response(status=303, headers={"Location": f"{LOGIN}?next={target}" if target else LOGIN})


def _refused(call: PageCall, error: Exception) -> web.Response:
    reply = problem_of(error, request_id())
    if is_ours(error):
        _log.error("dashboard.fault", code=reply.document.code, exc_info=error)
    return call.render("error.html", status=reply.status, problem=reply.document)
