"""Which policies judge an attester, and how much each of them may say. Pure.

One policy at most decides (`enforce`); any number of others are tried beside it (`warn`, `observe`), which is how
the next revision is rolled out in stages.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from verifier.errors import EvidenceError
from verifier.reasons import Reason

MAX_SELECTOR: Final = 16
LABEL_KEY: Final = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
LABEL_VALUE: Final = r"^[^\x00-\x1f\x7f,]{0,128}$"
_KEY: Final = re.compile(LABEL_KEY.strip("^$"))
_VALUE: Final = re.compile(LABEL_VALUE.strip("^$"))


class Mode(enum.StrEnum):
    """How much the findings of an assigned policy may do."""

    ENFORCE = "enforce"
    """They are the verdict."""
    WARN = "warn"
    """They are shown, and the worst they can make of a verdict is `warning`."""
    OBSERVE = "observe"
    """They are recorded and shown; no verdict is moved by them."""


class Origin(enum.StrEnum):
    """Why this policy is the one that decides."""

    ATTESTER = "attester"
    """It was assigned to this very attester."""
    ASSIGNMENT = "assignment"
    """It was assigned to labels the attester has."""
    DEFAULT = "default"
    """Nothing else was."""


class PolicyRef(NamedTuple):
    """A policy: one revision, or (`revision` None) whichever is current."""

    id: str
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A policy for every attester that has all labels of `selector`; an empty one is everyone.

    Attributes:
        priority: of several `enforce` assignments that match, the highest decides.
        revision: pinned; None follows the current one.
    """

    id: str
    policy_id: str
    revision: str | None
    mode: Mode
    priority: int = 0
    selector: Mapping[str, str] = field(default_factory=dict)
    changed_at: datetime

    @property
    def policy(self) -> PolicyRef:
        """What is assigned."""
        return PolicyRef(self.policy_id, self.revision)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an attester with these labels is meant."""
        return selects(self.selector, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRef:
    """A policy that is tried beside the one that decides; `mode` is never `enforce`."""

    policy: PolicyRef
    mode: Mode
    assignment_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What judges one attester.

    Attributes:
        primary: the policy that decides; None: the verdict is `none`.
        origin: why it does; None where there is none.
        assignment_id: by which assignment, if by one.
        staged: what is tried beside it, by priority.
    """

    primary: PolicyRef | None
    origin: Origin | None
    assignment_id: str | None = None
    staged: tuple[StagedRef, ...] = ()


def resolve(
    labels: Mapping[str, str],
    explicit: str | None,
    assignments: Iterable[Assignment],
    default: str | None,
) -> Resolution:
    """Find the policies of an attester.

    The one that decides: that assigned to the attester itself (`explicit`), else the matching `enforce`
    assignment of the highest priority (then with the longer selector, then changed last), else the default.
    The same on every replica, whatever the order of `assignments`.
    """
    matching = [each for each in assignments if each.matches(labels)]
    enforced = [each for each in matching if each.mode is Mode.ENFORCE]
    best = max(enforced, key=_rank, default=None)
    if explicit is not None:
        primary, origin, by = PolicyRef(explicit), Origin.ATTESTER, None
    elif best is not None:
        primary, origin, by = best.policy, Origin.ASSIGNMENT, best.id
    elif default is not None:
        primary, origin, by = PolicyRef(default), Origin.DEFAULT, None
    else:
        return Resolution(primary=None, origin=None, staged=_staged(matching, None))
    return Resolution(primary=primary, origin=origin, assignment_id=by, staged=_staged(matching, primary))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all of the selector's labels are among these."""
    return all(labels.get(key) == value for key, value in selector.items())


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels, fit for selectors; raises `EvidenceError` naming the one that is not."""
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise EvidenceError(
                Reason.MALFORMED_REQUEST,
                f"{key[:80]!r} is no label key: 1 to 63 of A-Z a-z 0-9 . _ / -, a letter or digit first",
            )
        if not _VALUE.fullmatch(value):
            raise EvidenceError(
                Reason.MALFORMED_REQUEST,
                f"the value of label {key!r} is longer than 128 characters, or has a comma or a control character",
            )
    return labels


def parse_selector(texts: Iterable[str]) -> dict[str, str]:
    """A selector from `key=value` texts, each perhaps several with commas between.

    Raises:
        EvidenceError: no `=`, a key given with two values (nothing could match), or too many.
    """
    result: dict[str, str] = {}
    for text in (part.strip() for each in texts for part in each.split(",") if part.strip()):
        key, equals, value = text.partition("=")
        if not equals:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"selector {text[:80]!r} is not KEY=VALUE")
        if result.setdefault(key, value) != value:
            raise EvidenceError(Reason.MALFORMED_REQUEST, f"the selector asks for two values of {key[:80]!r}")
    if len(result) > MAX_SELECTOR:
        raise EvidenceError(
            Reason.MALFORMED_REQUEST, f"a selector has at most {MAX_SELECTOR} labels, not {len(result)}"
        )
    check_labels(result)
    return dict(sorted(result.items()))


def _rank(each: Assignment) -> tuple[int, int, datetime, str]:
    return each.priority, len(each.selector), each.changed_at, each.id


def _staged(matching: Iterable[Assignment], primary: PolicyRef | None) -> tuple[StagedRef, ...]:
    """Each policy once, by the mode that may say more; the one that decides is not tried beside itself."""
    found: dict[PolicyRef, StagedRef] = {}
    tried = [each for each in matching if each.mode is not Mode.ENFORCE and each.policy != primary]
    for each in sorted(tried, key=lambda one: (-one.priority, one.id)):
        before = found.get(each.policy)
        if before is None or (before.mode is Mode.OBSERVE and each.mode is Mode.WARN):
            found[each.policy] = StagedRef(policy=each.policy, mode=each.mode, assignment_id=each.id)
    return tuple(found.values())
