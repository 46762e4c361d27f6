"""`--json`, colours, bars and errors: what holds for every command, asked of every command."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from agent.cli import build_parser
from tests import archives
from tests.conftest import ROOT
from tests.terminal import ESCAPE, Terminal
from tests.unit.cli.test_help import ALL, APPS, example_lines

BIN = Path(sys.executable).parent
EVIDENCE = ROOT / "policies" / "evidence"
STRICT = ROOT / "policies" / "uki-strict"
NO_JSON = {
    "attest-verifier serve": "runs until it is stopped",
    "attest-verifier openapi": "prints one JSON document anyway",
    "attestctl policy schema": "prints one JSON document anyway",
    "attestctl completion": "prints a script for a shell",
    "attest-verifier completion": "prints a script for a shell",
    "attest-agent completion": "prints a script for a shell",
}
SERVES = {"attest-verifier serve", "attestctl guard"}
PRINTING = [command for command in ALL if " ".join(command) not in {*NO_JSON, *SERVES}]


def agent_commands():
    (inner,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return inner.choices


def options(program, *path):
    app = APPS[program]
    for name in path:
        app = app[name]
    return {name for argument in app.assemble_argument_collection() for name in argument.names}


def test_every_command_takes_json_or_is_excused():
    without = {" ".join(command) for command in ALL if "--json" not in options(*command)}
    without |= {
        f"attest-agent {name}"
        for name, parser in agent_commands().items()
        if "--json" not in parser._option_string_actions
    }
    assert without == set(NO_JSON)


def run(*command, cwd=None, env=None):
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        capture_output=True, text=True, check=False, cwd=cwd, env=env, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """One of Python's commands in this process; gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTPM_ATTEST_VERIFIER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ATTESTCTL_SERVER", "https://127.0.0.1:1")
    mains = {"attestctl": "verifier.cli.attestctl", "attest-verifier": "verifier.cli.attest_verifier"}

    def calling(program, *arguments):
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        code = 0
        try:
            __import__(mains[program], fromlist=["main"]).main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return calling


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_with_json_stdout_has_one_document_or_nothing(command, call):
    """Each example of each command's help, on a machine where neither its files nor a verifier are."""
    for line in example_lines(*command):
        words = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)
        if "--config" in words:
            del words[(at := words.index("--config")) : at + 2]
        if "--server" in words:
            del words[(at := words.index("--server")) : at + 2]
        code, out, err = call(*words, *(() if "--json" in words else ("--json",)))
        assert "Traceback" not in err
        if out:
            json.loads(out)
        else:
            assert code >= 64, f"{line} --json said nothing, and that all is well"
            assert err.strip(), f"{line} --json failed without a word"


OFFLINE = [
    (0, "attestctl", "policy", "lint", STRICT, "--json"),
    (1, "attestctl", "policy", "diff", STRICT, ROOT / "policies" / "permissive", "--json"),
    (2, "attestctl", "policy", "dry-run", STRICT, EVIDENCE / "uki-sb-on-cmdline-tampered", "--json"),
    (0, "attestctl", "policy", "learn", EVIDENCE / "uki-sb-on", "--out", "made.yaml", "--json"),
    (0, "attestctl", "appraise", EVIDENCE / "uki-sb-on", "--policy", STRICT, "--ak-trusted", "--json"),
    (0, "attest-verifier", "db", "upgrade", "--json"),
    (0, "attest-verifier", "keys", "rotate", "--json"),
    (0, "attest-verifier", "keys", "log", "--json"),
    (0, "attest-verifier", "keys", "rotate-log", "--json"),
    (0, "attest-verifier", "tokens", "list", "--json"),
]


@pytest.mark.parametrize("case", OFFLINE, ids=lambda case: " ".join(map(str, case[1:4])))
def test_with_json_success_is_one_document_too(case, call):
    expected, *words = case
    code, out, err = call(*map(str, words))
    assert code == expected, err
    json.loads(out)


def test_a_token_is_revoked_and_a_policy_signed_with_json(call, tmp_path):
    made = json.loads(call("attest-verifier", "tokens", "create", "--scope", "admin", "--json")[1])
    revoked = json.loads(call("attest-verifier", "tokens", "revoke", made["id"], "--json")[1])
    assert revoked == {"id": made["id"], "revoked": True}
    key = tmp_path / "signer.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    code, out, err = call(
        "attestctl", "policy", "sign", str(STRICT), "--key", str(key), "--out", "s.json", "--json"
    )
    assert code == 0, err
    signed = json.loads(out)
    assert (signed["out"], signed["id"], len(signed["signers"])) == ("s.json", "uki-strict", 1)
    assert (tmp_path / "s.json").is_file()


