"""Statements on the hot path, built once per dialect. Everything else is written where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    LABEL_STYLE_TABLENAME_PLUS_COL,
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import LateralFromClause

from verifier.ports import CLOCK_SKEW
from verifier.store import event_log, rows
from verifier.store.recording import Step
from verifier.store.schema import (
    attestation,
    attestation_key,
    attester,
    attester_uuid,
    blob,
    boot,
    endorsement_key,
    judgement,
    latest,
    nonce,
    policy,
    token,
)
from verifier.store.schema_events import event
from verifier.store.schema_ima import ima_piece
from verifier.store.schema_log import log_batch

Insert = sqlite.Insert | postgresql.Insert
InsertInto = Callable[[Table], Insert]

LATEST_CHANGES: Final = (
    "sequence", "tier", "judged_at", "valid_until", "policy_id", "policy_revision", "evidence_sha256", "clock",
    "reset_count", "restart_count", "safe", "boot_id", "judgement", "boot_reset_count", "boot_restart_count",
    "boot_log_sha256", "position", "rejudged_at",
)  # fmt: skip


_SAME_BOOT: Final = and_(
    boot.c.attester_id == latest.c.attester_id,
    boot.c.reset_count == latest.c.boot_reset_count,
    boot.c.restart_count == latest.c.boot_restart_count,
    boot.c.boot_log_sha256 == latest.c.boot_log_sha256,
)

_SAME_ATTESTER: Final = attester.c.id == latest.c.attester_id
_SAME_JUDGEMENT: Final = judgement.c.digest == latest.c.judgement
_SAME_EK: Final = and_(
    endorsement_key.c.tenant == attester.c.tenant, endorsement_key.c.fingerprint == attester.c.ek_fingerprint
)
_SAME_AK: Final = and_(
    attestation_key.c.attester_id == attester.c.id, attestation_key.c.name == attester.c.ak_name
)


def holds_at(at: int) -> ColumnElement[bool]:
    """Whether an attester's latest verdict says anything of the present: `ports.holds_at`, in microseconds."""
    return and_(latest.c.valid_until >= at, latest.c.judged_at <= latest_judged(at))


def latest_judged(at: int) -> int:
    """When a verdict that holds at `at` was judged at the latest, in microseconds."""
    return at + CLOCK_SKEW // timedelta(microseconds=1)


def attester_states(source: FromClause = latest) -> Select[*tuple[Any, ...]]:
    """Attester, keys, latest verdict with its judgement, and last boot; see `STATE_SLICES`. `source` has `latest` in it."""
    return _states(source.join(attester, _SAME_ATTESTER))


def attester_page(ids: Select[str], most: int, *, in_steps: bool = False) -> Select[*tuple[Any, ...]]:
    """`attester_states` of the first `most` of these ids, in order; then how many ids those are.

    Without lists: `BootRecord.ima` is None. It may be some 50 KB, which listings have no use for.

    The ids are taken first: PostgreSQL expects next to nothing of all these joins, and would make them for the whole
    fleet before it takes the first rows. It plans every page anew and weighs all orders of its joins, which took longer than to
    read the rows: `in_steps` leaves it no choice but to look up the rest for each row of an attester.
    """
    (key,) = ids.selected_columns
    page = ids.order_by(key).limit(most).cte("page")
    many = select(func.count()).select_from(page).scalar_subquery()
    shown = page.join(latest, latest.c.attester_id == page.c[0]).join(attester, _SAME_ATTESTER)
    states = _STEPS.states(shown) if in_steps else _states(shown, with_lists=False)
    return states.add_columns(many).order_by(latest.c.attester_id)


def _shown(*, with_lists: bool) -> tuple[ColumnElement[Any], ...]:
    boot_columns = [
        column if with_lists or column is not boot.c.ima else null().label("ima")
        for column in rows.BOOT_COLUMNS
    ]
    others = (*_body(judgement), latest.c.position, latest.c.lineage)
    return (*rows.ATTESTER_COLUMNS, *rows.LATEST_COLUMNS, *boot_columns, *others)


def _states(near: FromClause, *, with_lists: bool = True) -> Select[*tuple[Any, ...]]:
    return select(*_shown(with_lists=with_lists)).select_from(
        near.join(endorsement_key, _SAME_EK)
        .join(attestation_key, _SAME_AK)
        .outerjoin(boot, _SAME_BOOT)
        .outerjoin(judgement, _SAME_JUDGEMENT)
    )


