"""What the service needs of the world. Adapters implement these; tests have their own.

Records are frozen and hold plain values. Times are timezone-aware UTC. Every call is scoped to a tenant:
a record of another tenant does not exist.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct, field, structs

from verifier.appraisal.lineage import Lineage
from verifier.policy.assignment import Assignment
from verifier.ports_enrollment import AuditEntry, EnrollmentStore
from verifier.ports_events import WebhookStore
from verifier.ports_history import HistoryStore
from verifier.ports_ima import ImaPiece, ImaStore
from verifier.ports_inventory import InventoryStore
from verifier.ports_log import LogRecords
from verifier.ports_observe import OpenCounts, QueueState
from verifier.ports_queries import QueryStore
from verifier.ports_rejudge import RejudgeStore
from verifier.ports_secrets import SecretStore
from verifier.ports_trust import AnchorStore, ExpiryAlarms
from verifier.reasons import Tier
from verifier.tcg.attest import ClockInfo

DEFAULT_TENANT = "default"
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A tenant is made by its first token."""

A = TypeVar("A")
T = TypeVar("T")


class Lifecycle(enum.StrEnum):
    """Where an attester stands, beside its verdict. `stale` is derived from `valid_until`, never stored."""

    PENDING = "pending"
    ENROLLED = "enrolled"
    STALE = "stale"
    REVOKED = "revoked"
    RETIRED = "retired"
    """Another TPM stands in its place; see `AttesterRecord.replaced_by`."""


class Scope(enum.StrEnum):
    """What a token may do."""

    JOIN = "join"
    RELYING_PARTY = "relying-party"
    DASHBOARD = "dashboard"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


SESSION_ID: Final = "ses"
"""Prefix of the ids of tokens that are of people's sessions, by which they are dropped once they are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A credential, by SHA-256 of its secret; the secret itself is never stored."""

    id: str
    tenant: str
    secret_hash: bytes
    scopes: frozenset[Scope]
    label: str
    created_at: datetime
    expires_at: datetime | None
    uses_left: int | None = None
    """Join tokens only; None is unlimited."""
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class GuestIdentity(Struct, frozen=True, kw_only=True):
    """What a guest says of itself; unproven."""

    smbios_uuid: str | None = None
    hostname: str | None = None
    os: str | None = None
    os_release: str | None = None
    machine_id: str | None = None
    agent_version: str | None = None


class AttesterRecord(Struct, frozen=True, kw_only=True):
    """An enrolled machine and the AK that speaks for it."""

    id: str
    tenant: str
    ek_fingerprint: bytes
    ek_public: bytes
    ek_certificate: bytes | None
    ek_issuer: str | None
    ek_profile: Mapping[str, object]
    endorsed_by: str
    ak_name: bytes
    ak_public: bytes
    identity: GuestIdentity
    smbios_uuids: frozenset[str]
    """Every SMBIOS UUID ever claimed under this EK."""
    labels: Mapping[str, str] = field(default_factory=dict)
    policy_id: str | None = None
    """None: the tenant's default policy."""
    lifecycle: Lifecycle = Lifecycle.ENROLLED
    enrolled_at: datetime
    revoked_at: datetime | None = None
    ak_activated_at: datetime | None = None
    """When this AK was bound; verdicts before are about another key, or about this one before it was bound anew."""
    replaced_by: str | None = None
    """The attester of the TPM that this machine has now; only of a retired one."""


class BootRecord(Struct, frozen=True, kw_only=True):
    """The boot an attester was last proven to be in, and what the verifier holds of it."""

    clock: ClockInfo
    firmware_version: int
    boot_log_sha256: bytes | None
    boot_id: str | None
    seen_at: datetime
    userspace_log_sha256: bytes | None = None
    """Of what systemd measured from userspace, as it was sent last."""
    ima: str | None = None
    """What is held of its IMA list: `verifier.service.ima_record`. Recorded as None, it leaves what is stored."""

    def goes_on_as(self, later: BootRecord) -> bool:
        """Whether recording `later` would change nothing but the clock and when it was seen."""
        return (
            later.boot_id in {None, self.boot_id}
            and later.ima in {None, self.ima}
            and later.firmware_version == self.firmware_version
            and later.boot_log_sha256 == self.boot_log_sha256
            and later.userspace_log_sha256 == self.userspace_log_sha256
            and later.clock.reset_count == self.clock.reset_count
            and later.clock.restart_count == self.clock.restart_count
        )