# --- colours and bars


DRY_RUN = ("policy", "dry-run", STRICT, EVIDENCE / "uki-sb-on", EVIDENCE / "uki-sb-on-cmdline-tampered")


async def on_terminal(*command, **environ):
    screen = Terminal()
    env = {"PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "HOME": "/nonexistent", **environ}
    await screen.run(partial(asyncio.create_subprocess_exec, BIN / "attestctl", *command, env=env))
    await screen.end()
    return screen.text


async def test_colours_and_bars_are_for_terminals_alone():
    shown = await on_terminal(*DRY_RUN)
    assert f"{ESCAPE}1;31mcontraindicated" in shown
    assert "judging again" in shown
    plain = await on_terminal(*DRY_RUN, NO_COLOR="1")
    assert "contraindicated" in plain
    assert f"{ESCAPE}1;31m" not in plain
    piped = run("attestctl", *DRY_RUN)
    assert "contraindicated" in piped.stdout
    assert ESCAPE not in piped.stdout + piped.stderr
    assert "judging again" not in piped.stdout + piped.stderr


async def test_a_bar_while_learning(tmp_path):
    learn = ("policy", "learn", EVIDENCE / "uki-sb-on", EVIDENCE / "uki-sb-on-reboot-1", "--out")
    shown = await on_terminal(*learn, tmp_path / "made.yaml")
    assert "reading boots" in shown
    assert "2/2" in shown
    assert "\x1b" not in run("attestctl", *learn, tmp_path / "made.yaml").stderr


async def test_a_bar_while_packages_are_hashed(tmp_path):
    for number in (1, 2):
        archives.deb(tmp_path / str(number), {"/opt/x": bytes(100_000)}, Package=f"p{number}")
    make = ("runtime", "make", "deb", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "made.rtset")
    assert "2/2 p2_xz.deb" in await on_terminal(*make)
    assert "\x1b" not in run("attestctl", *make).stderr


# --- errors name the next step


BAD_YAML = "schema: [1\n"
ERRORS = [
    (["appraise", "gone.json", "--policy", STRICT], 65, ["gone.json", "name a file that is there"]),
    (["appraise", EVIDENCE / "uki-sb-on", "--policy", "gone"], 65, ["gone", "name a file that is there"]),
    (["appraise", EVIDENCE / "uki-sb-on", "--policy", "bad.yaml"], 65, ["bad.yaml, line", "policy lint"]),
    (["appraise", "bad.yaml", "--policy", STRICT], 65, ["bad.yaml: is not JSON", "attest-agent collect"]),
    (["eventlog", "gone.bin"], 64, ["gone.bin: No such file", "name a file that is there"]),
    (["policy", "lint", "gone"], 65, ["gone", "name a file that is there"]),
    (
        ["policy", "learn", EVIDENCE / "uki-sb-on", "--out", "/proc/nowhere/p.yaml"],
        74,
        ["cannot write", "--out"],
    ),
    (["status"], 69, ["cannot reach https://127.0.0.1:1", "is it running, is the port right?"]),
    (["status", "--server", "http://x"], 64, ["pass --server https://HOST:PORT"]),
    (["status", "--server", "https://x:99999"], 64, ["pass https://HOST:PORT"]),
    (["status", "--ca", "gone.pem"], 64, ["gone.pem", "tls/ca.pem in the verifier's state folder"]),
    (["statsu"], 64, ['Did you mean "status"']),
]


@pytest.mark.parametrize(("words", "code", "parts"), ERRORS, ids=lambda part: str(part)[:40])
def test_an_error_names_what_it_is_about_and_the_next_step(words, code, parts, call, tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD_YAML)
    got, out, err = call("attestctl", *map(str, words))
    assert (got, out) == (code, "")
    text = " ".join(err.split())
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["tokens", "list", "--config", "gone.toml"], 78, ["gone.toml", "--config", "docs/settings.md"]),
        (["tokens", "list", "--config", "bad.toml"], 78, ["bad.toml: not TOML", "docs/settings.md"]),
        (["anchors", "import", "gone.zip"], 69, ["gone.zip: No such file", "name a file that is there"]),
        (["tokens", "revoke", "tok-gone"], 65, ["tok-gone"]),
    ],
    ids=lambda part: str(part)[:40],
)
def test_the_same_on_the_verifier_s_machine(words, code, parts, call, tmp_path):
    (tmp_path / "bad.toml").write_text("x = \n")
    got, out, err = call("attest-verifier", *words)
    assert (got, out) == (code, "")
    for part in parts:
        assert part in " ".join(err.split())
