"""The commands as a person or a program uses them: help, exit codes, JSON, and messages that say what to do."""

from __future__ import annotations

import json
import os
import re

import pytest

from agent import cli, commands, errors
from agent.bundle import parse_pcrs
from agent.cli import build_parser, main
from agent.errors import Exit, UsageError
from agent.tpm import find_tcti
from agent.wire.messages import AttestationReply, Challenge, Finding, PolicyRef, Verdict
from tests.fake_tpm import FakeTpm
from tests.fake_verifier import FakeVerifier, Refusal, make_ca
from tests.simulator import SoftwareTpm

CA = make_ca()
COMMANDS = ["enroll", "attest", "run", "wait", "collect", "status"]


@pytest.fixture
def verifier(tmp_path):
    with FakeVerifier(tmp_path, CA) as running:
        yield running


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """Options of a guest whose TPM is a fake."""
    machine = SoftwareTpm("cli")
    tpm = FakeTpm(machine, nv={0x01C0000A: machine.ek_certificate})
    monkeypatch.setattr(commands, "open_tpm", lambda _settings: tpm)
    return ["--state-dir", str(tmp_path / "state"), "--root", str(tmp_path)]


def out_json(capsys) -> dict:
    output = capsys.readouterr().out
    assert len(output.splitlines()) == 1, "one document and nothing else"
    return json.loads(output)


# --- help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_that_parses_and_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    (example,) = re.findall(r"^  attest-agent (.*)$", text, re.MULTILINE)
    assert build_parser().parse_args(example.split()).command == command
    assert "2 contraindicated" in text


def test_the_main_help_s_examples_parse(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    examples = re.findall(r"^  attest-agent (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [build_parser().parse_args(example.split()).command for example in examples] == [
        "enroll",
        "attest",
        "attest",
        "unseal",
        "run",
        "wait",
        "collect",
        "status",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["attest", "--onc"],
        ["collect"],
        ["enroll", "--wait", "long"],
        ["status", "--server", "x"],
    ],
)
def test_wrong_usage_is_64_never_the_code_of_a_verdict(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == Exit.USAGE
    assert capsys.readouterr().err


def test_every_error_has_its_own_exit_code_above_the_verdicts():
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AgentError)
    ]
    assert len(kinds) > 15
    assert all(kind.exit_code >= 64 for kind in kinds)


# --- enroll and attest


def test_enroll_attest_status_together(guest, verifier, capsys):
    assert main(["enroll", "--server", verifier.url, "--token", verifier.token, "--json", *guest]) == 0
    enrolled = out_json(capsys)
    assert enrolled["attester_id"] == "attester-1"
    assert main(["enroll", "--json", *guest]) == 0, "again: nothing to do"
    assert out_json(capsys) == enrolled
    assert sum(path == "/v1/enrollments" for path, _ in verifier.seen) == 1

    verifier.status = "contraindicated"
    assert main(["attest", "--once", "--json", *guest]) == Exit.CONTRAINDICATED
    assert out_json(capsys)["verdict"]["status"] == "contraindicated"

    assert main(["status", "--json", *guest]) == 0
    status = out_json(capsys)
    assert status["last_verdict"]["status"] == "contraindicated"
    assert status["ca_fingerprints"] == [CA.fingerprint.hex()]
    assert status["tpm"]["ek_certificates"] == ["ecc-p256"]
    assert status["ak"]["name"] == enrolled["ak_name"]


@pytest.mark.parametrize("status", ["affirming", "warning", "contraindicated", "none"])
def test_the_verdict_is_the_exit_code(guest, verifier, status):
    verifier.status = status
    code = main(["attest", "--once", "--server", verifier.url, "--token", verifier.token, *guest])
    assert code == {"affirming": 0, "warning": 1, "contraindicated": 2, "none": 3}[status]


def test_a_new_ak_is_remembered(guest, verifier, tmp_path):
    options = ["--server", verifier.url, "--token", verifier.token, *guest]
    assert main(["enroll", *options]) == 0
    assert main(["enroll", "--new-ak", *options]) == 0
    assert json.loads((tmp_path / "state" / "agent.json").read_text())["ak_generation"] == 1
    assert sum(path == "/v1/enrollments" for path, _ in verifier.seen) == 2


def test_settings_come_from_the_environment_too(guest, verifier, monkeypatch, tmp_path):
    file = tmp_path / "token"
    file.write_text(verifier.token + "\n")
    monkeypatch.setenv("VTPM_ATTEST_SERVER", verifier.url)
    monkeypatch.setenv("VTPM_ATTEST_TOKEN_FILE", str(file))
    assert main(["attest", "--once", *guest]) == 0


def test_a_refusal_shows_the_verifier_s_code_detail_and_remedy(guest, verifier, capsys):
    verifier.refuse("/v1/enrollments", Refusal(403, "join-token-invalid"))
    options = ["--server", verifier.url, "--token", verifier.token, "--json", *guest]
    assert main(["enroll", *options]) == Exit.REFUSED
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == error["problem"]["code"] == "join-token-invalid"
    assert "because the test says so" in captured.err
    assert "ask the test" in captured.err
    assert verifier.token not in captured.err + captured.out


def test_pending_is_try_later_and_the_next_try_needs_no_token(guest, verifier, capsys):
    verifier.pending = True
    options = ["--server", verifier.url, "--token", verifier.token, *guest]
    assert main(["enroll", *options]) == Exit.TRY_LATER
    assert "attestctl enrollments approve e0" in capsys.readouterr().err
    main(["status", "--json", *guest])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pending"] == {"enrollment_id": "e0", "code": "enrollment-pending"}
    main(["status", *guest])
    assert "e0 waits for an operator's approval" in capsys.readouterr().out
    verifier.pending = False
    assert main(["attest", "--once", *guest]) == 0
    main(["status", "--json", *guest])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pending"] is None


