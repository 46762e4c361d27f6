"""Problems that one rule has by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from verifier.policy import model
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.cel_logic import Verdict, analyse
from verifier.policy.lint.problem import Problem, ProblemId
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.uki import UKI_SECTIONS
from verifier.tcg.userspace_text import NAMES

_VARIABLES: Final = frozenset({0, 1, 3, 5, 6, 7})
_SECTIONS: Final = {11: frozenset(UKI_SECTIONS)}


def check_rules(policy: model.Policy) -> Iterator[Problem]:
    """Problems of every rule, in the order of the policy."""
    for rule in policy.rules:
        where = f"rule {rule.head.id}"
        match rule:
            case model.CelRule():
                yield from _cel(rule, where)
            case model.CommandLineRule():
                yield from _command_line(rule, where)
            case model.EventRule():
                digests = rule.accepted.digests if rule.accepted is not None else ()
                yield from _name(rule, where)
                if rule.occurs is not model.Occurs.NEVER:
                    yield from _digests(digests, policy.quote.bank, where)
            case model.SequenceRule():
                for number, step in enumerate(rule.steps):
                    yield from _digests(step.accepted.digests, policy.quote.bank, f"{where} step {number}")
            case model.RevocationsRule():
                yield from _claim_mismatch(rule, where)
            case model.PcrRule() | model.SecureBootRule():
                pass  # any PCR value can be meant, and either state of Secure Boot


def _cel(rule: model.CelRule, where: str) -> Iterator[Problem]:
    names = rule.program.references
    if not names:
        yield Problem(ProblemId.NO_CLAIMS, where, "the expression reads no claim")
        return
    analysis = analyse(rule.program.tree)
    if analysis.verdict is Verdict.ALWAYS:
        yield Problem(ProblemId.ALWAYS_TRUE, where, "the expression is true whatever the claims are")
    elif analysis.verdict is Verdict.NEVER:
        yield Problem(ProblemId.ALWAYS_FALSE, where, "the expression is false whatever the claims are")
    for part in analysis.idle:
        yield Problem(ProblemId.IDLE_PART, where, f"the outcome never depends on {part}")
    yield from _claim_mismatch(rule, where)


def _claim_mismatch(rule: model.Rule, where: str) -> Iterator[Problem]:
    usual = {claim for name in model.references(rule) for claim in CATALOGUE[name].speaks_for}
    if rule.head.claim not in usual:
        listed = ", ".join(sorted(claim.value for claim in usual))
        yield Problem(
            ProblemId.CLAIM_MISMATCH,
            where,
            f"it speaks for {rule.head.claim.value}, but reads claims of {listed}",
        )


def _name(rule: model.EventRule, where: str) -> Iterator[Problem]:
    """Firmware's PCRs have variables, any of them; the others what systemd calls its own, and its stub's sections."""
    if rule.name is None or rule.pcr in _VARIABLES:
        return
    if rule.name not in NAMES and rule.name not in _SECTIONS.get(rule.pcr, ()):
        message = f"no event of PCR {rule.pcr} has a proven name {rule.name!r}"
        yield Problem(ProblemId.UNBOUND_NAME, where, message)


def _command_line(rule: model.CommandLineRule, where: str) -> Iterator[Problem]:
    for word in sorted(rule.require | rule.forbid):
        if word.split() != [word]:
            yield Problem(ProblemId.IMPOSSIBLE_WORD, where, f"{word!r} is not one word")
    dead = sorted(line for line in rule.any_of if not _allowed(rule, line))
    if rule.any_of and len(dead) == len(rule.any_of):
        yield Problem(ProblemId.ALWAYS_FALSE, where, "every golden line breaks `require` or `forbid`")
    else:
        for line in dead:
            yield Problem(ProblemId.DEAD_LINE, where, f"golden line {line!r} breaks `require` or `forbid`")


def _allowed(rule: model.CommandLineRule, line: str) -> bool:
    words = set(line.split())
    return rule.require <= words and not rule.forbid & words


def _digests(digests: Iterable[bytes], bank: HashAlg, where: str) -> Iterator[Problem]:
    for digest in digests:
        if not any(digest):
            yield Problem(ProblemId.ZERO_DIGEST, where, "the all-zero digest is accepted")
        elif digest == bank.digest(b""):
            yield Problem(ProblemId.EMPTY_DIGEST, where, "the digest of no data is accepted")
