"""From a policy document to a `Policy`, refusing whatever would pass silently."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeVar

from verifier.errors import PolicyError
from verifier.findings import Severity
from verifier.policy import document as doc
from verifier.policy import model
from verifier.policy.cel import compile_program
from verifier.policy.lint import Level, Problem, ProblemId, lint
from verifier.policy.runtime_section import PCR, read_runtime
from verifier.policy.tolerate import read_tolerations
from verifier.reasons import Claim
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

_DURATION: Final = re.compile(r"^(\d{1,6})(s|m|h|d)$")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_VALIDITY: Final = timedelta(days=7)
E_ = TypeVar("E_", Severity, Claim, model.LogUse, model.Occurs)
_References = Mapping[str, tuple[tuple[str, ...], str]]


def parse_policy(source: str | bytes) -> model.Policy:
    """Parse one policy with the reference sets that stand in the same YAML stream.

    Proves nothing about who wrote it. Raises `PolicyError` (with the key or rule) for anything unknown,
    contradictory, or that would let a quoted PCR pass unjudged without a written reason: whatever `lint` calls an
    error is refused here.
    """
    policy = read_policy(source)
    for problem in lint(policy):
        if problem.level is Level.ERROR:
            raise PolicyError(
                f"{problem.message} ({problem.id.value}). {problem.remedy}", where=problem.where
            )
    return policy


def check_policy(source: str | bytes) -> tuple[model.Policy | None, tuple[Problem, ...]]:
    """The same for people: every problem at once, and the policy where it can be read at all."""
    try:
        policy = read_policy(source)
    except PolicyError as error:
        return None, (Problem(ProblemId.DOCUMENT, error.structure, error.detail),)
    return policy, lint(policy)


def read_policy(source: str | bytes) -> model.Policy:
    """The policy as written, before anyone asked whether its rules make sense. Judge nothing by it."""
    raw = source.encode() if isinstance(source, str) else source
    policy, reference_sets = doc.read_documents(raw)
    if policy is None:
        raise PolicyError("no policy document in this source, only reference values")
    return _Builder(policy, _references(reference_sets)).build(hashlib.sha256(raw).hexdigest())


def _references(sets: Iterable[doc.ReferenceSetDocument]) -> _References:
    result: dict[str, tuple[tuple[str, ...], str]] = {}
    for each in sets:
        for name, value in each.values.items():
            key = f"{each.id}/{name}"
            if key in result:
                raise PolicyError(f"reference value {key!r} is defined twice", where="values")
            result[key] = (tuple(value.digests), value.note or name)
    return result


class _Builder:
    """Checks one document against itself and its references."""

    def __init__(self, document: doc.PolicyDocument, references: _References) -> None:
        self._document = document
        self._references = references
        self._bank = _hash(document.quote.bank, "quote.bank")
        self._used: set[str] = set()

    def build(self, revision: str) -> model.Policy:
        document = self._document
        quote = self._quote(document.quote)
        rules = tuple(self._rule(rule) for rule in document.rules)
        _refuse_duplicates([rule.id for rule in document.rules])
        unjudged = self._unjudged(quote.pcrs)
        log_use = _enum(model.LogUse, document.boot_log, "boot_log")
        runtime = read_runtime(document.runtime, quote.pcrs)
        _check_coverage(rules, quote.pcrs, unjudged, frozenset() if runtime is None else frozenset({PCR}))
        unused = set(self._references) - self._used
        if unused:
            raise PolicyError(f"reference value {min(unused)!r} is used by no rule", where="values")
        return model.Policy(
            id=document.id,
            revision=revision,
            description=document.description,
            validity=_duration(document.validity),
            quote=quote,
            boot_log=log_use,
            rules=rules,
            unjudged=unjudged,
            tolerated=read_tolerations(document.tolerate, quote.pcrs),
            runtime=runtime,
        )

    def _quote(self, quote: doc.QuoteDocument) -> model.QuoteRule:
        hashes = frozenset(_hash(name, "quote.signature_hashes") for name in quote.signature_hashes)
        if not hashes:
            raise PolicyError(
                "no signature hash is allowed, so nothing can ever pass", where="quote.signature_hashes"
            )
        return model.QuoteRule(bank=self._bank, pcrs=frozenset(quote.pcrs), signature_hashes=hashes)

    def _unjudged(self, quoted: frozenset[int]) -> dict[int, str]:
        result: dict[int, str] = {}
        for entry in self._document.unjudged:
            for pcr in entry.pcrs:
                if pcr not in quoted:
                    raise PolicyError(f"PCR {pcr} is listed as unjudged but is not quoted", where="unjudged")
                result[pcr] = entry.why
        return result

    def _rule(self, rule: doc.RuleDocument) -> model.Rule:
        where = f"rule {rule.id}"
        head = model.RuleHead(
            id=rule.id,
            severity=_enum(Severity, rule.severity, where),
            claim=_enum(Claim, rule.claim, where),
            message=rule.message,
        )
        kinds = [getattr(rule, kind) for kind in doc.RULE_KINDS]
        if sum(kind is not None for kind in kinds) != 1:
            raise PolicyError(f"a rule has exactly one of {', '.join(doc.RULE_KINDS)}", where=where)
        if rule.pcr is not None:
            return model.PcrRule(
                head=head,
                pcr=self._quoted(rule.pcr.index, where),
                accepted=self._accepted(rule.pcr.any_of, where),
            )
        if rule.event is not None:
            return self._event(head, rule.event, where)
        if rule.sequence is not None:
            return self._sequence(head, rule.sequence, where)
        return self._claim_rule(head, rule, where)

    def _claim_rule(self, head: model.RuleHead, rule: doc.RuleDocument, where: str) -> model.Rule:
        if rule.secure_boot is not None:
            return _secure_boot(head, rule.secure_boot, where)
        if rule.command_line is not None:
            return _command_line(head, rule.command_line, where)
        if rule.revocations is not None:
            return self._revocations(head, rule.revocations, where)
        if rule.cel is not None:
            return _cel(head, rule.cel, where)
        raise AssertionError("unreachable: one kind was counted above")

    def _event(self, head: model.RuleHead, event: doc.EventDocument, where: str) -> model.EventRule:
        occurs = _enum(model.Occurs, event.occurs, where)
        if event.name is None and event.any_of is None:
            raise PolicyError("an event rule needs a name, any_of, or both", where=where)
        if occurs is model.Occurs.OPTIONAL and event.name is None:
            raise PolicyError("`optional` without a name would always pass", where=where)
        if occurs is not model.Occurs.NEVER and event.any_of is None:
            raise PolicyError("any_of is missing: this rule would accept every digest", where=where)
        accepted = None if event.any_of is None else self._accepted(event.any_of, where)
        return model.EventRule(
            head=head,
            pcr=self._quoted(event.pcr, where),
            name=event.name,
            occurs=occurs,
            accepted=accepted,
        )

    def _sequence(
        self, head: model.RuleHead, sequence: doc.SequenceDocument, where: str
    ) -> model.SequenceRule:
        steps = tuple(
            model.Step(
                label=step.label or f"step {number}",
                accepted=self._accepted(step.any_of, f"{where} step {number}"),
                optional=step.optional,
            )
            for number, step in enumerate(sequence.steps)
        )
        return model.SequenceRule(head=head, pcr=self._quoted(sequence.pcr, where), steps=steps)

    def _quoted(self, pcr: int, where: str) -> int:
        if pcr not in self._document.quote.pcrs:
            raise PolicyError(f"PCR {pcr} is judged but not quoted; add it to quote.pcrs", where=where)
        return pcr

    def _revocations(
        self, head: model.RuleHead, revocations: doc.RevocationsDocument, where: str
    ) -> model.RevocationsRule:
        if not (revocations.require or revocations.sbat):
            raise PolicyError("revocations requires nothing, so it would always pass", where=where)
        required = self._accepted(revocations.require, where, HashAlg.SHA256)
        return model.RevocationsRule(head=head, required=required, sbat=dict(revocations.sbat))

    def _accepted(self, texts: list[str], where: str, alg: HashAlg | None = None) -> model.Accepted:
        digests: dict[bytes, str] = {}
        for text in texts:
            for values, note in self._resolve(text, where):
                for value in values:
                    digests[_digest(value, alg or self._bank, where)] = note
        return model.Accepted(digests=digests)

    def _resolve(self, text: str, where: str) -> Iterable[tuple[tuple[str, ...], str]]:
        if not text.startswith("ref:"):
            return (((text,), ""),)
        key = text.removeprefix("ref:")
        whole = key.removesuffix("/*") + "/" if key.endswith("/*") else None
        keys = [each for each in self._references if (each.startswith(whole) if whole else each == key)]
        if not keys:
            raise PolicyError(f"reference value {key!r} is not defined in this source", where=where)
        self._used.update(keys)
        return [self._references[each] for each in keys]


def _digest(text: str, alg: HashAlg, where: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        raise PolicyError(f"{text!r} is not hexadecimal", where=where) from None
    if len(digest) != alg.size:
        raise PolicyError(
            f"{text[:16]}… has {len(digest)} bytes; a {alg.label} digest has {alg.size}", where=where
        )
    return digest


def _secure_boot(head: model.RuleHead, text: str, where: str) -> model.SecureBootRule:
    if text not in {"enabled", "disabled"}:
        raise PolicyError(f"secure_boot is {text!r}; write enabled or disabled", where=where)
    return model.SecureBootRule(head=head, enabled=text == "enabled")


def _command_line(head: model.RuleHead, line: doc.CommandLineDocument, where: str) -> model.CommandLineRule:
    if not (line.any_of or line.require or line.forbid):
        raise PolicyError("command_line says nothing, so it would always pass", where=where)
    clash = set(line.require) & set(line.forbid)
    if clash:
        raise PolicyError(f"{min(clash)!r} is both required and forbidden", where=where)
    return model.CommandLineRule(
        head=head,
        any_of=frozenset(line.any_of),
        require=frozenset(line.require),
        forbid=frozenset(line.forbid),
    )


def _cel(head: model.RuleHead, text: str, where: str) -> model.CelRule:
    try:
        return model.CelRule(head=head, program=compile_program(text.strip()))
    except PolicyError as error:
        raise PolicyError(error.detail, where=f"{where} cel {error.structure}".strip()) from error


def _check_coverage(
    rules: Iterable[model.Rule],
    quoted: frozenset[int],
    unjudged: Mapping[int, str],
    runtime: frozenset[int],
) -> None:
    speaking = [rule for rule in rules if isinstance(rule, (model.PcrRule, model.SequenceRule))]
    covered = {rule.pcr for rule in speaking} | runtime
    grave = {rule.pcr for rule in speaking if rule.head.severity is not Severity.INFO} | runtime
    both = sorted(grave & set(unjudged))
    if both:
        raise PolicyError(f"PCR {both[0]} is judged by a rule and listed as unjudged", where="unjudged")
    silent = sorted(quoted - covered - set(unjudged))
    if silent:
        raise PolicyError(
            f"PCR {silent[0]} is quoted but no pcr or sequence rule covers it; add one, or list it under"
            " `unjudged` with the reason why",
            where="quote.pcrs",
        )


def _refuse_duplicates(ids: list[str]) -> None:
    for each in ids:
        if ids.count(each) > 1:
            raise PolicyError("two rules have this id", where=f"rule {each}")


def _hash(name: str, where: str) -> HashAlg:
    alg = HASH_BY_LABEL.get(name)
    if alg is None or alg.new is None:
        raise PolicyError(f"hash {name!r} is not known here", where=where)
    return alg


def _enum(kind: type[E_], text: str, where: str) -> E_:
    try:
        return kind(text)
    except ValueError:
        choices = ", ".join(member.value for member in kind)
        raise PolicyError(f"{text!r} is not one of {choices}", where=where) from None


def _duration(text: str) -> timedelta:
    match = _DURATION.match(text)
    if match is None:
        raise PolicyError(f"{text!r} is not a duration such as 90s, 15m, 4h or 1d", where="validity")
    value = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if not timedelta(seconds=10) <= value <= MAX_VALIDITY:
        raise PolicyError(f"{text!r} is outside 10s to 7d", where="validity")
    return value
