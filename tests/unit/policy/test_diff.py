"""What changed between two captured boots, and between two policies."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.policy.diff import Change, diff_boots, diff_policies
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_policy_source
from verifier.tcg.algorithms import HashAlg


def boot(name: str):
    return prove(read_bundle(ROOT / "policies" / "evidence" / name))


def changes(before: str, after: str):
    return [
        (c.change.value, c.pcr, c.before and c.before.index, c.after and c.after.index)
        for c in diff_boots(boot(before), boot(after), HashAlg.SHA256)
    ]


def test_two_boots_of_one_image_differ_only_where_ima_measures() -> None:
    assert [pcr for _, pcr, _, _ in changes("uki-sb-on-reboot-1", "uki-sb-on-reboot-2")] in ([], [10])


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (
            "uki-sb-on-initrd-modified",
            [("changed", 4, 24, 24), ("changed", 9, 34, 34), ("changed", 11, 32, 32)],
        ),
        (
            "uki-sb-on-cmdline-tampered",
            [("changed", 4, 24, 24), ("changed", 9, 33, 33), ("changed", 11, 30, 30)],
        ),
        ("uki-sb-on-extra-db-key", [("changed", 7, 7, 7)]),
        ("uki-sb-on-signed-by-second-key", [("changed", 7, 7, 7), ("changed", 7, 22, 22)]),
    ],
)
def test_a_tampered_boot_shows_just_what_was_tampered(after: str, expected: list) -> None:
    assert [change for change in changes("uki-sb-on", after) if change[1] != 10] == expected


def test_an_event_that_only_one_boot_has_is_added_or_removed() -> None:
    forth = changes("uki-sb-on", "uki-sb-off")
    back = changes("uki-sb-off", "uki-sb-on")
    assert ("added", 4, None, 32) in forth
    assert ("removed", 4, 32, None) in back


def test_the_proven_text_of_both_sides_is_there_to_be_shown() -> None:
    (change,) = [
        c
        for c in diff_boots(boot("uki-sb-on"), boot("uki-sb-on-cmdline-tampered"), HashAlg.SHA256)
        if c.pcr == 11
    ]
    assert change.before is not None
    assert change.after is not None
    assert "lockdown=none" not in (change.before.text or "lockdown=none")
    assert "lockdown=none" in (change.after.text or "")


def source(name: str) -> str:
    return read_policy_source(ROOT / "policies" / name).decode()


def test_equal_policies_do_not_differ() -> None:
    policy = parse_policy(source("uki-strict"))
    assert diff_policies(policy, policy) == ()


def test_policies_differ_by_the_place_that_was_edited() -> None:
    text = source("permissive")
    edited = text.replace("validity: 1h", "validity: 2h").replace("severity: warning", "severity: info", 1)
    found = {
        (c.change, c.where, c.before, c.after)
        for c in diff_policies(parse_policy(text), parse_policy(edited))
    }
    assert found == {
        (Change.CHANGED, "validity", "1:00:00", "2:00:00"),
        (Change.CHANGED, "rule secure-boot head.severity", "warning", "info"),
    }


def test_a_rule_only_one_policy_has_is_named() -> None:
    before, after = parse_policy(source("permissive")), parse_policy(source("uki-strict"))
    found = {(c.change, c.where) for c in diff_policies(before, after)}
    assert (Change.REMOVED, "rule lowered-guard") in found
    assert (Change.ADDED, "rule pcr-11") in found
    assert (Change.CHANGED, "boot_log") in found
