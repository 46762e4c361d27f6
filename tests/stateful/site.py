"""The real service in this process, over HTTP, for callers that do not wait: each call runs it until the answer is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.harness import POLICY, Answer, FakeClock, Harness, Here, running, settings_for
from verifier.errors import StoreUnavailable
from verifier.ports import Scope

T = TypeVar("T")
TENANTS = ("default", "globex")
KEEP = "2d"


class Site:
    """One verifier and its database, which outlives its restarts."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        changes = {"HISTORY_KEEP": KEEP} | ({} if database is None else {"DATABASE": database})
        self.settings = settings_for(folder, **changes)
        self._running: AbstractAsyncContextManager[Harness]
        self.verifier: Harness
        self.start()
        self.admins = {tenant: self.token(Scope.ADMIN, tenant=tenant) for tenant in TENANTS}
        self.joins = {tenant: self.token(Scope.JOIN, tenant=tenant) for tenant in TENANTS}
        self.severity = dict.fromkeys(TENANTS, "contraindicated")
        for tenant in TENANTS[1:]:
            self.apply_policy(tenant, "contraindicated")

    def start(self) -> None:
        self._running = running(self.settings, self.clock, workers=Here())
        self.verifier = self.do(self._running.__aenter__())

    def stop(self) -> None:
        self.do(self._running.__aexit__(None, None, None))

    def close(self) -> None:
        self.stop()
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def token(self, scope: Scope, **options: Any) -> str:
        return self.do(self.verifier.token(scope, **options))

    def join_token(self, tenant: str, uses: int | None, lifetime: timedelta | None) -> tuple[str, str]:
        """Its id and its text."""
        record, text = self.do(
            self.verifier.service.services.tokens.create(
                scopes=frozenset({Scope.JOIN}),
                label="",
                actor="test",
                uses=uses,
                lifetime=lifetime,
                tenant=tenant,
            )
        )
        return record.id, text

    def call(self, method: str, path: str, *, tenant: str | None = None, **options: Any) -> Answer:
        """As the tenant's administrator, or as nobody."""
        token = options.pop("token", None) or (None if tenant is None else self.admins[tenant])
        return self.do(self.verifier.call(method, path, token=token, **options))

    def apply_policy(self, tenant: str, severity: str) -> None:
        """What Secure Boot that is off is worth, from the next attestation on."""
        document = yaml.safe_load(POLICY)
        document["rules"][0]["severity"] = severity
        document["description"] = f"Secure Boot has to be on, or it is {severity}"
        answer = self.call(
            "POST",
            "/v1/policies",
            tenant=tenant,
            data=yaml.safe_dump(document, sort_keys=False).encode(),
            headers={"Content-Type": "application/yaml"},
        )
        assert answer.status in {200, 201}, answer.content
        self.severity[tenant] = severity

    def out_of_order(self) -> Outage:
        """The store refuses every write of evidence meanwhile."""
        return Outage(self)


class Outage:
    """A store that refuses what is recorded of attestations."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> None:
        async def down(*_args: object, **_options: object) -> None:
            raise StoreUnavailable("the disk is full")

        self._site.verifier.service.store.record = down  # type: ignore[method-assign] - until the outage is over

    def __exit__(self, *_: object) -> None:
        del self._site.verifier.service.store.record
