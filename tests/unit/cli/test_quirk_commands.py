"""A captured boot with a deviant log, from `policy learn` to `appraise`: learned in words, judged as a warning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.deviant import Deviants, event, written
from tests.event_logs import CAPTURES
from verifier.cli import attestctl
from verifier.tcg.event_types import EventType

WHY = "its boot loader writes a record that it does not extend"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        attestctl.main([str(argument) for argument in arguments])
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A real quote, and a log with one record more than was extended into PCR 9."""
    folder = tmp_path / "guest"
    shutil.copytree(CAPTURES / "uki-sb-on", folder)
    deviants = Deviants((folder / "binary_bios_measurements").read_bytes())
    extra = event(deviants.log, 9, EventType.EV_IPL, b"never extended")
    (folder / "binary_bios_measurements").write_bytes(written(deviants.log, [*deviants.events, extra]))
    return folder


@pytest.fixture
def learned(guest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "learned.yaml"
    assert run("policy", "learn", guest, "--out", path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tolerates extra-tail-events in PCR 9: The log goes on where the PCR does not" in printed
    return path


def appraised(guest: Path, policy: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run("appraise", guest, "--policy", policy, "--ak-trusted", "--json")
    return code, json.loads(capsys.readouterr().out)


def test_learned_it_is_a_warning_and_says_so(
    guest: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = appraised(guest, learned, capsys)
    (finding,) = (each for each in document["findings"] if each["status"] == "failed")
    assert (code, document["status"]) == (1, "warning")
    assert (finding["code"], finding["quirk"], finding["pcr"]) == ("boot-log-quirk", "extra-tail-events", 9)
    assert "tolerated" in finding["message"]


def test_the_good_sibling_needs_no_leave(
    guest: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = appraised(CAPTURES / "uki-sb-on", learned, capsys)
    assert (code, document["status"]) == (0, "affirming")


def test_without_the_entry_it_is_contraindicated(
    guest: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = learned.read_text()
    head, _, tail = text.partition("tolerate:")
    rest = tail.partition("---")[2]
    learned.write_text(f"{head}---{rest}" if rest else head)
    code, document = appraised(guest, learned, capsys)
    (finding,) = (each for each in document["findings"] if each["status"] == "failed")
    assert (code, finding["code"], finding["quirk"]) == (2, "boot-log-mismatch", "extra-tail-events")


def test_lint_shows_what_is_tolerated_and_diff_what_became_so(
    guest: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy", "lint", learned) == 0
    assert "extra-tail-events in PCR 9 is tolerated (warning)" in " ".join(capsys.readouterr().out.split())
    strict = tmp_path / "strict.yaml"
    assert run("policy", "learn", CAPTURES / "uki-sb-on", "--id", "learned", "--out", strict) == 0
    capsys.readouterr()
    assert run("policy", "diff", strict, learned, "--json") == 1
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert ("added", "tolerate extra-tail-events PCR 9") in {
        (each["change"], each["where"]) for each in changes
    }


def test_explain_names_the_quirk_at_its_event(
    guest: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("policy", "explain", guest, "--policy", learned, "--json")
    document = json.loads(capsys.readouterr().out)
    (row,) = (row for row in document["events"] if row["findings"])
    assert row["findings"][0]["quirk"] == "extra-tail-events"
    last = document["events"][-1]
    assert last["why_unjudged"].startswith("unproven, the log has extra-tail-events in this PCR (tolerated")