CLOCK_SKEW: Final = timedelta(minutes=5)
"""What the clocks of replicas may differ by."""


def holds_at(judged_at: datetime, valid_until: datetime, now: datetime) -> bool:
    """Not after its end; nor where it was judged in what is the future still, by a clock that was ahead: its end is too late."""
    return judged_at - CLOCK_SKEW <= now <= valid_until


class VerdictRecord(Struct, frozen=True, kw_only=True):
    """One appended verdict. `findings` and `vector` are wire-ready JSON-like values."""

    attester_id: str
    tenant: str
    sequence: int
    tier: Tier
    vector: Mapping[str, int]
    findings: Sequence[Mapping[str, object]]
    policy_id: str | None
    policy_revision: str | None
    evidence_sha256: bytes
    clock: ClockInfo
    boot_id: str | None
    judged_at: datetime
    valid_until: datetime
    endorsement: Mapping[str, object] | None = None
    """What was known of the EK then, and judged beside the evidence; None where an older version did not keep it."""
    rejudged_at: datetime | None = None
    """When it was judged again from stored evidence, which came at `judged_at`; None: it was not."""

    def numbered(self, sequence: int) -> VerdictRecord:
        """The verdict as it was stored."""
        return structs.replace(self, sequence=sequence)

    def holds_at(self, now: datetime) -> bool:
        """Whether it says anything of the present."""
        return holds_at(self.judged_at, self.valid_until, now)


