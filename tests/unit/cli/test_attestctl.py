"""attestctl offline: what it prints, how it exits, and what it says when it cannot."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tests.conftest import ROOT
from verifier.cli.attestctl import main
from verifier.cli.fleet import State
from verifier.policy.parse import parse_policy
from verifier.web.messages import AttestersQuery

EVIDENCE = ROOT / "policies" / "evidence"
STRICT = str(ROOT / "policies" / "uki-strict")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    from rich.console import Console

    from verifier.cli import output

    monkeypatch.setattr(output, "out", Console(highlight=False, width=200))
    monkeypatch.setattr(output, "err", Console(stderr=True, highlight=False, width=200))

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("scenario", "code", "status"),
    [("uki-sb-on", 0, "affirming"), ("uki-sb-on-cmdline-tampered", 2, "contraindicated")],
)
def test_appraise_exits_with_the_verdict_and_prints_one_document(
    run: Run, scenario: str, code: int, status: str
) -> None:
    left, out, err = run("appraise", str(EVIDENCE / scenario), "--policy", STRICT, "--ak-trusted", "--json")
    assert (left, err) == (code, "")
    document = json.loads(out)
    assert document["status"] == status
    assert {finding["code"] for finding in document["findings"]} >= {"ak-unproven", "freshness-assumed"}


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version")[:2] == (0, f"attestctl {version('vtpm-attest')}\n")


def test_appraise_answers_none_unless_the_ak_is_trusted(run: Run) -> None:
    assert run("appraise", str(EVIDENCE / "uki-sb-on"), "--policy", STRICT)[0] == 3


def test_appraise_tells_people_what_was_expected_what_was_found_and_what_to_do(run: Run) -> None:
    _, out, _ = run(
        "appraise", str(EVIDENCE / "uki-sb-on-cmdline-tampered"), "--policy", STRICT, "--ak-trusted"
    )
    assert "expected:" in out
    assert "found:" in out
    assert "lockdown=none" in out
    assert "next:" in out
    assert "checks passed; --all lists them" in out


def test_appraise_all_lists_what_passed(run: Run) -> None:
    _, out, _ = run("appraise", str(EVIDENCE / "uki-sb-on"), "--policy", STRICT, "--ak-trusted", "--all")
    assert "quote-verified" in out


def bundle(**changes: object) -> dict[str, object]:
    folder = EVIDENCE / "uki-sb-on"

    def b64(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    meta = json.loads((folder / "meta.json").read_text())
    document: dict[str, object] = {
        "format": "vtpm-attest/bundle/1",
        "nonce": meta["nonce"],
        "ak_public": b64("ak_ecc.pub"),
        "quote": {"attest": b64("quote_ecc.msg"), "signature": b64("quote_ecc.sig")},
        "pcrs": json.loads((folder / "pcrs.json").read_text()),
        "boot_log": b64("binary_bios_measurements"),
        "kernel_command_line": meta["cmdline"],
        "identity": {"smbios_uuid": None},
    }
    return {key: value for key, value in (document | changes).items() if value is not ...}


def test_a_bundle_file_is_judged_like_the_folder_it_came_from(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle()))
    assert run("appraise", str(path), "--policy", STRICT, "--ak-trusted")[0] == 0


BAD_BUNDLES = {
    "another format": (bundle(format="x"), "format is 'x'"),
    "no quote": (bundle(quote=...), "has no 'quote'"),
    "no base64": (bundle(ak_public="%%%"), "'ak_public' is not what it should be"),
    "no hex": (bundle(nonce="xyz"), "'nonce' is not what it should be"),
    "pcrs of another shape": (bundle(pcrs=[1]), "'pcrs' is not what it should be"),
    "cut quote": (bundle(quote={"attest": "AAAA", "signature": "AAAA"}), "TPMT_SIGNATURE at byte"),
    "cut log": (bundle(boot_log="AAAA"), "TCG event log at byte"),
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
def test_a_bundle_that_cannot_be_read_names_the_file_and_the_field(
    run: Run, tmp_path: Path, name: str
) -> None:
    document, says = BAD_BUNDLES[name]
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(document))
    code, out, err = run("appraise", str(path), "--policy", STRICT, "--ak-trusted")
    assert (code, out) == (65, "")
    assert says in err


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_file_that_is_no_bundle_is_an_input_error(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(content)
    assert run("appraise", str(path), "--policy", STRICT)[0] == 65


def test_an_absent_file_is_an_input_error(run: Run) -> None:
    code, _, err = run("appraise", "no-such-file", "--policy", STRICT)
    assert code == 65
    assert "No such file" in err


def test_policy_lint_refuses_what_would_pass_in_silence(run: Run, tmp_path: Path) -> None:
    assert run("policy", "lint", STRICT)[0] == 0
    text = (ROOT / "policies" / "permissive" / "policy.yaml").read_text()
    broken = tmp_path / "policy.yaml"
    broken.write_text(text.replace("pcrs: [0, 1, 2", "pcrs: [0, 1, 2, 15", 1))
    code, _, err = run("policy", "lint", str(broken))
    assert code == 65
    assert "PCR 15 is quoted" in err
    assert json.loads(run("policy", "lint", str(broken), "--json")[1])["ok"] is False


def test_policy_learn_writes_a_policy_that_accepts_what_it_learned_from(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "web" / "policy.yaml"
    code, _, _ = run("policy", "learn", str(EVIDENCE / "grub-sb-on"), "--out", str(out))
    assert code == 0
    assert run("appraise", str(EVIDENCE / "grub-sb-on"), "--policy", str(out.parent), "--ak-trusted")[0] == 0
    assert (
        run(
            "appraise",
            str(EVIDENCE / "grub-sb-on-cmdline-tampered"),
            "--policy",
            str(out.parent),
            "--ak-trusted",
        )[0]
        == 2
    )
    single = tmp_path / "one.yaml"
    run("policy", "learn", str(EVIDENCE / "grub-sb-on"), "--out", str(single))
    assert parse_policy(single.read_bytes()).id == "one"


def test_policy_learn_takes_no_evidence_whose_quote_does_not_hold(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle(nonce="00" * 32)))
    code, _, err = run("policy", "learn", str(path), "--out", str(tmp_path / "p.yaml"))
    assert code == 65
    assert "another nonce" in err
    assert not (tmp_path / "p.yaml").exists()


def test_policy_diff_exits_with_whether_something_differs(run: Run) -> None:
    good = str(EVIDENCE / "uki-sb-on")
    assert run("policy", "diff", good, good) == (0, "no difference\n", "")
    code, out, _ = run("policy", "diff", good, str(EVIDENCE / "uki-sb-on-extra-db-key"), "--json")
    assert code == 1
    assert {(change["pcr"], change["after_index"]) for change in json.loads(out)["changes"]} >= {(7, 7)}
    assert run("policy", "diff", STRICT, str(ROOT / "policies" / "permissive"))[0] == 1
    assert run("policy", "diff", STRICT, good)[0] == 65


def test_policy_explain_gives_every_event_its_rule(run: Run) -> None:
    code, out, _ = run(
        "policy", "explain", str(EVIDENCE / "uki-sb-on-cmdline-tampered"), "--policy", STRICT, "--json"
    )
    assert code == 1
    events = json.loads(out)["events"]
    measured = [event for event in events if event["binding"] != "unmeasured"]
    assert all(event["rules"] or event["why_unjudged"] for event in measured)
    assert [event["index"] for event in events if event["findings"]] == [24, 30, 33]
    assert run("policy", "explain", str(EVIDENCE / "uki-sb-on"), "--policy", STRICT)[0] == 0


@pytest.mark.parametrize(
    "arguments", [["appraise"], ["nonsense"], ["appraise", "x", "--policy"], ["policy", "diff", "x"]]
)
def test_usage_errors_leave_the_verdict_codes_alone(run: Run, arguments: list[str]) -> None:
    assert run(*arguments)[0] == 64


@pytest.mark.parametrize(
    "command", [[], ["appraise"], ["policy", "learn"], ["verdict"], ["eventlog"], ["ek", "check"]]
)
def test_help_has_an_example_that_names_the_command(run: Run, command: list[str]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert f"attestctl {' '.join(command)}".strip() in out


def test_the_states_attesters_are_listed_by_are_those_of_the_api():
    known = {name for part in get_args(get_type_hints(AttestersQuery)["status"]) for name in get_args(part)}
    assert set(get_args(State)) == known
