"""A policy that would pass something in silence is refused, and the refusal says where."""

from __future__ import annotations

from datetime import timedelta

import pytest

from verifier.errors import PolicyError
from verifier.policy.model import PcrRule, SequenceRule
from verifier.policy.parse import parse_policy

A, B = "aa" * 32, "bb" * 32

GOOD = f"""
schema: vtpm-attest/policy/1
id: web
validity: 10m
quote: {{bank: sha256, pcrs: [0, 4, 10]}}
boot_log: required
rules:
  - id: firmware
    claim: hardware
    pcr: {{index: 0, any_of: ["{A}"]}}
  - id: boot-chain
    claim: executables
    severity: warning
    message: another loader ran
    sequence:
      pcr: 4
      steps:
        - {{label: loader, any_of: ["ref:images/loader"]}}
unjudged:
  - {{pcrs: [10], why: the kernel extends it while the guest runs}}
---
schema: vtpm-attest/reference-values/1
id: images
values:
  loader: {{digests: ["{B}"], note: release 7}}
"""


def test_a_policy_carries_its_rules_and_reference_values() -> None:
    policy = parse_policy(GOOD)
    assert (policy.id, policy.validity) == ("web", timedelta(minutes=10))
    firmware, chain = policy.rules
    assert isinstance(firmware, PcrRule)
    assert bytes.fromhex(A) in firmware.accepted.digests
    assert isinstance(chain, SequenceRule)
    assert chain.steps[0].accepted.digests == {bytes.fromhex(B): "release 7"}
    assert policy.unjudged == {10: "the kernel extends it while the guest runs"}


def test_any_changed_byte_is_another_revision() -> None:
    assert parse_policy(GOOD).revision != parse_policy(GOOD.replace("release 7", "release 8")).revision


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("severity: warning", "severity: warn", "rule boot-chain", "'warn' is not one of"),
        ("severity: warning", "sevrity: warning", "rules[1]", "unknown field `sevrity`"),
        ("validity: 10m", "validity: 10m\nvalidity: 20m", "line 5", "stands twice"),
        ("validity: 10m", "validity: 1s", "validity", "outside"),
        ("validity: 10m", "validity: soon", "validity", "not a duration"),
        ("pcrs: [0, 4, 10]", "pcrs: [0, 4, 9, 10]", "quote.pcrs", "PCR 9 is quoted but no"),
        ("pcrs: [0, 4, 10]", "pcrs: [0, 4]", "unjudged", "PCR 10 is listed as unjudged but is not quoted"),
        ("pcrs: [0, 4, 10]", "pcrs: [4, 10]", "rule firmware", "PCR 0 is judged but not quoted"),
        ("pcrs: [10]", "pcrs: [10, 4]", "unjudged", "judged by a rule and listed as unjudged"),
        ("bank: sha256", "bank: sha257", "quote.bank", "not known"),
        ("bank: sha256", "bank: sha384", "rule firmware", "a sha384 digest has 48"),
        ("ref:images/loader", "ref:images/laoder", "rule boot-chain step 0", "is not defined"),
        (f'["{A}"]', '["zz"]', "rule firmware", "not hexadecimal"),
        (f'["{A}"]', "[]", "rules[0].pcr.any_of", "length >= 1"),
        ("id: boot-chain", "id: firmware", "rule firmware", "two rules"),
        ("claim: hardware", "claim: hardwear", "rule firmware", "not one of"),
        ("boot_log: required", "boot_log: ignored", "rule boot-chain", "reads the boot log"),
        ("boot_log: required", "boot_log: &x required", None, None),
        ("policy/1", "policy/2", "schema", "write 'vtpm-attest/policy/1'"),
        ("  loader: {", '  spare: {digests: ["' + A + '"]}\n  loader: {', "values", "used by no rule"),
    ],
)
def test_what_would_mislead_is_refused_with_its_place(
    old: str, new: str, where: str | None, what: str | None
) -> None:
    changed = GOOD.replace(old, new, 1)
    assert changed != GOOD
    if what is None:  # an anchor alone is harmless
        parse_policy(changed)
        return
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed)
    assert what in caught.value.detail
    assert caught.value.structure == where


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("{id: r, claim: configuration}", "exactly one of"),
        ("{id: r, claim: configuration, secure_boot: maybe}", "write enabled or disabled"),
        ("{id: r, claim: configuration, command_line: {}}", "always pass"),
        (
            "{id: r, claim: configuration, command_line: {require: [x], forbid: [x]}}",
            "both required and forbidden",
        ),
        (
            "{id: r, claim: configuration, event: {pcr: 4, type: EV_IPL, any_of: [" + A + "]}}",
            "unknown field `type`",
        ),
        ("{id: r, claim: configuration, event: {pcr: 4, name: x}}", "accept every digest"),
        ("{id: r, claim: configuration, event: {pcr: 4}}", "needs a name"),
        (
            "{id: r, claim: configuration, event: {pcr: 4, occurs: optional, any_of: [" + A + "]}}",
            "would always pass",
        ),
        (
            "{id: r, claim: configuration, secure_boot: enabled, command_line: {forbid: [x]}}",
            "exactly one of",
        ),
    ],
)
def test_rules_that_say_nothing_or_two_things_are_refused(rule: str, what: str) -> None:
    with pytest.raises(PolicyError, match=what):
        parse_policy(GOOD.replace("unjudged:", f"  - {rule}\nunjudged:"))


def test_yaml_aliases_cannot_blow_up() -> None:
    bomb = "a: &a [x, x]\n" + "\n".join(f"b{i}: [*a, *a, *a]" for i in range(50))
    with pytest.raises(PolicyError, match="aliases are not allowed"):
        parse_policy(bomb)


@pytest.mark.parametrize(
    "source",
    [b"\xff\xfe\x00", b"{", b"- - - [", b"[" * 100_000, b"? [a]\n: b", b"x: !!python/object:os.system y"],
)
def test_bytes_that_are_no_policy_get_the_typed_error(source: bytes) -> None:
    with pytest.raises(PolicyError):
        parse_policy(source)


def test_reference_values_alone_are_no_policy() -> None:
    with pytest.raises(PolicyError, match="no policy document"):
        parse_policy(GOOD.split("---")[1])


def test_two_policies_in_one_source_are_refused() -> None:
    with pytest.raises(PolicyError, match="exactly one policy"):
        parse_policy(GOOD + "\n---\n" + GOOD.split("---", maxsplit=1)[0])


@pytest.mark.parametrize("digest", ["0" * 64, "1e5" + "0" * 61, "12" * 32, "0o1" + "2" * 61])
def test_a_digest_without_quotes_stays_the_text_it_is(digest: str) -> None:
    """YAML would read the first as 0 and the second as a float."""
    source = GOOD.replace(f'"{A}"', digest)
    if "o" in digest:
        with pytest.raises(PolicyError, match="not hexadecimal"):
            parse_policy(source)
        return
    (firmware, _) = parse_policy(source).rules
    assert isinstance(firmware, PcrRule)
    assert list(firmware.accepted.digests) == [bytes.fromhex(digest)]