class AttesterState(Struct, frozen=True, kw_only=True):
    """Everything one attestation needs, read in one go."""

    attester: AttesterRecord
    boot: BootRecord | None
    latest: VerdictRecord | None
    lineage: Lineage | None = None
    """The line of TPM states known so far; None where none was recorded yet."""
    position: int = 0
    """Counts every change of `lineage`: what was judged by one position must not be stored at another."""
    standing: tuple[object, ...] = ()
    """What else it rests on and may change without the position, as it is stored; for the store alone to compare."""

    def after(self, recording: Recording, stored: VerdictRecord) -> AttesterState | None:
        """What is known once `recording`, which was judged by this, is stored; None where only reading it tells."""
        boot = self.boot
        if not recording.boot_goes_on or boot is None or recording.identity is not self.attester.identity:
            return None
        return structs.replace(
            self,
            boot=structs.replace(boot, clock=stored.clock, seen_at=stored.judged_at),
            latest=stored,
            lineage=self.lineage if recording.lineage is None else recording.lineage,
            position=self.position + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedState:
    """An attester whose record cannot be read, in a listing that goes on all the same."""

    attester_id: str
    detail: str


class Recording(Struct, frozen=True, kw_only=True):
    """One attestation to be stored in one transaction with the spending of its nonce.

    `verdict.sequence` is assigned by the store; the value given is ignored.
    """

    nonce_hash: bytes
    """What the nonce is known by when it is spent. The store writes those that are alike at the front to one place."""
    nonce_expires_at: datetime
    verdict: VerdictRecord
    boot: BootRecord
    identity: GuestIdentity
    blobs: Mapping[bytes, bytes]
    """New blobs by SHA-256: boot log, quote bundle. Those already held are ignored."""
    evidence: Mapping[str, str]
    """Role to hex SHA-256 of the blobs this verdict was judged from."""
    lineage: Lineage | None = None
    """The line of TPM states with this evidence; None leaves the stored one as it is."""
    position: int | None = None
    """The attester's position this was judged at; None stores it at any."""
    judged_by: AttesterState | None = None
    """What was known of the attester when this was judged; where anything of it has changed, nothing is stored."""
    ima_piece: ImaPiece | None = None
    """What the quote newly proved of the boot's IMA list; it replaces a piece with the same start."""
    boot_goes_on: bool = False
    """`boot` is what the attester had at `position`, but for its clock and when it was seen, which the verdict says too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSample:
    """What the fleet looked like: attesters by tier or lifecycle, as `status_counts` has them."""

    at: datetime
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFilter:
    """Which attesters to list."""

    tier: Tier | None = None
    lifecycle: Lifecycle | None = None
    label: tuple[str, str] | None = None
    search: str | None = None
    """Substring of hostname, SMBIOS UUID or id."""
    incident: bool = False
    """Only those with a clone or rollback that nobody has resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a listing; `cursor` None at the end."""

    items: tuple[T, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """An immutable policy revision; `source` is the YAML as given."""

    id: str
    tenant: str
    revision: str
    source: str
    created_at: datetime


class Store(
    AnchorStore,
    EnrollmentStore,
    HistoryStore,
    ImaStore,
    InventoryStore,
    LogRecords,
    QueryStore,
    RejudgeStore,
    SecretStore,
    WebhookStore,
    Protocol,
):
    """Durable state. Every method is atomic; `StoreUnavailable` means nothing happened.

    `StoredDataDamaged` names what no longer matches its digest.
    """

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when reads or writes would fail."""

    # tokens
    async def add_token(self, token: TokenRecord, audit: AuditEntry | None = None) -> None: ...
    async def token_by_hash(self, secret_hash: bytes) -> TokenRecord | None: ...
    async def list_tokens(self, tenant: str) -> tuple[TokenRecord, ...]: ...
    async def purge_sessions(self, before: datetime) -> int:
        """Drop the tokens of sessions that ended before this."""

    async def revoke_token(
        self, tenant: str, token_id: str, now: datetime, audit: AuditEntry | None = None
    ) -> bool:
        """True when the token exists; `audit` is stored with the first revocation alone."""

    # enrolment, beside `EnrollmentStore`
    async def purge_expired(self, now: datetime) -> int:
        """Drop expired enrolments and spent nonces past their expiry. Returns how many rows went."""

    # attestation
    async def attester_state(self, attester_id: str) -> AttesterState | None: ...
    async def record(self, recording: Recording) -> VerdictRecord | None:
        """Spend the nonce and append the verdict, boot and blobs; None when the nonce was spent before.

        Raises `StateMovedError` when the attester is no longer at `recording.position`, or what it was judged by has
        changed otherwise; nothing is stored then, and the nonce stays unspent.
        """

    async def nonces_dropped_until(self) -> datetime:
        """Of nonces that expire before this moment it is not known any more whether they were spent."""

    async def nonce_spent(self, nonce_hash: bytes) -> bool:
        """Whether a nonce was spent; `record` alone decides it for good."""

    async def resolve_lineage(
        self, tenant: str, attester_id: str, position: int, lineage: Lineage, audit: AuditEntry
    ) -> bool:
        """Replace what is known of an attester's past, and say so in the audit log.

        False when it is no longer at `position`, or does not exist; nothing is changed then.
        """

    async def attester_past(self, attester_id: str) -> AttesterState | None:
        """As `attester_state`, but `latest` has neither findings nor vector: for evidence that is to be judged, never to be shown.

        It can be read although what the latest verdict says is damaged. Recording a verdict that says the same mends that.
        """

    async def mend_blob(self, digest: bytes, content: bytes) -> None:
        """Put content in the place of what is damaged; `ValueError` where it has not this digest."""

    async def has_blob(self, digest: bytes) -> bool: ...
    async def blob(self, digest: bytes) -> bytes | None:
        """The blob, verified against its digest on read; `StoredDataDamaged` when it differs."""

    # fleet
    async def list_attesters(
        self, tenant: str, where: FleetFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[AttesterState]: ...
    async def survey(
        self, tenant: str, where: FleetFilter, *, now: datetime, cursor: str | None, limit: int
    ) -> Page[AttesterState | DamagedState]:
        """`list_attesters`, in which a damaged record takes its place in the listing instead of ending it."""

    async def status_counts(self, tenant: str, now: datetime) -> Mapping[str, int]:
        """Counts by tier label of current verdicts, plus `stale`, `revoked`, `enrolled` (never attested)."""

    async def open_counts(self, tenant: str, now: datetime) -> OpenCounts: ...
    async def tenants(self) -> tuple[str, ...]:
        """The default one and every other that has attesters, machines that wait, policies or trust anchors, in order."""

    async def add_fleet_sample(self, tenant: str, at: datetime, counts: Mapping[str, int]) -> None:
        """Keep it; of several for one tenant and time the first counts."""

    async def fleet_samples(self, tenant: str, since: datetime) -> tuple[FleetSample, ...]:
        """Oldest first."""

    async def purge_fleet_samples(self, before: datetime) -> int:
        """Drop older ones. Returns how many."""

    async def history(
        self, tenant: str, attester_id: str, *, before: int | None, limit: int
    ) -> tuple[VerdictRecord, ...]:
        """Newest first; `before` is an exclusive sequence."""

    async def evidence_of(self, tenant: str, attester_id: str, sequence: int) -> Mapping[str, str] | None: ...
    async def purge_evidence(self, before: datetime) -> int:
        """Drop the blobs no verdict named since the day of `before`, but for those of latest verdicts; how many went."""

    async def revoke_attester(
        self, tenant: str, attester_id: str, now: datetime, audit: AuditEntry | None = None
    ) -> bool:
        """True when the attester exists; `audit` is stored with the first revocation alone."""

    async def assign_policy(
        self, tenant: str, attester_id: str, policy_id: str | None, audit: AuditEntry | None = None
    ) -> bool: ...
    async def set_labels(
        self, tenant: str, attester_id: str, labels: Mapping[str, str], audit: AuditEntry
    ) -> bool:
        """Replace the labels. Raises `EvidenceError` for too many of them, or one that is empty or too long."""

    # policies
    async def add_policy(
        self, policy: PolicyRecord, audit: AuditEntry | None = None, *, current: bool = True
    ) -> None:
        """Idempotent by (tenant, id, revision); `audit` is stored if it changed anything, with which one is current.

        `current` False keeps the revision beside the one that is; the first revision of an id is current anyway.
        """

    async def current_policy(self, tenant: str, policy_id: str) -> PolicyRecord | None:
        """The revision most recently added."""

    async def list_policies(self, tenant: str) -> tuple[PolicyRecord, ...]: ...
    async def policy_revision(self, tenant: str, policy_id: str, revision: str) -> PolicyRecord | None: ...
    async def policy_revisions(self, tenant: str, policy_id: str) -> tuple[PolicyRecord, ...]:
        """Every revision of an id; the current one first."""

    async def list_assignments(self, tenant: str) -> tuple[Assignment, ...]: ...
    async def put_assignment(
        self, tenant: str, record: Assignment, audit: AuditEntry, *, replacing: Sequence[str] = ()
    ) -> None:
        """Add it, or change the one with its id, and remove those of `replacing`, in one transaction.

        Raises `EvidenceError` when a tenant would have too many.
        """

    async def remove_assignment(self, tenant: str, assignment_id: str, audit: AuditEntry) -> bool: ...


class Clock(Protocol):
    """Wall-clock time, UTC."""

    def now(self) -> datetime: ...


class Random(Protocol):
    """Cryptographically strong randomness."""

    def bytes(self, count: int) -> bytes: ...


class Workers(Protocol):
    """Other processes, for work that would hold up the event loop."""

    async def run(self, work: Callable[[A], T], given: A) -> T:
        """`work(given)`, elsewhere. `work` is a function of a module; what goes in and comes out can be pickled.

        Raises:
            VerifierFault: no process could do it, or `work` raised something.
        """

    @property
    def queue(self) -> QueueState: ...
    async def close(self) -> None: ...


class TokenSigner(Protocol):
    """Signs EARs and publishes the keys to verify them with."""

    async def sign_jwt(self, claims: Mapping[str, object]) -> str:
        """Compact JWS (RFC 7515), ES256, with `kid`."""

    async def sign_cwt(self, claims: Mapping[object, object]) -> bytes:
        """Tagged COSE_Sign1 (RFC 9052), ES256, with `kid`."""

    def jwks(self) -> Mapping[str, object]: ...


class EventSink(ExpiryAlarms, Protocol):
    """Told of every recorded verdict and other change of an attester, once durable, and of what is about to end."""

    async def verdict(self, record: VerdictRecord, previous: VerdictRecord | None) -> None: ...

    def changed(self, tenant: str, attester_id: str) -> None: ...
    def subscribe(self) -> AsyncIterator[VerdictRecord]: ...
