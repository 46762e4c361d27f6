"""`attestctl ima`: one JSON document for programs, a table for people, errors with an offset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.ima_kernel import ImaKernel
from verifier.cli import attestctl
from verifier.cli.output import EXIT_DATA
from verifier.tcg.ima.parse import parse_list

SAMPLE = ROOT / "policies" / "evidence" / "uki-sb-on"
LIST = SAMPLE / "binary_runtime_measurements"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        attestctl.main(["ima", *map(str, arguments)])
    assert isinstance(raised.value.code, int)
    return raised.value.code


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    assert run(*arguments, "--json") == code
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict[str, Any] = json.loads(printed.out)
    return found


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "list"
    path.write_bytes(data)
    return path


def pcr_file(tmp_path: Path, kernel: ImaKernel) -> Path:
    path = tmp_path / "pcrs.json"
    banks = {
        bank: {str(pcr): value.hex() for pcr, value in values.items()} for bank, values in kernel.pcrs.items()
    }
    path.write_text(json.dumps(banks))
    return path


def test_the_document_has_the_promised_parts(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, LIST)
    true = json.loads((SAMPLE / "pcrs.json").read_text())
    assert found["template"] == "ima-sig"
    assert found["entries"] == 380
    assert found["violations"] == 0
    assert found["boot_aggregate"].startswith("sha256:533aea218f04e156")
    assert found["findings"] == []
    assert found["leads_to"] is None
    for bank in ("sha1", "sha256"):
        assert found["pcrs"][bank]["10"] == true[bank]["10"]
    assert found["padded_pcrs"]["sha256"]["10"] != true["sha256"]["10"]


def test_held_against_the_pcrs_it_was_captured_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, LIST, "--pcrs", SAMPLE)
    assert [(one["bank"], one["after_entries"], one["rule"]) for one in found["leads_to"]] == [
        ("sha1", 380, "own-hash"),
        ("sha256", 380, "own-hash"),
    ]
    assert found["boot_aggregates"][0]["pcrs"] == "agrees"


def test_a_list_that_ran_ahead_leads_there_with_what_came_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kernel = ImaKernel(padded=True)
    kernel.measure("/bin/x", "x")
    values = pcr_file(tmp_path, kernel)
    kernel.measure("/bin/y", "y")
    found = document(capsys, written(tmp_path, kernel.ascii), "--pcrs", values)
    assert found["format"] == "ascii"
    assert {(one["bank"], one["after_entries"], one["rule"]) for one in found["leads_to"]} == {
        ("sha1", 2, "own-hash"),
        ("sha256", 2, "padded-sha1"),
    }
    assert run(tmp_path / "list", "--pcrs", values) == 0
    shown = capsys.readouterr().out
    assert "2 entries lead to the value given" in shown
    assert "1 came later" in shown


def test_a_list_of_another_boot_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kernel, other = (
        ImaKernel(),
        ImaKernel(
            boot={"sha1": {i: bytes(20) for i in range(10)}, "sha256": {i: bytes(32) for i in range(10)}}
        ),
    )
    found = document(capsys, written(tmp_path, kernel.list), "--pcrs", pcr_file(tmp_path, other), code=1)
    assert [one["after_entries"] for one in found["leads_to"]] == [None, None]
    assert found["boot_aggregates"][0]["pcrs"] == "differs"
    assert run(tmp_path / "list", "--pcrs", tmp_path / "pcrs.json") == 1
    assert "no part of the list leads to the value given" in capsys.readouterr().out


def test_oddities_are_findings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kernel = ImaKernel(template="ima-sig")
    kernel.violation("/var/log/x")
    kernel.measure("/bin/x", "x")
    edited = kernel.list.replace(b"/bin/x", b"/bin/y")
    found = document(capsys, written(tmp_path, edited + edited[:30]))
    assert [(one["code"], one.get("event_index")) for one in found["findings"]] == [
        ("ima-template-digest", 2),
        ("ima-violation", None),
        ("ima-list-cut", 3),
    ]
    assert "/bin/y" in found["findings"][0]["message"]
    assert found["violations"] == 1


def test_the_table_shows_names_harmlessly(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kernel = ImaKernel()
    for number in range(60):
        kernel.measure(f"/bin/{number}", "x")
    kernel.measure("/tmp/[red]\x1b[31m", "x")
    assert run(written(tmp_path, kernel.list)) == 0
    shown = capsys.readouterr().out
    assert "/tmp/[red]\\x1b[31m" in shown
    assert "/bin/3\n" not in shown
    assert run(tmp_path / "list", "--all") == 0
    assert "/bin/3 " in capsys.readouterr().out


def test_what_is_no_list_is_refused_with_an_offset(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(written(tmp_path, b"\x7fELF" + bytes(100))) == EXIT_DATA
    assert "IMA measurement list at byte 0" in capsys.readouterr().err
    assert run(tmp_path / "absent") >= 64


def test_an_empty_list_is_a_list(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = document(capsys, written(tmp_path, b""))
    assert (found["entries"], found["template"], found["boot_aggregate"]) == (0, None, None)


POLICY = """\
schema: vtpm-attest/policy/1
id: runs
description: what the sample ran, and nothing else
validity: 15m
quote: {{pcrs: [7, 10]}}
runtime:
  sets: [{{sha256: {sha256}, name: sample}}]
rules:
  - {{id: secure-boot, severity: contraindicated, claim: configuration, secure_boot: enabled}}
  - {{id: measures, severity: contraindicated, claim: executables, cel: runtime.known > 100 && runtime.boot_aggregate}}
unjudged: [{{pcrs: [7], why: the rules read what they need of it}}]
"""


def attestctl_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as raised:
        attestctl.main([*map(str, arguments), "--json"])
    assert isinstance(raised.value.code, int)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return raised.value.code, found


def test_a_set_made_from_a_good_boot_judges_the_next_ones_offline(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raw = LIST.read_bytes()
    last = parse_list(raw).entries[-1]
    for name, content, expected in (
        ("whole", raw, "affirming"),
        ("short", raw[: last.offset], "contraindicated"),
    ):
        source, made, policy = (tmp_path / f"{name}{end}" for end in ("", ".rtset", ".yaml"))
        source.write_bytes(content)
        code, summary = attestctl_json(
            capsys, "runtime", "make", "ima", source, "--name", "sample", "--out", made
        )
        assert code == 0
        policy.write_text(POLICY.format(sha256=summary["sha256"]))
        boot = SAMPLE.parent / "uki-sb-on-reboot-2"
        _, found = attestctl_json(capsys, "appraise", boot, "--policy", policy, "--ak-trusted")
        assert found["status"] == expected
        assert found["runtime"]["boot_aggregate"] is True
        unknown = [one for one in found["findings"] if one["code"] == "ima-file-unknown"]
        assert found["runtime"]["unknown"] == len(unknown) == (name == "short")
        assert all(last.fields.path in one["message"] for one in unknown)
