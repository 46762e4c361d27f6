"""Does the operator's inventory list this TPM for this machine, and what does it tell that explains the rest?

The inventory is a reference, as good as its source: vCenter's word or a file's, which no TPM has signed. So it never
makes a verdict better. Where it is current and contradicts, that is a finding; where it is silent or old, that is said
and nothing is concluded: a policy that needs its word demands a claim of `identity.inventory`.
"""

from __future__ import annotations

from typing import Final, assert_never

from verifier.appraisal.correlate import Correlation, InventoryView, Outcome
from verifier.appraisal.evidence import Expectation
from verifier.appraisal.inventory import EventKind, InventoryEvent
from verifier.appraisal.result import Finding, Severity, Status
from verifier.appraisal.smbios import same_uuid
from verifier.reasons import Claim, Reason

MAX_NEWS: Final = 5
"""Events that are told of in one verdict; all are in the inventory's own history."""
_TELLING: Final = frozenset(EventKind) - {EventKind.ADDED, EventKind.REMOVED}
"""That a machine came into a list or went out of it explains nothing about its TPM."""
_CONTRADICTS: Final = frozenset(
    {Outcome.EK_OF_ANOTHER_MACHINE, Outcome.EK_ON_SEVERAL_MACHINES, Outcome.UUID_KNOWN_EK_UNKNOWN}
)


def check_inventory(expected: Expectation, claimed_uuid: str | None) -> tuple[Finding, ...]:
    """Findings of what the inventories say of an attester whose AK is bound to its EK.

    Proves nothing of the machine. `inventory-matches` says that the operator's sources list exactly this key for
    exactly one machine, not that no copy of its vTPM runs outside of them.

    Args:
        expected: with the view of the inventories; nothing is found without one, or without an activation.
        claimed_uuid: SMBIOS UUID as the guest says it.
    """
    view = expected.inventory
    if view is None or not expected.ak_activated:
        return ()
    return (_judge(view, claimed_uuid), *_news(view))


def _judge(view: InventoryView, claimed_uuid: str | None) -> Finding:
    found = view.correlation
    match found.outcome:
        case Outcome.MATCH | Outcome.EK_ONLY:
            return _finding(Reason.INVENTORY_MATCHES, Status.PASSED, Severity.INFO, found.explanation)
        case Outcome.EK_OF_ANOTHER_MACHINE:
            return _mismatch(view, claimed_uuid)
        case Outcome.EK_ON_SEVERAL_MACHINES:
            return _finding(
                Reason.INVENTORY_SHARED_KEY, Status.FAILED, Severity.WARNING, found.explanation, "one machine"
            )
        case Outcome.UUID_KNOWN_EK_UNKNOWN:
            return _finding(
                Reason.INVENTORY_KEY_REPLACED,
                Status.FAILED,
                Severity.CONTRAINDICATED,
                f"this is another TPM than the inventory lists: {found.explanation}",
            )
        case Outcome.EK_NOT_LISTED | Outcome.UNKNOWN:
            return _finding(Reason.INVENTORY_SILENT, Status.NOT_EVALUATED, Severity.INFO, found.explanation)
        case Outcome.INVENTORY_STALE:
            # Old news that all was well proves nothing; old news that it was not is still worth a look.
            severity = Severity.WARNING if found.last_known in _CONTRADICTS else Severity.INFO
            return _finding(Reason.INVENTORY_STALE, Status.NOT_EVALUATED, severity, found.explanation)
        case _:
            assert_never(found.outcome)


def _mismatch(view: InventoryView, claimed_uuid: str | None) -> Finding:
    """A guest reads its UUID when it starts: after a change it says for a while what it was."""
    found = view.correlation
    owner = found.others[0]
    changed = next(
        (
            event
            for event in view.events
            if event.kind is EventKind.UUID_CHANGED
            and event.machine.key == owner.key
            and same_uuid(event.before, claimed_uuid)
        ),
        None,
    )
    message, severity = found.explanation, Severity.CONTRAINDICATED
    if changed is not None:
        severity = Severity.WARNING
        message += f"; that was its UUID until {_time(changed)}, so the guest may not have been started since"
    return _finding(
        Reason.INVENTORY_MISMATCH, Status.FAILED, severity, message, owner.smbios_uuid, claimed_uuid
    )


def _news(view: InventoryView) -> tuple[Finding, ...]:
    since = view.news_since
    news = [
        event for event in view.events if event.kind in _TELLING and (since is None or event.at >= since)
    ][:MAX_NEWS]
    return tuple(
        _finding(
            Reason.INVENTORY_EVENT,
            Status.NOT_EVALUATED,
            Severity.INFO,
            describe(event, view.correlation),
            event.before,
            event.after,
        )
        for event in news
    )


def describe(event: InventoryEvent, found: Correlation | None = None) -> str:
    """One event in a sentence, with what `found` knows of the keys of a clone."""
    machine, when = event.machine, _time(event)
    match event.kind:
        case EventKind.ADDED:
            text = f"{machine} is listed since {when}"
        case EventKind.REMOVED:
            text = f"{machine} is no longer listed since {when}"
        case EventKind.CLONED:
            text = f"{machine} was made as a copy of {event.origin} at {when}{_keys_of(event, found)}"
        case EventKind.INSTANCE_UUID_CHANGED:
            text = f"{machine} was given another instance UUID at {when}"
        case EventKind.UUID_CHANGED:
            text = f"{machine} was given another SMBIOS UUID at {when}"
        case EventKind.SNAPSHOT_REVERTED:
            snapshot = f"snapshot '{event.after}'" if event.after else "a snapshot"
            text = f"{machine} was reverted to {snapshot} at {when}; its vTPM went back with it"
        case EventKind.VTPM_REPLACED:
            text = (
                f"{machine} has other endorsement keys since {when}: its vTPM was added, replaced or removed"
            )
        case _:
            assert_never(event.kind)
    return text


def _keys_of(event: InventoryEvent, found: Correlation | None) -> str:
    if found is None or event.origin is None:
        return ""
    sharing = {machine.key for machine in found.machines}
    if {event.machine.key, event.origin.key} <= sharing and found.outcome is Outcome.EK_ON_SEVERAL_MACHINES:
        return ", and its vTPM was copied"
    return ", and not listed with the same key now"


def _time(event: InventoryEvent) -> str:
    return f"{event.at:%Y-%m-%d %H:%M:%S} UTC"


def _finding(
    reason: Reason,
    status: Status,
    severity: Severity,
    message: str,
    expected: str | None = None,
    actual: str | None = None,
) -> Finding:
    return Finding(
        reason=reason,
        status=status,
        severity=severity,
        claim=Claim.INSTANCE_IDENTITY,
        message=message,
        expected=expected,
        actual=actual,
    )
