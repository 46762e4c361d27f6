"""What the database holds after a fault, against what everybody was told."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import Any, NamedTuple

from tests.faults.crowd import Crowd
from tests.faults.site import Site
from verifier.reasons import Tier


class Stored(NamedTuple):
    """A row of the history."""

    attester_id: str
    sequence: int
    status: str
    evidence_sha256: str
    rejudged: bool


def stored(site: Site) -> list[Stored]:
    """The history of all attesters, oldest first, as another program reads it."""
    evidence = "hex(evidence_sha256)" if site.cluster is None else "encode(evidence_sha256, 'hex')"
    rows = query(
        site,
        f"SELECT attester_id, sequence, tier, {evidence}, rejudged_at IS NOT NULL FROM attestation"
        " ORDER BY attester_id, sequence",
    )
    return [
        Stored(key, int(number), Tier(int(tier)).label, digest.lower(), again in {1, "t"})
        for key, number, tier, digest, again in rows
    ]


def query(site: Site, statement: str) -> list[tuple[Any, ...]]:
    """Rows of a statement; PostgreSQL's are text."""
    if site.cluster is not None:
        return [tuple(line.split("|")) for line in site.cluster.rows(statement, site.database)]
    with sqlite3.connect(f"file:{site.state / 'verifier.db'}?mode=ro", uri=True) as connection:
        return connection.execute(statement).fetchall()


def check(crowd: Crowd) -> None:
    """All that has to be so after any fault."""
    site = crowd.site
    rows = stored(site)
    history: dict[str, list[Stored]] = defaultdict(list)
    for row in rows:
        history[row.attester_id].append(row)
    problems = list(crowd.wrong)
    problems += _gaps(history)
    problems += _untrue(crowd, rows)
    problems += [
        f"{count} verdicts over nonce {nonce.hex()}" for nonce, count in crowd.accepted.items() if count > 1
    ]
    problems += _taken_twice(history)
    for member in crowd.members:
        key, expected = member.guest.attester_id, member.expected
        problems += [
            f"guest {member.guest.seed}: {row.status} at {row.sequence}, not {expected}"
            for row in history[key]
            if row.status != expected
        ]
    latest = {key: int(number) for key, number in query(site, "SELECT attester_id, sequence FROM latest")}
    problems += [
        f"{key}: the latest is {latest.get(key)}, the history ends at {mine[-1].sequence}"
        for key, mine in history.items()
        if latest.get(key) != mine[-1].sequence
    ]
    assert not problems, "\n".join([*problems[:20], *_own_faults(site.log), site.log[-3000:]])


def _own_faults(log: str) -> list[str]:
    """What a verifier called a fault of its own, and where that came from."""
    found = []
    for line in log.splitlines():
        if '"internal-fault"' in line and line.startswith("{"):
            said = json.loads(line)
            for error in said.get("exception", []):
                frames = [
                    f"{frame['filename']}:{frame['lineno']} {frame['name']}" for frame in error["frames"]
                ]
                found.append("\n  ".join([f"{error['exc_type']}: {error['exc_value']}", *frames[-6:]]))
    return found[:10]


def _gaps(history: dict[str, list[Stored]]) -> list[str]:
    return [
        f"{key}: sequences {[row.sequence for row in mine]}"
        for key, mine in history.items()
        if [row.sequence for row in mine] != list(range(1, len(mine) + 1))
    ]


def _untrue(crowd: Crowd, rows: list[Stored]) -> list[str]:
    """What somebody was told and is not stored so."""
    known = {(row.attester_id, row.sequence): row for row in rows}
    found = []
    for told in crowd.told:
        row = known.get((told.attester_id, told.sequence))
        if row is None or (row.status, row.evidence_sha256) != (told.status, told.evidence_sha256):
            found.append(f"told to the {told.by}, not stored: {told}, but {row}")
    return found


def _taken_twice(history: dict[str, list[Stored]]) -> list[str]:
    """Evidence names its nonce: the same evidence in two rows was accepted twice."""
    found = []
    for key, mine in history.items():
        digests = [row.evidence_sha256 for row in mine if not row.rejudged]
        if len(set(digests)) != len(digests):
            found.append(f"{key}: the same evidence in two rows")
    return found
