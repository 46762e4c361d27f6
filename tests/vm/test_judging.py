"""How scenarios are judged, without booting anything."""

from __future__ import annotations

from tests.conftest import ROOT
from tests.vm.judging import Expected, differences, findings
from tests.vm.scenarios import SCENARIOS

MODULE = {
    "code": "ima-module-unknown",
    "status": "failed",
    "severity": "contraindicated",
    "message": "/lib/modules/a.ko is not among the known modules",
}
EVENT = {
    "code": "event-mismatch",
    "status": "failed",
    "severity": "contraindicated",
    "rule": "pcr-9",
    "message": "another",
    "expected": "00ff (EV_EVENT_TAG Linux initrd)",
}
PASSED = {
    "code": "event-matches",
    "status": "passed",
    "severity": "contraindicated",
    "rule": "pcr-4",
    "message": "",
}
NOTED = {"code": "boot-log-quirk", "status": "failed", "severity": "info", "message": ""}
SEEN = ("event-mismatch pcr-9: Linux initrd", "ima-module-unknown /lib/modules/a.ko")


def verdict(*found, status="contraindicated"):
    return {"status": status, "lifecycle": "enrolled", "findings": list(found)}


def test_findings_are_named_so_that_one_cannot_pass_for_another():
    assert findings(verdict(MODULE, PASSED, EVENT, NOTED)) == SEEN


def test_a_verdict_is_as_expected_only_with_exactly_these_findings():
    expected = Expected("contraindicated", SEEN)
    assert differences(expected, verdict(EVENT, MODULE)) == []
    assert differences(expected, verdict(EVENT)) == ["not found: ima-module-unknown /lib/modules/a.ko"]
    assert differences(expected, verdict(EVENT, EVENT, MODULE)) == [
        "not expected: event-mismatch pcr-9: Linux initrd"
    ]


def test_a_verdict_of_another_tier_or_of_a_stale_attester_is_not_as_expected():
    assert differences(Expected("affirming"), verdict(status="warning")) == ["warning instead of affirming"]
    stale = verdict(status="affirming") | {"lifecycle": "stale"}
    assert differences(Expected("affirming"), stale) == ["stale instead of enrolled"]


def test_make_test_boots_the_good_guest_and_three_tampered_ones():
    quick = [one for one in SCENARIOS if one.quick]
    assert [one.expected[-1].tier for one in quick] == ["affirming"] + ["contraindicated"] * 3
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)


def test_the_documentation_has_every_scenario():
    told = (ROOT / "docs" / "vm-tests.md").read_text()
    assert [one.name for one in SCENARIOS if f"`{one.name}`" not in told] == []
