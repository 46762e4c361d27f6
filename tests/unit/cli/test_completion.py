"""Completion in real shells, with the scripts that the three commands print."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PROGRAMS = ("attest-agent", "attest-verifier", "attestctl")
CASES = [
    ("attestctl", ["wa"], {"watch"}),
    ("attestctl", ["webhooks", "re"], {"remove", "redeliver"}),
    ("attestctl", ["policy", "dry"], {"dry-run"}),
    ("attestctl", ["events", "--fo"], {"--follow"}),
    ("attestctl", ["attesters", "--status", "re"], {"revoked", "retired"}),
    ("attestctl", ["webhooks", "deliveries", "--status", ""], {"pending", "delivered", "dead"}),
    ("attest-verifier", ["tok"], {"tokens"}),
    ("attest-verifier", ["tokens", "create", "--scope", "rel"], {"relying-party"}),
    ("attest-agent", ["co"], {"collect", "completion"}),
    ("attest-agent", ["attest", "--on"], {"--once"}),
    ("attest-agent", ["completion", ""], {"bash", "zsh", "fish"}),
]
IDS = [" ".join((program, *words)) for program, words, _ in CASES]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Program and shell to a file with what the program prints for it."""
    folder = tmp_path_factory.mktemp("completion")
    made = {}
    for program in PROGRAMS:
        for shell in ("bash", "fish", "zsh"):
            done = subprocess.run([BIN / program, "completion", shell], capture_output=True, check=True)
            made[program, shell] = folder / f"{program}.{shell}"
            made[program, shell].write_bytes(done.stdout)
    return made


def shell(name, script, *arguments, cwd=None):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"SKIPPED FOR WANT OF A SHELL: {name} is not installed")
    done = subprocess.run(
        [path, *arguments, "-c", script], capture_output=True, text=True, check=False, cwd=cwd, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


BASH = """
source {script}
words=$(complete -p {program})
function=${{words##*-F }}; function=${{function%% *}}
COMP_WORDS=({program} {words}); COMP_CWORD={index}; COMP_LINE={line}; COMP_POINT={point}
$function {program} {last} {previous}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def bash_completes(script, program, words, cwd=None):
    line = shlex.quote(" ".join((program, *words)))
    text = BASH.format(
        script=shlex.quote(str(script)),
        program=program,
        words=" ".join(map(shlex.quote, words)),
        index=len(words),
        line=line,
        point=len(line),
        last=shlex.quote(words[-1]),
        previous=shlex.quote([program, *words][-2]),
    )
    return {
        line.strip()
        for line in shell("bash", text, "--norc", "--noprofile", cwd=cwd).splitlines()
        if line.strip()
    }


@pytest.mark.parametrize(("program", "words", "expected"), CASES, ids=IDS)
def test_bash_completes(scripts, program, words, expected):
    assert bash_completes(scripts[program, "bash"], program, words) == expected


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("attestctl", ["status", "--ca", "a-fi"]),
        ("attest-verifier", ["serve", "--config", "a-fi"]),
        ("attest-agent", ["run", "--ca-file", "a-fi"]),
    ],
    ids=lambda part: part if isinstance(part, str) else None,
)
def test_bash_completes_files_where_a_file_is_wanted(scripts, tmp_path, program, words):
    (tmp_path / "a-file.pem").touch()
    assert bash_completes(scripts[program, "bash"], program, words, tmp_path) == {"a-file.pem"}


@pytest.mark.parametrize(("program", "words", "expected"), CASES, ids=IDS)
def test_fish_completes(scripts, program, words, expected):
    asked = shlex.quote(" ".join((program, *words)))
    text = f"source {scripts[program, 'fish']}; complete -C {asked}"
    found = {line.split("\t")[0] for line in shell("fish", text, "--no-config").splitlines()}
    assert expected <= found


@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_takes_the_script(scripts, tmp_path, program):
    script = scripts[program, "zsh"]
    shell("zsh", f"zsh -f -n {script}", "-f")
    shutil.copy(script, tmp_path / f"_{program}")
    text = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; print -r -- $_comps[{program}]"
    assert shell("zsh", text, "-f").strip() == f"_{program}"
