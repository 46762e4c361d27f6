"""`attestctl guard`: only attested callers, decided beside a proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cyclopts import Parameter

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import Remote, RemoteError


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Callers:
    """How callers are known.

    Attributes:
        audience: accept EARs in the header Attestation-Result that were made for this audience.
        bearer: accept them in Authorization: Bearer too.
        certificates: accept client certificates that the proxy verified and forwards.
        proxy: addresses whose forwarded certificates count: networks, or unix.
    """

    audience: str | None = None
    bearer: bool = False
    certificates: bool = False
    proxy: tuple[str, ...] = ("127.0.0.1", "::1", "unix")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Demands:
    """What their verdict must be.

    Attributes:
        min_tier: affirming or warning.
        policy: only verdicts of this policy (any number of times).
        max_age: only evidence that was judged no longer ago, such as 10m.
    """

    min_tier: Literal["affirming", "warning"] = "affirming"
    policy: tuple[str, ...] = ()
    max_age: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Asking:
    """How the verifier is asked.

    Attributes:
        issuer: the verifier's public_url; its address by default.
        live: ask the verifier too about callers that bring an EAR, so that revocations count within --fresh-for.
        fresh_for: how long an answer of the verifier is used.
        outlive: how much longer, while it cannot be reached.
    """

    issuer: str | None = None
    live: bool = True
    fresh_for: str = "15s"
    outlive: str = "5m"


def guard(
    *,
    listen: str = "127.0.0.1:9180",
    callers: Callers | None = None,
    demands: Demands | None = None,
    asking: Asking | None = None,
    where: Where | None = None,
) -> int:
    """Answer a proxy's question whether a caller is attested: nginx auth_request, Envoy ext_authz (docs/relying-parties.md).

    Examples:
        attestctl guard --audience https://shop.example --ca ca.pem

        attestctl guard --listen unix:/run/guard.sock --certificates --min-tier warning --policy uki-guest --max-age 10m

    Args:
        listen: HOST:PORT, or unix:PATH. Callers' EARs travel here unencrypted: keep it on this machine.
    """
    # Here alone an HTTP library is needed; other commands shall not wait for it.
    from verifier.cli.guard_service import run  # noqa: PLC0415

    at = where or Where()
    try:
        remote = Remote.from_options(at.server, at.token, at.ca)
        return run(listen, remote, callers or Callers(), demands or Demands(), asking or Asking())
    except RemoteError as error:
        output.fail(error)
    except (ValueError, OSError) as error:
        output.err.print(f"error: {error}", markup=False)
        return output.EXIT_USAGE
