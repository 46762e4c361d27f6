"""Judge proven claims by a policy. A rule that cannot be judged says so; it never passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from verifier.claims import Binding, BootFacts, EventFact, ProvenClaims
from verifier.findings import Finding, Status
from verifier.policy import model
from verifier.policy.align import align
from verifier.policy.catalogue import View
from verifier.policy.evaluate_cel import CelJudge
from verifier.policy.evaluate_revocations import judge_revocations
from verifier.policy.golden import leads_to
from verifier.policy.rule_finding import rule_finding
from verifier.reasons import Reason
from verifier.tcg.algorithms import HashAlg


def evaluate(policy: model.Policy, claims: ProvenClaims) -> tuple[Finding, ...]:
    """One or more findings per rule, in the order of the policy.

    Only values bound to the quote are reachable here; event text is compared only where it is proven.
    """
    judge = _Judge(View(claims, policy.quote.bank))
    findings: list[Finding] = []
    for rule in policy.rules:
        findings.extend(judge.rule(rule))
    return tuple(findings)


def describe_event(event: EventFact) -> str:
    """An event for people: type, proven name and text; never text nobody signed."""
    name = f" {event.name}" if event.name else ""
    return f"event {event.index} ({event.type_name}{name}, PCR {event.pcr})"


def _shown(event: EventFact, bank: HashAlg) -> str:
    digest = event.digests[bank].hex()
    return f"{digest} ({event.text})" if event.text else digest


class _Judge:
    """The claims, indexed once per evaluation."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._bank = bank = view.bank
        self._pcrs = view.pcrs
        self._boot = view.boot
        self._trusted = view.explained
        self._cel = CelJudge(view)
        self._by_pcr: dict[int, list[EventFact]] = {}
        if self._boot is not None:
            for event in self._boot.events:
                if bank in event.digests:
                    self._by_pcr.setdefault(event.pcr, []).append(event)

    def rule(self, rule: model.Rule) -> Iterable[Finding]:
        if isinstance(rule, model.PcrRule):
            return (self._pcr(rule),)
        if isinstance(rule, model.CelRule):
            return (self._cel.finding(rule),)
        if isinstance(rule, model.RevocationsRule):
            return (judge_revocations(rule, self._view),)
        return self._of_log(rule)

    def _of_log(
        self, rule: model.EventRule | model.SequenceRule | model.SecureBootRule | model.CommandLineRule
    ) -> Iterable[Finding]:
        if self._boot is None:
            return (
                rule_finding(
                    rule.head,
                    Reason.BOOT_LOG_MISSING,
                    Status.NOT_EVALUATED,
                    f"rule {rule.head.id} needs a boot log that replays in {self._bank.label}",
                ),
            )
        match rule:
            case model.EventRule():
                return self._event(rule)
            case model.SequenceRule():
                return self._sequence(rule)
            case model.SecureBootRule():
                return (self._secure_boot(rule, self._boot),)
            case model.CommandLineRule():
                return self._command_line(rule, self._boot)
            case _:
                assert_never(rule)

    def _pcr(self, rule: model.PcrRule) -> Finding:
        value = self._pcrs.get(rule.pcr)
        if value is None:
            message = f"PCR {rule.pcr} ({self._bank.label}) was not quoted"
            return rule_finding(rule.head, Reason.PCR_NOT_QUOTED, Status.NOT_EVALUATED, message, pcr=rule.pcr)
        if value in rule.accepted.digests:
            message = f"PCR {rule.pcr} has a golden value"
            return rule_finding(rule.head, Reason.PCR_MATCHES, Status.PASSED, message, pcr=rule.pcr)
        message = f"PCR {rule.pcr} has no golden value"
        return rule_finding(
            rule.head,
            Reason.PCR_MISMATCH,
            Status.FAILED,
            message,
            pcr=rule.pcr,
            expected=rule.accepted.describe(),
            actual=value.hex(),
        )

    def _untrusted(self, head: model.RuleHead, pcr: int, *, golden: bool = False) -> Finding:
        message = f"the boot log does not explain PCR {pcr}, so its events prove nothing"
        if golden:
            message += "; the golden events lead to the quoted value, so it is the log that is wrong"
        return rule_finding(head, Reason.BOOT_LOG_MISMATCH, Status.NOT_EVALUATED, message, pcr=pcr)

    def _event(self, rule: model.EventRule) -> Iterable[Finding]:
        if not self._trusted(rule.pcr):
            return (self._untrusted(rule.head, rule.pcr),)
        events = self._by_pcr.get(rule.pcr, [])
        if rule.occurs is model.Occurs.NEVER:
            return self._never(rule, events)
        if rule.name is None:
            digests = rule.accepted.digests if rule.accepted is not None else {}
            chosen = [event for event in events if event.digests[self._bank] in digests]
        else:
            chosen = [event for event in events if event.name == rule.name]
        wrong = [
            e
            for e in chosen
            if rule.accepted is not None and e.digests[self._bank] not in rule.accepted.digests
        ]
        findings = [self._mismatch(rule, event, rule.accepted) for event in wrong]
        if not chosen:
            findings.extend(self._absent(rule))
        if rule.occurs is model.Occurs.ONCE and len(chosen) > 1:
            message = f"{describe_event(chosen[1])} stands beside event {chosen[0].index}; one was expected"
            findings.append(
                rule_finding(rule.head, Reason.EVENT_UNEXPECTED, Status.FAILED, message, event=chosen[1])
            )
        return findings or (self._as_expected(rule, f"{len(chosen)} event(s) in PCR {rule.pcr} as expected"),)

    def _as_expected(self, rule: model.EventRule, message: str) -> Finding:
        return rule_finding(rule.head, Reason.EVENT_MATCHES, Status.PASSED, message, pcr=rule.pcr)

    def _absent(self, rule: model.EventRule) -> Iterable[Finding]:
        if rule.occurs is model.Occurs.OPTIONAL:
            return self._hidden(rule)
        what = rule.name or "with an accepted digest"
        expected = rule.accepted.describe() if rule.accepted else None
        message = f"no event {what} was measured into PCR {rule.pcr}"
        return (
            rule_finding(
                rule.head, Reason.EVENT_MISSING, Status.FAILED, message, pcr=rule.pcr, expected=expected
            ),
        )

    def _hidden(self, rule: model.EventRule) -> Iterable[Finding]:
        """Absence of a name is proven only where every event of the PCR has a proven one.

        Whoever edits an event's text takes its name away.
        """
        nameless = [event for event in self._by_pcr.get(rule.pcr, []) if event.binding is Binding.UNBOUND]
        if rule.name is None or not nameless:
            return ()
        message = f"{describe_event(nameless[0])} has no proven name, so it may be a {rule.name}"
        return (
            rule_finding(
                rule.head, Reason.EVENT_DATA_UNBOUND, Status.NOT_EVALUATED, message, event=nameless[0]
            ),
        )

    def _never(self, rule: model.EventRule, events: list[EventFact]) -> Iterable[Finding]:
        """A forbidden digest is forbidden under every name, for a forger can take the name away."""
        if rule.accepted is None:
            bad = [event for event in events if event.name == rule.name]
        else:
            bad = [event for event in events if event.digests[self._bank] in rule.accepted.digests]
        if not bad:
            hidden = tuple(self._hidden(rule)) if rule.accepted is None else ()
            return hidden or (self._as_expected(rule, f"no forbidden event in PCR {rule.pcr}"),)
        return [
            rule_finding(
                rule.head,
                Reason.EVENT_UNEXPECTED,
                Status.FAILED,
                f"{describe_event(event)} must not occur",
                event=event,
                actual=_shown(event, self._bank),
            )
            for event in bad
        ]

    def _mismatch(
        self,
        rule: model.EventRule | model.SequenceRule,
        event: EventFact,
        accepted: model.Accepted | None,
        label: str = "",
    ) -> Finding:
        message = f"{describe_event(event)} is not the golden one"
        return rule_finding(
            rule.head,
            Reason.EVENT_MISMATCH,
            Status.FAILED,
            message,
            event=event,
            expected=accepted.describe(label) if accepted else None,
            actual=_shown(event, self._bank),
        )

    def _sequence(self, rule: model.SequenceRule) -> Iterable[Finding]:
        if not self._trusted(rule.pcr):
            value = self._pcrs.get(rule.pcr)
            golden = value is not None and leads_to(rule, value, self._bank)
            return (self._untrusted(rule.head, rule.pcr, golden=golden),)
        events = self._by_pcr.get(rule.pcr, [])
        findings: list[Finding] = []
        for step_index, event_index in align(rule.steps, [event.digests[self._bank] for event in events]):
            step = rule.steps[step_index] if step_index is not None else None
            event = events[event_index] if event_index is not None else None
            findings.extend(self._place(rule, step, event))
        if findings:
            return findings
        message = f"the {len(events)} events of PCR {rule.pcr} are the golden ones, in order"
        return (rule_finding(rule.head, Reason.EVENT_MATCHES, Status.PASSED, message, pcr=rule.pcr),)

    def _place(
        self, rule: model.SequenceRule, step: model.Step | None, event: EventFact | None
    ) -> Iterable[Finding]:
        if step is None and event is not None:
            message = f"{describe_event(event)} is not in the golden sequence"
            actual = _shown(event, self._bank)
            yield rule_finding(
                rule.head,
                Reason.EVENT_UNEXPECTED,
                Status.FAILED,
                message,
                event=event,
                expected="nothing",
                actual=actual,
            )
        elif step is not None and event is None:
            if not step.optional:
                message = f"{step.label} was not measured into PCR {rule.pcr}"
                expected = step.accepted.describe(step.label)
                yield rule_finding(
                    rule.head,
                    Reason.EVENT_MISSING,
                    Status.FAILED,
                    message,
                    pcr=rule.pcr,
                    expected=expected,
                    actual="nothing",
                )
        elif (
            step is not None and event is not None and event.digests[self._bank] not in step.accepted.digests
        ):
            yield self._mismatch(rule, event, step.accepted, step.label)

    def _secure_boot(self, rule: model.SecureBootRule, boot: BootFacts) -> Finding:
        if not self._trusted(7) or boot.secure_boot.enabled is None:
            message = "no event bound to PCR 7 before its separator says whether Secure Boot is on"
            return rule_finding(rule.head, Reason.SECURE_BOOT_UNPROVEN, Status.NOT_EVALUATED, message, pcr=7)
        enabled = boot.secure_boot.enabled
        reason = Reason.SECURE_BOOT_ON if enabled else Reason.SECURE_BOOT_OFF
        message = f"Secure Boot was measured as {'on' if enabled else 'off'}"
        return rule_finding(
            rule.head,
            reason,
            Status.PASSED if enabled == rule.enabled else Status.FAILED,
            message,
            pcr=7,
            expected="on" if rule.enabled else "off",
            actual="on" if enabled else "off",
        )

    def _command_line(self, rule: model.CommandLineRule, boot: BootFacts) -> Iterable[Finding]:
        actual = boot.kernel_command_line
        if actual is None:
            message = "no measured digest covers a kernel command line that was sent"
            return (rule_finding(rule.head, Reason.COMMAND_LINE_UNPROVEN, Status.NOT_EVALUATED, message),)
        words = set(actual.split())
        problems: list[tuple[str, str]] = []
        if rule.any_of and actual not in rule.any_of:
            problems.append(
                ("the command line is not one of the golden ones", " | ".join(sorted(rule.any_of)))
            )
        problems.extend((f"{word!r} is missing", word) for word in sorted(rule.require - words))
        problems.extend((f"{word!r} is forbidden", f"not {word}") for word in sorted(rule.forbid & words))
        if not problems:
            message = "the proven kernel command line is as required"
            return (
                rule_finding(rule.head, Reason.COMMAND_LINE_MATCHES, Status.PASSED, message, actual=actual),
            )
        return [
            rule_finding(
                rule.head,
                Reason.COMMAND_LINE_MISMATCH,
                Status.FAILED,
                message,
                expected=expected,
                actual=actual,
            )
            for message, expected in problems
        ]
