"""The dictionary of lint problems; `docs/policy.md` lists them from here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


class Level(enum.StrEnum):
    """Errors keep a policy from being used; warnings are for people."""

    ERROR = "error"
    WARNING = "warning"


class ProblemId(enum.StrEnum):
    """Stable ids."""

    DOCUMENT = "document"
    INFO_ONLY = "info-only"
    COVERED_BY_INFO = "covered-by-info"
    LOG_IGNORED = "log-ignored"
    UNQUOTED_PCR = "unquoted-pcr"
    NO_CLAIMS = "no-claims"
    ALWAYS_TRUE = "always-true"
    ALWAYS_FALSE = "always-false"
    IMPOSSIBLE_WORD = "impossible-word"
    CONTRADICTION = "contradiction"
    DUPLICATE_RULE = "duplicate-rule"
    IMPLIED_RULE = "implied-rule"
    ZERO_DIGEST = "zero-digest"
    UNBOUND_NAME = "unbound-name"
    DEAD_LINE = "dead-line"
    IDLE_PART = "idle-part"
    EMPTY_DIGEST = "empty-digest"
    WEAK_HASH = "weak-hash"
    CLAIM_MISMATCH = "claim-mismatch"
    IMPOSSIBLE_QUIRK = "impossible-quirk"
    TOLERATED_UNJUDGED = "tolerated-unjudged"
    TOLERATED_UNPROVEN = "tolerated-unproven"
    EXCLUDES_EVERYTHING = "excludes-everything"
    EXCLUDES_PROGRAMS = "excludes-programs"
    UNKNOWN_ALLOWED = "unknown-allowed"
    LIST_UNREAD = "list-unread"

    @property
    def entry(self) -> ProblemEntry:
        """Level, meaning and remedy."""
        return PROBLEMS[self]


@dataclass(frozen=True, slots=True)
class ProblemEntry:
    """What a problem is, and what to do about it."""

    level: Level
    about: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of one policy; `where` is a key or `rule ID`."""

    id: ProblemId
    where: str
    message: str

    @property
    def level(self) -> Level:
        """Whether it keeps the policy from being used."""
        return self.id.entry.level

    @property
    def remedy(self) -> str:
        """What to do."""
        return self.id.entry.remedy


def _error(about: str, remedy: str) -> ProblemEntry:
    return ProblemEntry(Level.ERROR, about, remedy)


def _warning(about: str, remedy: str) -> ProblemEntry:
    return ProblemEntry(Level.WARNING, about, remedy)


