"""Sign-in through a provider: away with a secret of this browser, back with a code, and never for anyone else.

The state, the nonce and the code verifier are in a sealed cookie of this browser alone: an answer that somebody else began, or
that is brought into another browser, is refused. What a sign-in gives is a token that only its session knows, so that it is
listed, audited and revoked like any other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog
from aiohttp import web

from verifier.errors import NotFoundError, RefusedError
from verifier.ports import DEFAULT_TENANT
from verifier.ports_sign_in import Person, ProviderFault, SignIn, SignInRefused
from verifier.web.dashboard.pages import HOME, LOGIN, Page, PageCall
from verifier.web.dashboard.sessions import LIFETIME, check_same_origin, set_cookie
from verifier.web.routing import WATCHERS

START: Final = "/dashboard/oidc/start"
RETURN: Final = "/dashboard/oidc/return"
COOKIE: Final = "__Host-vtpm-attest-sign-in"
_ATTEMPT: Final = timedelta(minutes=10)
_PURPOSE: Final = b"sign-in"
_MAX_COOKIE: Final = 3072
_MAX_TARGET: Final = 1024
_MAX_CODE: Final = 4096
_SECRET: Final = 32
_log = structlog.get_logger("vtpm_attest.dashboard")


class Attempt(msgspec.Struct, frozen=True):
    """A sign-in that was begun in this browser."""

    state: bytes
    nonce: bytes
    verifier: bytes
    target: str
    expires_at: int
    """Seconds since 1970."""


async def start(call: PageCall) -> web.StreamResponse:
    """Away to the provider. Only from pages of ours: others begin no sign-in in this browser."""
    sign_in, target = _configured(call), call.request.query.get("next", "")
    try:
        check_same_origin(call.request)
    except RefusedError:
        return web.Response(status=303, headers={"Location": LOGIN})
    fresh = call.sessions.random.bytes
    expires = int((call.services.clock.now() + _ATTEMPT).timestamp())
    if len(target) > _MAX_TARGET:
        target = HOME
    attempt = Attempt(fresh(_SECRET), fresh(_SECRET), fresh(_SECRET), target, expires)
    try:
        address = await sign_in.provider.address(
            state=_text(attempt.state),
            nonce=_text(attempt.nonce),
            challenge=_text(hashlib.sha256(_text(attempt.verifier).encode()).digest()),
        )
    except ProviderFault as error:
        return _failed(call, error, target)
    response = web.Response(status=303, headers={"Location": address})
    response.set_cookie(
        COOKIE,
        call.sessions.seal(_PURPOSE, msgspec.msgpack.encode(attempt)),
        max_age=int(_ATTEMPT.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    return response


async def back(call: PageCall) -> web.StreamResponse:
    """Back from the provider: a session, or why there is none."""
    sign_in = _configured(call)
    try:
        attempt = _attempt(call)
    except SignInRefused as error:
        return _failed(call, error, HOME)
    try:
        code = _code(call, sign_in)
        person = await sign_in.provider.person(
            code=code, verifier=_text(attempt.verifier), nonce=_text(attempt.nonce)
        )
        response = await _begin(call, sign_in, person, attempt.target)
    except (SignInRefused, ProviderFault) as error:
        response = _failed(call, error, attempt.target)
    # Spent, whatever came of it; only an answer to it can spend it.
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
    return response


def _configured(call: PageCall) -> SignIn:
    if call.config.sign_in is None:
        raise NotFoundError("sign-in provider", "oidc")
    return call.config.sign_in


def _attempt(call: PageCall) -> Attempt:
    """The attempt this browser began; its state is in the answer (RFC 6749, section 10.12)."""
    sealed = call.sessions.unseal(_PURPOSE, call.request.cookies.get(COOKIE, ""), _MAX_COOKIE)
    if sealed is None:
        raise SignInRefused("this browser has begun no sign-in, or ended it already; begin again")
    attempt = msgspec.msgpack.decode(sealed, type=Attempt)
    if datetime.fromtimestamp(attempt.expires_at, UTC) <= call.services.clock.now():
        raise SignInRefused(
            f"this sign-in took longer than {_ATTEMPT // timedelta(minutes=1)} minutes; begin again"
        )
    given = call.request.query.get("state", "")
    if not hmac.compare_digest(given.encode(), _text(attempt.state).encode()):
        raise SignInRefused(
            "this answer belongs to another sign-in than the one begun last here; begin again"
        )
    return attempt


def _code(call: PageCall, sign_in: SignIn) -> str:
    """The code of the answer. Raises `SignInRefused` for a refusal, and for an answer of another provider (RFC 9207)."""
    query = call.request.query
    if query.get("iss", sign_in.issuer) != sign_in.issuer:
        raise SignInRefused("this answer is of another provider")
    if "error" in query:
        told = ": ".join(part[:200] for part in (query["error"], query.get("error_description", "")) if part)
        raise SignInRefused(f"the provider refused: {told}")
    code = query.get("code", "")
    if not code or len(code) > _MAX_CODE:
        raise SignInRefused("the provider's answer has no code; begin again")
    return code


async def _begin(call: PageCall, sign_in: SignIn, person: Person, target: str) -> web.Response:
    """A new session with a token of its own; whatever session this browser had is overwritten."""
    scopes = sign_in.scopes_of(person)
    if not scopes & WATCHERS:
        raise SignInRefused(
            f"{person.name} is known to the provider, but has no role that may use this dashboard; ask whoever gives"
            " roles for one that the setting oidc.roles names"
        )
    token = await call.services.tokens.begin_session(
        tenant=DEFAULT_TENANT,
        scopes=scopes,
        label=person.name,
        lifetime=LIFETIME,
        actor=f"{person.issuer} {person.subject}",
    )
    response = web.Response(status=303, headers={"Location": local(target)})
    set_cookie(response, call.sessions.begin(token.secret_hash, call.services.clock.now()))
    return response


def _failed(call: PageCall, error: SignInRefused | ProviderFault, target: str) -> web.Response:
    """The way in, with what went wrong. What is the provider's fault is logged: an operator has to mend it."""
    if isinstance(error, ProviderFault):
        _log.error("dashboard.sign-in-fault", problem=str(error), cause=str(error.__cause__ or ""))
        status, detail = 502, f"{error}. Try again, or sign in with a token"
    else:
        _log.info("dashboard.sign-in-refused", problem=error.detail)
        status, detail = 403, error.detail
    return call.render("login.html", status=status, target=target, problem=detail)


def local(target: str) -> str:
    """A page of ours; anything else would send people away with a link of ours."""
    if target == HOME or (
        target.startswith((HOME + "/", HOME + "?")) and target.isprintable() and "\\" not in target
    ):
        return target
    return HOME


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


PAGES: Final = (
    Page(method="GET", path=START, handler=start, scopes=None),
    Page(method="GET", path=RETURN, handler=back, scopes=None),
)
