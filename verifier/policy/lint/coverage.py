"""Problems of a policy as a whole: what it quotes, reads and can ever hold against anyone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from verifier.findings import Severity
from verifier.policy import model
from verifier.policy.catalogue import CATALOGUE
from verifier.policy.cel_text import code
from verifier.policy.cel_tree import Call, Const, Ident, Node, walk
from verifier.policy.lint.problem import Problem, ProblemId
from verifier.tcg.algorithms import HashAlg

_BY_PCR: Final = frozenset({"quote.pcrs", "boot.digests"})


def check_coverage(policy: model.Policy) -> Iterator[Problem]:
    """Problems that a single rule cannot show."""
    if policy.runtime is None and all(rule.head.severity is Severity.INFO for rule in policy.rules):
        yield Problem(ProblemId.INFO_ONLY, "rules", f"all {len(policy.rules)} rules have severity info")
    else:
        yield from _covered_by_info(policy)
    yield from _weak(policy)
    for rule in policy.rules:
        where = f"rule {rule.head.id}"
        if policy.boot_log is model.LogUse.IGNORED and model.reads_log(rule):
            yield Problem(ProblemId.LOG_IGNORED, where, "reads the boot log, but boot_log is `ignored`")
        if policy.runtime is None and any(name.startswith("runtime.") for name in model.references(rule)):
            yield Problem(ProblemId.LIST_UNREAD, where, "reads the IMA list, and there is no `runtime` part")
        yield from _unquoted(policy.quote.pcrs, rule, where)


def _covered_by_info(policy: model.Policy) -> Iterator[Problem]:
    grave: set[int] = set()
    light: set[int] = set()
    for rule in policy.rules:
        if isinstance(rule, (model.PcrRule, model.SequenceRule)):
            (light if rule.head.severity is Severity.INFO else grave).add(rule.pcr)
    for pcr in sorted(light - grave - set(policy.unjudged)):
        yield Problem(ProblemId.COVERED_BY_INFO, "quote.pcrs", f"PCR {pcr} is judged at severity info only")


def _weak(policy: model.Policy) -> Iterator[Problem]:
    if policy.quote.bank is HashAlg.SHA1:
        yield Problem(ProblemId.WEAK_HASH, "quote.bank", "the PCRs are judged in their SHA-1 bank")
    if HashAlg.SHA1 in policy.quote.signature_hashes:
        yield Problem(ProblemId.WEAK_HASH, "quote.signature_hashes", "SHA-1 signatures are accepted")


def _unquoted(quoted: frozenset[int], rule: model.Rule, where: str) -> Iterator[Problem]:
    for name in model.references(rule):
        entry = CATALOGUE[name]
        if not entry.provable(quoted):
            needed = (" and " if entry.every else " or ").join(str(pcr) for pcr in sorted(entry.pcrs))
            yield Problem(
                ProblemId.UNQUOTED_PCR, where, f"{name} is proven by PCR {needed}, which the quote leaves out"
            )
    if isinstance(rule, model.CelRule):
        for node in walk(rule.program.tree):
            pcr = _indexed_pcr(node)
            if pcr is not None and pcr not in quoted:
                yield Problem(ProblemId.UNQUOTED_PCR, where, f"{code(node)}: PCR {pcr} is not quoted")


def _indexed_pcr(node: Node) -> int | None:
    """N of `quote.pcrs[N]`."""
    match node:
        case Call(function="_[_]", arguments=(Ident(name=name), Const(value=int(pcr)))) if name in _BY_PCR:
            return pcr
    return None
