"""Judge what is revoked: which of the required revocations the measured dbx, or shim's level, does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from verifier.claims import BootDetails, SignatureDatabase
from verifier.findings import Finding, Status
from verifier.policy.catalogue import View
from verifier.policy.model import RevocationsRule
from verifier.policy.rule_finding import rule_finding
from verifier.reasons import Reason
from verifier.tcg.signature_list import SecurityVersion, parse_security_version

_DBX: Final = "dbx"
_PCR: Final = 7
_SHOWN: Final = 8
_DIGEST_SIZE: Final = 32
"""Entries of type x509-sha256 have a time behind the digest."""


def judge_revocations(rule: RevocationsRule, view: View) -> Finding:
    """Whether all that must be revoked is; NOT_EVALUATED where no proven event says what is.

    Proven: what firmware enforced while this boot's images were verified, as it measured it into PCR 7. Not proven:
    that it stays so, and what is revoked by hash in shim's own lists (MokListX), whose content is in no log.
    """
    details = view.boot.details if view.boot is not None and view.explained(_PCR) else None
    unproven = _unproven(rule, details)
    if details is None or unproven:
        message = f"{' and '.join(unproven)} {'is' if len(unproven) == 1 else 'are'} not proven"
        return rule_finding(rule.head, Reason.CLAIM_UNPROVEN, Status.NOT_EVALUATED, message, pcr=_PCR)
    database = details.databases.get(_DBX)
    missing = [] if database is None else [*_missing(rule, database)]
    missing += _below(rule.sbat, details.sbat_level or {})
    required = len(rule.required.digests) + len(rule.sbat)
    if not missing:
        message = f"all {required} required revocations are in force"
        return rule_finding(rule.head, Reason.REVOCATIONS_PRESENT, Status.PASSED, message, pcr=_PCR)
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return rule_finding(
        rule.head,
        Reason.REVOCATIONS_MISSING,
        Status.FAILED,
        f"{len(missing)} of {required} required revocations are missing",
        pcr=_PCR,
        expected=", ".join(missing[:_SHOWN]) + more,
        actual=_found(rule, database, details.sbat_level),
    )


def _unproven(rule: RevocationsRule, details: BootDetails | None) -> list[str]:
    unproven = []
    if rule.required.digests and (details is None or _DBX not in details.databases):
        unproven.append(_DBX)
    if rule.sbat and (details is None or details.sbat_level is None):
        unproven.append("shim's SbatLevel")
    return unproven


def _missing(rule: RevocationsRule, database: SignatureDatabase) -> Iterator[str]:
    held = {*database.certificates, *database.digests.get("sha256", ())}
    held.update(entry[:_DIGEST_SIZE] for entry in database.digests.get("x509-sha256", ()))
    versions = _versions(held)
    for digest, note in rule.required.digests.items():
        version = parse_security_version(digest)
        if version is not None:
            if versions.get(version.component, (0, 0)) < (version.major, version.minor):
                yield f"{version.component} below version {version.major}.{version.minor}"
        elif digest not in held:
            yield f"{digest.hex()} ({note})" if note else digest.hex()


def _versions(held: set[bytes]) -> Mapping[str, tuple[int, int]]:
    """The highest version per component: dbx is appended to, older ones stay."""
    found: dict[str, tuple[int, int]] = {}
    entries: Iterator[SecurityVersion | None] = map(parse_security_version, held)
    for version in entries:
        if version is not None:
            number = (version.major, version.minor)
            found[version.component] = max(found.get(version.component, number), number)
    return found


def _below(sbat: Mapping[str, int], level: Mapping[str, str]) -> list[str]:
    return [
        f"{component} below generation {least}"
        for component, least in sbat.items()
        if _generation(level.get(component)) < least
    ]


def _generation(text: str | None) -> int:
    """Of a level, the first field; what is not there, or is no number, revokes nothing."""
    first = (text or "").split(",", 1)[0]
    return int(first) if first.isascii() and first.isdecimal() else 0


def _found(rule: RevocationsRule, database: SignatureDatabase | None, level: Mapping[str, str] | None) -> str:
    parts = []
    if rule.required.digests and database is not None:
        parts.append(f"dbx with {database.entries} entries (event {database.event_index})")
    if rule.sbat and level is not None:
        parts.append("SbatLevel " + " ".join(f"{name},{value}" for name, value in level.items()))
    return "; ".join(parts)