def test_one_try_does_not_wait_for_an_unreachable_verifier_and_names_it(guest, verifier, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_CLOCKWORK", commands.Clockwork(sleep=pytest.fail, random=lambda: 0.0))
    assert main(["attest", "--once", "--server", verifier.url, "--token", verifier.token, *guest]) == 0
    verifier.stop()
    assert main(["attest", "--once", *guest]) == Exit.UNREACHABLE
    assert f"verifier {verifier.url} is unreachable: connection refused" in capsys.readouterr().err


def test_without_once_it_keeps_trying_as_long_as_told(guest, verifier, capsys, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(cli, "_CLOCKWORK", commands.Clockwork(sleep=waits.append, random=lambda: 0.0))
    verifier.refuse("/v1/challenges", *[Refusal(503, "verifier-unavailable")] * 3)
    options = ["--server", verifier.url, "--token", verifier.token, *guest]
    assert main(["attest", "--wait", "60", *options]) == 0
    assert waits == [0.5, 1.0, 2.0]
    assert "next try in" in capsys.readouterr().err


# --- where things are missing


def test_nothing_configured(guest, capsys):
    assert main(["attest", "--once", "--json", *guest]) == Exit.CONFIG
    assert out_json(capsys)["error"]["remedy"].startswith("give --server")


def test_no_tpm(capsys, tmp_path):
    tcti = f"device:{tmp_path / 'tpmrm0'}"
    assert main(["status", "--tcti", tcti, "--state-dir", str(tmp_path)]) == Exit.NO_TPM
    assert "does not exist" in capsys.readouterr().out
    with pytest.raises(errors.NoTpmError, match="neither /dev/a nor /dev/b exists") as caught:
        find_tcti(None, {}, ("/dev/a", "/dev/b"))
    assert "add a vTPM" in caught.value.remedy


def test_no_permission(capsys, tmp_path, monkeypatch):
    device = tmp_path / "tpmrm0"
    device.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may everything
    assert main(["status", "--tcti", f"device:{device}", "--state-dir", str(tmp_path)]) == Exit.NO_PERMISSION
    assert "usermod -a -G tss" in capsys.readouterr().out


def test_no_tpm_library(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tpm2_pytss.ESAPI", None)
    assert main(["status", "--tcti", "swtpm:port=1", "--state-dir", str(tmp_path)]) == Exit.NO_TPM
    assert "vtpm-attest-agent[tpm]" in capsys.readouterr().out


def test_no_ek_certificate_is_a_note_not_the_end(verifier, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "open_tpm", lambda _settings: FakeTpm())
    options = ["--state-dir", str(tmp_path / "s"), "--root", str(tmp_path)]
    assert main(["enroll", "--server", verifier.url, "--token", verifier.token, *options]) == 0
    assert "note: no EK certificate in this TPM" in capsys.readouterr().err


def test_a_damaged_state_file(guest, tmp_path, capsys):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "agent.json").write_text("{")
    assert main(["status", *guest]) == Exit.CONFIG
    assert "is damaged" in capsys.readouterr().err


# --- collect


def test_collect_writes_to_a_file_or_stdout(guest, tmp_path, capsysbinary):
    assert main(["collect", "--out", "-", "--nonce", "00ff", "--pcrs", "0,7", *guest]) == 0
    bundle = json.loads(capsysbinary.readouterr().out)
    assert (bundle["nonce"], list(bundle["pcrs"]["sha256"])) == ("00ff", ["0", "7"])
    assert main(["collect", "--out", str(tmp_path / "no" / "folder"), *guest]) == Exit.IO


@pytest.mark.parametrize(
    "options", [["--nonce", "xy"], ["--nonce", "00" * 65], ["--pcrs", "0-24"], ["--pcrs", "a"]]
)
def test_collect_refuses_what_it_cannot_quote(guest, tmp_path, options):
    assert main(["collect", "--out", str(tmp_path / "b"), *options, *guest]) == Exit.USAGE
    assert not (tmp_path / "b").exists()


def test_pcr_lists():
    assert parse_pcrs("0-2,7, 14") == [0, 1, 2, 7, 14]
    for text in ("", "3-1", "-1", "1-", "0-99"):
        with pytest.raises(UsageError):
            parse_pcrs(text)


# --- verdicts for people


def test_a_verdict_shows_what_speaks_against_it():
    failed = Finding(
        code="pcr-mismatch",
        status="failed",
        severity="contraindicated",
        claim="executables",
        message="PCR 4 differs",
        expected="aa",
        actual="bb",
        remedy="boot the right kernel",
    )
    passed = Finding(code="quote-verified", status="passed", severity="info", claim="hardware", message="ok")
    verdict = Verdict(
        attester_id="a1",
        sequence=3,
        status="contraindicated",
        vector={},
        findings=[passed, failed],
        policy=PolicyRef(id="golden", revision="0123456789abcdef"),
        judged_at="t",
        valid_until="u",
    )
    challenge = Challenge(nonce=bytes(32), expires_at="", selection=[])
    text = commands.describe(AttestationReply(verdict=verdict, challenge=challenge, next_in=1.0, ear="e.y.J"))
    for part in (
        "contraindicated",
        "golden (0123456789ab)",
        "1 passed, 1 not",
        "PCR 4 differs",
        "expected: aa",
    ):
        assert part in text
    for part in ("found: bb", "remedy: boot the right kernel", "e.y.J"):
        assert part in text
    assert "quote-verified" not in text
