"""Credentials of callers: an API token, a JWT of the issuer, a client certificate."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.corpora import choices
from tests.fuzz.targets import Bound
from tests.fuzz.targets.certificate import seeds as certificates
from tests.fuzz.targets.jwt import BEARER, Clock
from tests.fuzz.targets.jwt import seeds as tokens
from verifier.errors import RefusedError
from verifier.ports import Scope, TokenRecord
from verifier.ports_callers import Grant
from verifier.reasons import Reason
from verifier.service.callers import Callers
from verifier.service.tokens import api_secret_hash

RAISES = (RefusedError,)
RUNS = 400
MEMORY = Bound(100, 1 << 20)
CALLS = Bound(100, 50_000)
GRANT = Grant(scopes=frozenset({Scope.OPERATOR}), tenant="default")


class Tokens:
    """Of which none is known."""

    async def authenticate(self, text: str) -> TokenRecord:
        api_secret_hash(text)
        raise RefusedError(Reason.UNAUTHENTICATED, "not known")


def seeds() -> Iterator[bytes]:
    bearers = [*tokens(), b"vta1." + b"A" * 43, b"\xff.a.b", b".."]
    yield from choices({0: bearers, 1: list(certificates())})


def target(data: bytes) -> None:
    callers = Callers(
        Tokens(),  # type: ignore[arg-type] - no more is asked of it
        Clock(),
        bearer=(BEARER, {"admin": GRANT}),
        certificates={"dns:a.test": GRANT},
    )
    if data[:1] == b"\x01":
        callers.by_certificate(data[1:])
        return
    step = callers.by_credential(data[1:].decode("utf-8", "surrogateescape"))
    try:
        step.send(None)
    except StopIteration as done:
        assert done.value.id == "oidc:someone"
