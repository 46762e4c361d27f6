"""The published schema and the examples of docs/policy.md are what the parser takes."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.conftest import ROOT
from tests.unit.policy.test_catalogue import captured
from tests.unit.policy.test_parse import GOOD
from verifier.findings import Status
from verifier.policy.document import RULE_KINDS
from verifier.policy.evaluate import evaluate
from verifier.policy.parse import check_policy
from verifier.policy.schema import policy_schema
from verifier.policy_files import find_policies

GUIDE = (ROOT / "docs" / "policy.md").read_text()
SCHEMA = Draft202012Validator(policy_schema())


def blocks(info: str) -> list[str]:
    return re.findall(rf"^```{info}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(policy_schema())
    assert json.loads((ROOT / "docs" / "policy.schema.json").read_text()) == policy_schema()


@pytest.mark.parametrize("policy", find_policies(ROOT / "policies"), ids=lambda path: path.name)
def test_shipped_policies_are_valid_under_the_schema(policy) -> None:
    for file in [policy / "policy.yaml", *policy.glob("reference-values*.yaml")]:
        for document in yaml.load_all(file.read_text(), yaml.BaseLoader):
            SCHEMA.validate(typed(document))


def typed(value: object) -> object:
    """What our loader makes of plain scalars."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    words = {"true": True, "false": False}
    return words.get(value, int(value) if re.fullmatch(r"0|[1-9][0-9]{0,5}", value) else value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("severity: warning", "severity: warn"),
        ("severity: warning", "sevrity: warning"),
        ("claim: hardware", "claim: hardwear"),
        ("bank: sha256", "bank: sha257"),
        ("pcrs: [0, 4, 10]", "pcrs: [0, 4, 24]"),
        ("validity: 10m", "validity: soon"),
        ("policy/1", "policy/2"),
        ("    pcr: {index: 0,", "    secure_boot: enabled\n    pcr: {index: 0,"),
        ("    message: another loader ran\n", "    message: another loader ran\n    cel: ''\n"),
    ],
)
def test_what_the_parser_refuses_an_editor_marks(old: str, new: str) -> None:
    good, bad = GOOD.split("---")[0], GOOD.split("---")[0].replace(old, new, 1)
    assert good != bad
    assert SCHEMA.is_valid(typed(yaml.load(good, yaml.BaseLoader)))
    assert not SCHEMA.is_valid(typed(yaml.load(bad, yaml.BaseLoader)))
    assert check_policy(bad)[0] is None


def test_the_guides_policy_has_no_problem() -> None:
    (example,) = blocks("yaml")
    policy, problems = check_policy(example)
    assert policy is not None
    assert problems == ()


def guide_rules() -> str:
    rules = "".join(blocks("yaml rules"))
    (references,) = blocks("yaml references")
    return (
        "schema: vtpm-attest/policy/1\nid: guide\nquote: {pcrs: [2, 4, 7, 8, 9, 11, 12, 13]}\nrules:\n"
        f"{rules}unjudged:\n- {{pcrs: [2, 7, 8, 9, 11, 12, 13], why: judged by what their events say}}\n---\n{references}"
    )


def test_the_guides_rules_are_sound_and_judge_a_real_boot() -> None:
    policy, problems = check_policy(guide_rules())
    assert policy is not None
    assert problems == ()
    findings = evaluate(policy, captured("uki-sb-on"))
    assert {finding.rule for finding in findings if finding.status is not Status.PASSED} == set()


def test_the_guide_shows_every_kind_of_rule() -> None:
    shown = "".join([*blocks("yaml"), *blocks("yaml rules")])
    for kind in RULE_KINDS:
        assert re.search(rf"^ *(- )?{kind}:", shown, re.MULTILINE), kind


def test_the_guide_names_only_claims_and_commands_that_are_there() -> None:
    from verifier.policy.catalogue import CATALOGUE

    named = set(re.findall(r"\b(?:boot|quote|identity)\.[a-z_.]+[a-z]", GUIDE))
    claims = {name for name in named if not name.startswith("quote.pcrs")}
    assert {
        name
        for name in claims
        if not any(known.startswith(name) or name.startswith(known) for known in CATALOGUE)
    } == set()