PROBLEMS: Final[Mapping[ProblemId, ProblemEntry]] = {
    ProblemId.DOCUMENT: _error(
        "The document is not a policy: not YAML, an unknown key, a value out of place, a PCR that nothing speaks for.",
        "Mend the place named; docs/policy.schema.json lets an editor show it while you write.",
    ),
    ProblemId.INFO_ONLY: _error(
        "Every rule has severity `info`, so no verdict can ever depend on this policy.",
        "Give at least one rule the severity `warning` or `contraindicated`.",
    ),
    ProblemId.COVERED_BY_INFO: _error(
        "A quoted PCR is judged by rules of severity `info` only: whatever it holds passes.",
        "Raise the severity of one of its `pcr` or `sequence` rules, or list the PCR under `unjudged` with the reason.",
    ),
    ProblemId.LOG_IGNORED: _error(
        "A rule reads the boot log, and `boot_log` is `ignored`.",
        "Set `boot_log: required` (or `optional`), or remove the rule.",
    ),
    ProblemId.UNQUOTED_PCR: _error(
        "A rule reads a claim that only PCRs outside the quote can prove, so it can never be judged.",
        "Add one of the PCRs named to `quote.pcrs`.",
    ),
    ProblemId.NO_CLAIMS: _error(
        "An expression reads no claim, so it says nothing about the machine.",
        "Compare a claim of docs/claims.md, or remove the rule.",
    ),
    ProblemId.ALWAYS_TRUE: _error(
        "The rule can never fail, whatever was booted.", "Say what must not be, or remove the rule."
    ),
    ProblemId.ALWAYS_FALSE: _error(
        "The rule can never pass, whatever was booted.", "Say what may be, or remove the rule."
    ),
    ProblemId.IMPOSSIBLE_WORD: _error(
        "A required or forbidden word is empty or has white space in it, as no word of a command line has.",
        "Write one entry per word; for whole lines there is `any_of`, for parts of words a `cel` rule.",
    ),
    ProblemId.CONTRADICTION: _error(
        "No boot can pass both rules.", "Make up which of the two is meant and remove or widen the other."
    ),
    ProblemId.DUPLICATE_RULE: _error(
        "Another rule asks exactly the same for the same AR4SI claim.", "Remove one of the two."
    ),
    ProblemId.IMPLIED_RULE: _error(
        "The rule can never fail where another one passes that is at least as grave.",
        "Remove it, or make it ask for more.",
    ),
    ProblemId.ZERO_DIGEST: _error(
        "An all-zero digest is accepted for an event. Nothing hashes to it: firmware that logs it measured nothing.",
        "Find out what was not measured; accept the PCR as a whole with a `pcr` rule if it must be accepted.",
    ),
    ProblemId.UNBOUND_NAME: _error(
        "A rule picks events by a name that no event of that PCR can prove: file names, images and `MokList` are labels in"
        " the log, which no digest covers.",
        "Pick the event by its digest, or judge a claim of docs/claims.md; docs/binding.md lists what has a proven name.",
    ),
    ProblemId.DEAD_LINE: _warning(
        "A golden command line breaks `require` or `forbid` of the same rule, so it is never accepted.",
        "Remove the line, or the word that excludes it.",
    ),
    ProblemId.IDLE_PART: _warning(
        "A part of the expression never changes its outcome.", "Remove it, or look for a wrong operator."
    ),
    ProblemId.EMPTY_DIGEST: _warning(
        "The digest of no data is accepted: what should have been measured was empty or could not be read.",
        "Find out why; accept it only where it is known to be harmless.",
    ),
    ProblemId.WEAK_HASH: _warning(
        "SHA-1 is accepted. Whoever writes an image can make two with the same digest.",
        "Quote a sha256 bank and leave sha1 out of `signature_hashes`.",
    ),
    ProblemId.CLAIM_MISMATCH: _warning(
        "The rule speaks for another AR4SI claim than the claims it reads usually do.",
        "See docs/claims.md; keep it if it is meant.",
    ),
    ProblemId.IMPOSSIBLE_QUIRK: _error(
        "A quirk is tolerated in a PCR where it cannot occur.",
        "See docs/quirks.md for the PCRs of each quirk; remove the PCR.",
    ),
    ProblemId.TOLERATED_UNJUDGED: _error(
        "A tolerated quirk leaves a PCR's events unproven, and nothing judges its value: whatever it holds would pass.",
        "Pin its value by a `pcr` rule, or list the PCR under `unjudged` with the reason.",
    ),
    ProblemId.TOLERATED_UNPROVEN: _warning(
        "A rule reads what a tolerated quirk leaves unproven: guests with that quirk can never pass it.",
        "Judge such guests by another policy, or remove the rule; toleration proves nothing.",
    ),
    ProblemId.EXCLUDES_EVERYTHING: _error(
        "Excludes of the runtime part let through names that nobody has, all over the file system.",
        "Bind each pattern to a folder (`/tmp/**`), and list what is good there in a runtime set where you can.",
    ),
    ProblemId.EXCLUDES_PROGRAMS: _warning(
        "An exclude of the runtime part lets through any name in a folder of programs, libraries or kernel modules.",
        "Name the files that are meant, or put their digests into a runtime set.",
    ),
    ProblemId.LIST_UNREAD: _error(
        "A rule reads a claim of the IMA list, and the policy has no `runtime` part, so it reads no list.",
        "Add the `runtime` part (docs/policy.md), or remove the rule.",
    ),
    ProblemId.UNKNOWN_ALLOWED: _warning(
        "Files that no set has are not held against a machine.",
        "Say `deny` once the sets know what your machines run, `warn` until then.",
    ),
}