class _Steps:
    """What is joined to `latest` and `attester`, looked up for each of their rows. Made once: that costs more than to read a page."""

    def __init__(self) -> None:
        keys = select(endorsement_key, attestation_key).join_from(endorsement_key, attestation_key, _SAME_AK)
        self._keys = _looked_up(keys.where(_SAME_EK), "keys")
        self._boot = _looked_up(select(boot).where(_SAME_BOOT), "last")
        self._judgement = _looked_up(select(judgement).where(_SAME_JUDGEMENT), "judged")
        self._columns = tuple(map(self._of, _shown(with_lists=False)))

    def states(self, near: FromClause) -> Select[*tuple[Any, ...]]:
        """The columns of `_states`."""
        return select(*self._columns).select_from(
            near.join(self._keys, true()).outerjoin(self._boot, true()).outerjoin(self._judgement, true())
        )

    def _of(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        tables = (self._keys, self._boot, self._judgement)
        found = (table.corresponding_column(column) for table in tables if isinstance(column, Column))
        return next((one for one in found if one is not None), column)


def _looked_up(query: Select[*tuple[Any, ...]], name: str) -> LateralFromClause:
    # OFFSET is what PostgreSQL does not look through.
    apart = query.correlate(latest, attester).offset(literal_column("0"))
    return apart.set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL).lateral(name)


def _body(table: Table) -> tuple[Any, ...]:
    return table.c.digest, table.c.codec, table.c.size, table.c.content


_STEPS: Final = _Steps()

STANDING: Final = (
    latest.c.lifecycle,
    attester.c.policy_id,
    attester.c.labels,
    attester.c.ak_name,
    # Changes whenever the EK is shown anew, with which all that is known of it may change.
    attestation_key.c.activated_at,
)
"""What evidence is judged by and may change although no evidence came: `AttesterState.standing`."""
_attester_end: Final = len(rows.ATTESTER_COLUMNS)
_verdict_end: Final = _attester_end + len(rows.LATEST_COLUMNS)
_boot_end: Final = _verdict_end + len(rows.BOOT_COLUMNS)
STATE_ATTESTER: Final = slice(0, _attester_end)
STATE_VERDICT: Final = slice(_attester_end, _verdict_end)
STATE_BOOT: Final = slice(_verdict_end, _boot_end)
STATE_JUDGEMENT: Final = slice(_boot_end, _boot_end + 4)
_columns: Final = (*rows.ATTESTER_COLUMNS, *rows.LATEST_COLUMNS)
STATE_STANDING: Final = itemgetter(*map(_columns.index, STANDING))
STATE_POSITION: Final = _boot_end + 4
STATE_LINEAGE: Final = _boot_end + 5
STATE_PAGE: Final = _boot_end + 6


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """At most one row by one unique key: what the hot path reads. Several may be answered by one query.

    Attributes:
        query: every row; its column `position` holds the key.
    """

    query: Select[*tuple[Any, ...]]
    key: Column[Any]
    position: int = 0

    @property
    def one(self) -> Select[*tuple[Any, ...]]:
        """The row of the key given as parameter `key`."""
        return self.query.where(self.key == bindparam("key"))


ATTESTER_STATE: Final = Lookup(attester_states(), latest.c.attester_id)
TOKEN_BY_HASH: Final = Lookup(
    select(*rows.TOKEN_COLUMNS),
    token.c.secret_hash,
    [column.name for column in rows.TOKEN_COLUMNS].index("secret_hash"),
)
HAS_BLOB: Final = Lookup(select(blob.c.digest), blob.c.digest)
BLOB: Final = Lookup(select(*_body(blob)), blob.c.digest)
BASIS: Final = (latest.c.position, latest.c.evidence_sha256, latest.c.rejudged_at, *STANDING)
"""As `recording.Known.basis` has it."""
KNOWN: Final = (
    latest.c.attester_id,
    latest.c.tenant,
    latest.c.sequence,
    attester.c.identity,
    attester.c.smbios_uuids,
    latest.c.tier,
    latest.c.incident,
    attester.c.labels,
    *BASIS,
)
WITH_BASIS: Final = (
    latest.join(attester, _SAME_ATTESTER)
    # Outer: where PostgreSQL looks at a locked row again, it does not look for another key of it.
    .outerjoin(attestation_key, _SAME_AK)
)
KNOWN_ATTESTER: Final = Lookup(select(*KNOWN).select_from(WITH_BASIS), latest.c.attester_id)
"""What `recording.Known` needs."""
JUDGED_ATTESTER: Final = Lookup(
    select(latest.c.attester_id, latest.c.tenant, latest.c.sequence, *BASIS).select_from(WITH_BASIS),
    latest.c.attester_id,
)
"""What a recording says of it that `follows`."""
LOOKUPS: Final = (ATTESTER_STATE, TOKEN_BY_HASH, HAS_BLOB, BLOB)

_of_id: Final = (policy.c.tenant == bindparam("tenant"), policy.c.id == bindparam("policy_id"))
CURRENT_POLICY: Final = select(*rows.POLICY_COLUMNS).where(
    *_of_id, policy.c.position == select(func.max(policy.c.position)).where(*_of_id).scalar_subquery()
)
_history_start: Final = len(rows.HISTORY_COLUMNS)
HISTORY_VERDICT: Final = slice(0, _history_start)
HISTORY_JUDGEMENT: Final = slice(_history_start, _history_start + 4)


