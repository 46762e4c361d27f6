"""`wait`, and the files it looks at: what other programs of a machine learn of how it was judged."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from agent.cli import main
from agent.commands import Clockwork, Output
from agent.config import load
from agent.errors import NotAttestedError
from agent.standing import StandingFiles
from agent.wait import wait
from agent.wire.messages import AttestationReply, Challenge, Verdict

NOW = datetime.now(UTC).replace(microsecond=0)


def reply(
    status: str = "affirming", *, valid: timedelta = timedelta(hours=1), until: str | None = None
) -> AttestationReply:
    verdict = Verdict(
        attester_id="a-1",
        sequence=3,
        status=status,
        vector={},
        findings=[],
        policy=None,
        judged_at=NOW.isoformat(),
        valid_until=until or (NOW + valid).isoformat(),
    )
    challenge = Challenge(nonce=bytes(32), expires_at=NOW.isoformat(), selection=[])
    return AttestationReply(verdict=verdict, challenge=challenge, next_in=60.0)


def files(folder, on="verdict") -> StandingFiles:
    return StandingFiles(folder, on)


def waits(folder, *options: str) -> int:
    return main(["wait", "--runtime-dir", str(folder), "--attested-wait", "0", *options])


@pytest.mark.parametrize(
    ("on", "status", "code"),
    [
        ("verdict", "affirming", 0),
        ("verdict", "warning", 0),
        ("verdict", "contraindicated", 0),
        ("verdict", "none", 0),
        ("affirming", "affirming", 0),
        ("affirming", "warning", 75),
        ("affirming", "contraindicated", 75),
        ("affirming", "none", 75),
    ],
)
def test_attested_is_any_verdict_or_an_affirming_one(tmp_path, capsys, on, status, code):
    files(tmp_path, on).judged(reply(status))
    assert waits(tmp_path, "--attested-on", on) == code
    assert (tmp_path / "attested").exists() == (code == 0)
    said = capsys.readouterr()
    assert status in (said.err if code else said.out)


def test_nothing_is_attested_before_a_verdict_or_where_the_file_is_broken(tmp_path, capsys):
    assert waits(tmp_path) == 75
    assert waits(tmp_path / "nowhere") == 75
    (tmp_path / "verdict.json").write_text("{")
    assert waits(tmp_path) == 75
    assert capsys.readouterr().err.count("no verdict came") == 3


def test_a_verdict_that_has_ended_is_none(tmp_path, capsys):
    standing = files(tmp_path)
    standing.judged(reply(valid=-timedelta(seconds=1)))
    assert waits(tmp_path) == 75
    assert "ended at" in capsys.readouterr().err
    standing.tidy(time.time())
    assert not (tmp_path / "attested").exists()


def test_a_verdict_until_no_time_at_all_does_not_last(tmp_path):
    files(tmp_path).judged(reply(until="soon"))
    assert waits(tmp_path) == 75


def test_a_verdict_that_lasts_stays(tmp_path):
    standing = files(tmp_path)
    standing.judged(reply())
    standing.tidy(time.time())
    assert (tmp_path / "attested").exists()


def test_a_worse_verdict_takes_attested_away_and_a_better_one_brings_it_back(tmp_path):
    standing = files(tmp_path, "affirming")
    seen = []
    for status in ("affirming", "contraindicated", "affirming"):
        standing.judged(reply(status))
        seen.append((tmp_path / "attested").exists())
    assert seen == [True, False, True]


def test_other_users_may_read_both_files(tmp_path):
    files(tmp_path).judged(reply())
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "attested": 0o644,
        "verdict.json": 0o644,
    }


def test_it_waits_until_the_verdict_comes(tmp_path, capsys):
    settings = load({"runtime_dir": str(tmp_path), "attested_wait": "forever"}, {}, None)
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            files(tmp_path).judged(reply())

    assert wait(settings, Output(as_json=True), Clockwork(sleep, lambda: 0.0)) == 0
    assert len(pauses) == 3
    assert json.loads(capsys.readouterr().out)["sequence"] == 3


def test_it_gives_up_after_its_time(tmp_path):
    settings = load({"runtime_dir": str(tmp_path), "attested_wait": "0.05"}, {}, None)
    with pytest.raises(NotAttestedError, match=r"within 0\.05 s"):
        wait(settings, Output(as_json=False), Clockwork(time.sleep, lambda: 0.0))
