"""`attest-verifier` as an operator meets it: output, exit codes, and messages that name the next step."""

from __future__ import annotations

import json
import re
import sys

import pytest

from verifier.cli import attest_verifier


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command; gives exit code, stdout and stderr."""
    monkeypatch.setenv("VTPM_ATTEST_VERIFIER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attest-verifier", *arguments])
        code = 0
        try:
            attest_verifier.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_join_token_is_printed_alone_with_the_line_to_paste_beside_it(run):
    code, out, err = run("tokens", "create", "--scope", "join", "--uses", "3", "--label", "web")
    assert code == 0
    assert re.fullmatch(r"vtj1\.[\w-]{43}\.[\w-]{43}\n", out)
    assert f"attest-agent enroll --server https://127.0.0.1:8443 --token {out.strip()}" in err
    code, listed, _ = run("tokens", "list", "--json")
    (token,) = json.loads(listed)
    assert (token["scopes"], token["label"], token["uses_left"]) == (["join"], "web", 3)
    assert token["expires_at"] is not None  # a join token lives 24 h unless told otherwise
    assert out.split(".")[1] not in listed


def test_json_is_one_document_on_stdout(run):
    code, out, _ = run("tokens", "create", "--scope", "dashboard", "--scope", "relying-party", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["token"].startswith("vta1.")
    assert made["scopes"] == ["dashboard", "relying-party"]
    assert made["expires_at"] is None
    code, out, _ = run("keys", "rotate", "--json")
    assert set(json.loads(out)) == {"kid", "retiring"}
    code, out, _ = run("openapi")
    assert json.loads(out)["openapi"] == "3.1.0"


def test_tokens_of_another_tenant_are_made_listed_and_revoked_with_its_name_alone(run):
    _, out, _ = run("tokens", "create", "--scope", "admin", "--tenant", "globex", "--json")
    made = json.loads(out)
    assert made["tenant"] == "globex"
    assert json.loads(run("tokens", "list", "--json")[1]) == []
    assert "'default' has no tokens" in run("tokens", "list")[2]
    (listed,) = json.loads(run("tokens", "list", "--tenant", "globex", "--json")[1])
    assert listed["id"] == made["id"]
    code, _, err = run("tokens", "revoke", made["id"])
    assert (code, made["id"] in err) == (65, True)
    assert run("tokens", "revoke", made["id"], "--tenant", "globex")[0] == 0
    assert json.loads(run("tokens", "list", "--tenant", "globex", "--json")[1])[0]["revoked_at"]


def test_a_token_is_revoked_by_its_id(run):
    _, out, _ = run("tokens", "create", "--scope", "admin", "--json")
    token_id = json.loads(out)["id"]
    assert run("tokens", "revoke", token_id)[0] == 0
    assert "revoked" in run("tokens", "list")[1]
    code, _, err = run("tokens", "revoke", "tok-nobody")
    assert (code, "tok-nobody" in err) == (65, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tokens", "create", "--scope", "root"], 64, "Choose from"),
        (["tokens", "create"], 64, "--scope"),
        (["tokens", "create", "--scope", "join", "--scope", "admin"], 65, "`join` alone"),
        (["tokens", "create", "--scope", "admin", "--uses", "2"], 65, "join tokens"),
        (["tokens", "create", "--scope", "admin", "--tenant", "no name"], 65, "no name of a tenant"),
        (["tokens", "create", "--scope", "join", "--uses", "0"], 64, "at least 1"),
        (["tokens", "create", "--scope", "join", "--expires", "soon"], 64, "90s, 5m, 24h or 30d"),
        (["serve", "--workers", "0"], 64, "between 1 and 256"),
        (["serve", "--config", "/nowhere.toml"], 78, "/nowhere.toml"),
        (["fly"], 64, "fly"),
    ],
)
def test_mistakes_are_told_in_one_line_with_an_exit_code(run, arguments, code, words):
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_database_that_cannot_be_used_is_named_without_its_password(run, monkeypatch):
    monkeypatch.setenv("VTPM_ATTEST_VERIFIER_DATABASE", "mysql://user:hunter2@host/db")
    code, _, err = run("tokens", "list")
    assert code == 69
    assert "sqlite" in err
    assert "hunter2" not in err


def test_a_state_directory_that_cannot_be_made_is_named(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VTPM_ATTEST_VERIFIER_STATE_DIR", str(tmp_path / "file" / "state"))
    code, _, err = run("db", "upgrade")
    assert code == 69
    assert str(tmp_path / "file") in err


def test_the_examples_of_the_help_are_commands_that_parse(run):
    """Help that does not work is worse than none."""
    text = "".join(run(*group, "--help")[1] for group in ([], ["tokens", "create"]))
    examples = re.findall(r"^ +attest-verifier (.+)$", text, re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        attest_verifier.app.parse_args(example.split(), exit_on_error=False, print_error=False)


def test_the_version_is_printed(run):
    assert re.fullmatch(r"attest-verifier \d+\.\d+\.\d+\n?", run("--version")[1])