def history() -> Select[*tuple[Any, ...]]:
    """Verdicts with their judgements, newest first; see `HISTORY_VERDICT`, `HISTORY_JUDGEMENT`."""
    return (
        select(*rows.HISTORY_COLUMNS, *_body(judgement))
        .select_from(attestation.outerjoin(judgement, judgement.c.digest == attestation.c.judgement))
        .order_by(attestation.c.sequence.desc())
    )


NONCE_HASH: Final = nonce.c.hash


def _touch(table: Table) -> Update:
    return (
        update(table)
        .where(table.c.digest == bindparam("b_digest"), table.c.last_used_at < bindparam("b_day"))
        .values(last_used_at=bindparam("b_day"))
    )


LATEST_KEY: Final = ("attester_id", "tenant", "lifecycle")
"""What `latest` must not be without; never changed by an attestation."""
_LINE: Final = ("lineage", "incident")
LEAVE_BOOT: Final = (
    update(boot)
    .where(_SAME_BOOT, latest.c.attester_id == bindparam("b_attester_id"))
    .values(clock=latest.c.clock, safe=latest.c.safe, seen_at=latest.c.judged_at)
)
"""While a boot goes on, only `latest` follows its clock: what it showed last is put down when another may begin."""
CHANGE_IDENTITY: Final = (
    update(attester)
    .where(attester.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}") for name in ("identity", "smbios_uuids", "search_text")})
)


def insert_all(into: InsertInto, table: Table) -> Insert:
    """Insert a whole row, every column by its own name."""
    return into(table).values({column.name: bindparam(column.name) for column in table.c})


class HotStatements:
    """The inserts of the hot path, which only the dialects know how to make idempotent."""

    def __init__(self, into: InsertInto) -> None:
        self.spend_nonce = insert_all(into, nonce).on_conflict_do_nothing(index_elements=["hash"])
        self.batch: Mapping[Step, Insert | Update] = {
            Step.TOUCHED_BLOBS: _touch(blob),
            Step.BLOBS: self._keep_blob(into),
            Step.JUDGEMENTS: insert_all(into, judgement).on_conflict_do_nothing(index_elements=["digest"]),
            Step.TOUCHED_JUDGEMENTS: _touch(judgement),
            Step.LOG_BATCHES: insert_all(into, log_batch),
            Step.ATTESTATIONS: insert_all(into, attestation),
            Step.LEFT_BOOTS: LEAVE_BOOT,
            Step.BOOTS: self._see_boot(into),
            Step.IMA_PIECES: self._keep_piece(into),
            Step.LATEST: self._advance_latest(into),
            Step.IDENTITIES: CHANGE_IDENTITY,
            Step.UUIDS: insert_all(into, attester_uuid).on_conflict_do_nothing(
                index_elements=["attester_id", "smbios_uuid"]
            ),
            Step.EVENTS: into(event).values({name: bindparam(name) for name in event_log.INSERTED}),
        }

    @staticmethod
    def _keep_blob(into: InsertInto) -> Insert:
        kept = insert_all(into, blob)
        return kept.on_conflict_do_update(
            index_elements=["digest"],
            set_={"last_used_at": kept.excluded.last_used_at},
            where=blob.c.last_used_at < kept.excluded.last_used_at,
        )

    @staticmethod
    def _advance_latest(into: InsertInto) -> Insert:
        """Always a conflict: who is known has a row, and it is locked. An insert, since only those take many rows."""
        new = into(latest).values({name: bindparam(name) for name in (*LATEST_KEY, *LATEST_CHANGES, *_LINE)})
        return new.on_conflict_do_update(
            index_elements=["attester_id"],
            set_={
                **{name: new.excluded[name] for name in LATEST_CHANGES},
                "lineage": func.coalesce(new.excluded.lineage, latest.c.lineage),
                "incident": case(
                    (new.excluded.lineage.is_(None), latest.c.incident), else_=new.excluded.incident
                ),
            },
        )

    @staticmethod
    def _see_boot(into: InsertInto) -> Insert:
        seen = insert_all(into, boot)
        return seen.on_conflict_do_update(
            index_elements=list(boot.primary_key),
            set_={
                "clock": seen.excluded.clock,
                "safe": seen.excluded.safe,
                "firmware_version": seen.excluded.firmware_version,
                "boot_id": func.coalesce(seen.excluded.boot_id, boot.c.boot_id),
                "seen_at": seen.excluded.seen_at,
                "userspace_log_sha256": seen.excluded.userspace_log_sha256,
                "ima": func.coalesce(seen.excluded.ima, boot.c.ima),
            },
        )

    @staticmethod
    def _keep_piece(into: InsertInto) -> Insert:
        kept = insert_all(into, ima_piece)
        return kept.on_conflict_do_update(
            index_elements=list(ima_piece.primary_key),
            set_={"size": kept.excluded.size, "sha256": kept.excluded.sha256},
        )
