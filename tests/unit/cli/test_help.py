"""`--help`: every command has examples, and every example is a call that the command understands."""

from __future__ import annotations

import io
import shlex

import pytest
from rich.console import Console

from verifier.cli import attest_verifier, attestctl

APPS = {"attestctl": attestctl.app, "attest-verifier": attest_verifier.app}


def commands(app, path=()):
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        inner = list(commands(command, (*path, name)))
        yield from inner or [(*path, name)]


ALL = [(program, *path) for program, app in APPS.items() for path in commands(app)]


def help_of(program, *path) -> str:
    stream = io.StringIO()
    APPS[program].help_print(list(path), console=Console(file=stream, width=400))
    return stream.getvalue()


def example_lines(program, *path):
    text = help_of(program, *path)
    return [line.strip() for line in text.splitlines() if line.strip().startswith(" ".join((program, *path)))]


def test_there_are_commands():
    assert len(ALL) > 15


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_has_examples_that_it_understands(command):
    program, *path = command
    lines = example_lines(program, *path)
    assert lines, f"{' '.join(command)} --help shows no example"
    for line in lines:
        # `$(...)`, pipes and comments are the shell's; what is before them is ours.
        call = shlex.split(line.split(" | ")[0].split(" > ")[0], comments=True)[1:]
        APPS[program].parse_args(call, exit_on_error=False, print_error=False)
