"""Policies and tokens held against the entries of the audit log, which are leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from verifier.auditing.findings import Findings, Tampering
from verifier.auditing.leaves import stored, streamed
from verifier.store import values
from verifier.store.schema import policy, token

REJUDGED: Final = "policy.rejudged"
_TOKEN: Final = ("id", "tenant", "secret_hash", "scopes", "created_at", "expires_at", "revoked_at")
_POLICY: Final = ("tenant", "id", "revision", "position", "source", "created_at")


@dataclass(frozen=True, slots=True)
class _Said:
    """What an entry says, and where its leaf is."""

    detail: Mapping[str, Any]
    index: int | None
    sequence: int
    at: int


@dataclass(slots=True)
class Decisions:
    """The entries that other rows follow from, gathered while the audit log is read."""

    policies: dict[tuple[str, str, str], _Said] = field(default_factory=dict)
    current: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], _Said] = field(default_factory=dict)
    revoked: dict[tuple[str, str], _Said] = field(default_factory=dict)
    rejudging: set[int] = field(default_factory=set)
    """Batches that have verdicts beside their entry."""

    def see(self, row: Mapping[str, Any], index: int | None) -> None:
        """Take in a row of the audit log. One that cannot be read has been found by its hash."""
        action, tenant, subject, sequence = row["action"], row["tenant"], row["subject"], row["sequence"]
        if action == REJUDGED:
            self.rejudging.add(row["log_batch"])
            return
        if action not in {"policy.added", "token.created", "token.revoked"}:
            return
        try:
            detail = json.loads(row["detail"])
        except (TypeError, ValueError):
            return
        if not isinstance(detail, dict):
            return
        said = _Said(detail, index, sequence, row["at"])
        if action == "policy.added":
            _newest(self.policies, (tenant, subject, str(detail.get("revision"))), said)
            if detail.get("current"):
                known = self.current.get((tenant, subject), (-1, ""))
                self.current[tenant, subject] = max(known, (sequence, str(detail.get("revision"))))
        else:
            _newest(self.tokens if action == "token.created" else self.revoked, (tenant, subject), said)


def _newest(known: dict[Any, _Said], key: object, said: _Said) -> None:
    before = known.get(key)
    if before is None or before.sequence < said.sequence:
        known[key] = said


def check_policies(
    connection: Connection, decisions: Decisions, findings: Findings, *, logged_since: int | None
) -> int:
    """Each revision has its entry and the source that it names; the current one is the one last made so.

    Returns:
        How many are from before the log, so that nothing is proven of them.
    """
    unproven = 0
    highest: dict[tuple[str, str], tuple[int, str]] = {}
    seen: set[tuple[str, str, str]] = set()
    query = select(*(stored(policy.c[name]) for name in _POLICY))
    for values_ in streamed(connection, query):
        row = dict(zip(_POLICY, values_, strict=True))
        key = row["tenant"], row["id"], row["revision"]
        seen.add(key)
        highest[key[:2]] = max(highest.get(key[:2], (-1, "")), (row["position"], key[2]))
        said = decisions.policies.get(key)
        if said is None and _is_before(row["created_at"], logged_since):
            unproven += 1
            continue
        problem = _policy_problem(row, said)
        if problem is not None:
            findings.add(_finding("policy", f"id {key[1]}, revision {key[2]}", problem, said, row))
    for key, said in decisions.policies.items():
        if key not in seen:
            name = f"id {key[1]}, revision {key[2]}"
            findings.add(_finding("policy", name, "is in the log and not in the database", said, None))
    for of, (_, revision) in highest.items():
        made = decisions.current.get(of)
        if made is not None and made[1] != revision and (*of, made[1]) in seen:
            problem = f"is the current revision, where {made[1]} was the last to be made so"
            said = decisions.policies.get((*of, made[1]))
            findings.add(_finding("policy", f"id {of[1]}, revision {revision}", problem, said, None))
    return unproven


def _policy_problem(row: Mapping[str, Any], said: _Said | None) -> str | None:
    if said is None:
        return "has no entry in the log: nobody is on record for it"
    source = row["source"]
    digest = (
        hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest() if isinstance(source, str) else ""
    )
    if digest != said.detail.get("source_sha256"):
        return f"its source is another than the one that was added (audit {said.sequence})"
    return None


def check_tokens(
    connection: Connection, decisions: Decisions, findings: Findings, *, logged_since: int | None
) -> int:
    """Each token has its entry, and may no more than that says; one that was revoked stays revoked.

    Returns:
        How many are from before the log, so that nothing is proven of them.
    """
    unproven = 0
    query = select(*(stored(token.c[name]) for name in _TOKEN))
    for values_ in streamed(connection, query):
        row = dict(zip(_TOKEN, values_, strict=True))
        key = row["tenant"], row["id"]
        said, revoked = decisions.tokens.get(key), decisions.revoked.get(key)
        if revoked is not None and row["revoked_at"] is None:
            problem = f"was revoked (audit {revoked.sequence}) and is not any more"
            findings.add(_finding("token", f"id {row['id']}", problem, revoked, row))
        if said is None and _is_before(row["created_at"], logged_since):
            unproven += 1
            continue
        for problem in _token_problems(row, said):
            findings.add(_finding("token", f"id {row['id']}", problem, said, row))
    return unproven


def _token_problems(row: Mapping[str, Any], said: _Said | None) -> Iterator[str]:
    if said is None:
        yield "has no entry in the log: nobody is on record for it"
        return
    secret, scopes = row["secret_hash"], row["scopes"]
    digest = hashlib.sha256(secret).hexdigest() if isinstance(secret, bytes) else ""
    if digest != said.detail.get("secret_hash_sha256"):
        yield f"has another secret than the one that was made (audit {said.sequence})"
    held = _read(lambda: sorted(scope.value for scope in values.read_scopes(scopes)))
    if held != said.detail.get("scopes"):
        yield f"has the scopes {scopes}, where {said.detail.get('scopes')} were given (audit {said.sequence})"
    expires = row["expires_at"]
    if expires != _read(lambda: _micros(said.detail.get("expires_at"))):
        yield f"expires at another time than was said (audit {said.sequence})"


def _read(reading: Callable[[], object]) -> object:
    """None of what cannot be read is equal to anything that can."""
    try:
        return reading()
    except Exception:  # noqa: BLE001 - whatever a doctored column is, it is not what was logged
        return NotImplemented


def _micros(text: str | None) -> int | None:
    return None if text is None else values.micros(datetime.fromisoformat(text))


def _is_before(at: object, logged_since: int | None) -> bool:
    return isinstance(at, int) and logged_since is not None and at < logged_since


def _finding(
    table: str, key: str, problem: str, said: _Said | None, row: Mapping[str, Any] | None
) -> Tampering:
    index = None if said is None else said.index
    at = said.at if said is not None else row["created_at"] if row is not None else None
    return Tampering(table, key, problem, index, at if isinstance(at, int) else None)
