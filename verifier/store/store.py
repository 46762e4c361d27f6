"""The `Store` port on SQL. What differs between the databases is behind `backend.Backend`."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import update

from verifier.errors import StoreUnavailable
from verifier.ports_announcements import Announcements
from verifier.ports_observe import QueueState
from verifier.store.anchors import Anchors
from verifier.store.assignments import Assignments
from verifier.store.audit_log import AuditLog
from verifier.store.enrollments import Enrollments
from verifier.store.evidence import Evidences
from verifier.store.fleet import Fleet
from verifier.store.history import Histories
from verifier.store.ima import ImaPieces
from verifier.store.inventories import Inventories
from verifier.store.log import LogTree
from verifier.store.machines import Machines
from verifier.store.outbox import OutboxStore
from verifier.store.policies import Policies
from verifier.store.queries import Queries
from verifier.store.rejudging import Rejudgings
from verifier.store.rejudgings import BackgroundRejudgings
from verifier.store.samples import Samples
from verifier.store.schema import probe
from verifier.store.secrets import Secrets
from verifier.store.tokens import Tokens
from verifier.store.webhooks import Webhooks


class SqlStore(
    Tokens,
    Enrollments,
    Fleet,
    Evidences,
    Histories,
    ImaPieces,
    Machines,
    Queries,
    Policies,
    Assignments,
    Anchors,
    AuditLog,
    LogTree,
    Samples,
    Inventories,
    Webhooks,
    Secrets,
    Rejudgings,
    BackgroundRejudgings,
    OutboxStore,
):
    """`verifier.ports.Store` and `verifier.ports_events.Outbox`, durable, shared by any number of processes."""

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Who waits for the database, by queue."""
        return self._backend.queues

    @property
    def announcements(self) -> Announcements:
        """Changes as they become durable, here and, after `follow`, elsewhere."""
        return self._backend.announcements

    def follow(self) -> None:
        """Hear of other replicas' changes from now on, until the store is closed."""
        self._backend.announcements.start()

    async def close(self) -> None:
        """Finish what was asked for and close; whatever comes later is `StoreUnavailable`."""
        await self._backend.close()

    async def ping(self) -> None:
        """Write, durably, and read back: anything less would not know of a full disk."""
        if await self._change(update(probe).values(writes=probe.c.writes + 1)) != 1:
            raise StoreUnavailable("the database lacks its probe row: was it migrated?")
