"""The manual page of `attest-agent`, made of its parser, so that no option is missing or wrong in it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agent.cli import build_parser
from agent.version import VERSION

_BEFORE: Final = r"""
.SH NAME
attest\-agent \- prove to a vtpm\-attest verifier how this machine booted
.SH SYNOPSIS
.B attest\-agent
.I COMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
Gathers a quote of this machine's TPM 2.0 and the logs of its boot, sends them to a verifier, and shows the verdict. It decides
nothing itself.
.PP
.B attest\-agent.service
runs it at boot and then continuously; other units order themselves after
.BR attested.target .
""".lstrip("\n")

_AFTER: Final = r"""
.SH BOOT
A unit with
.IR Requires=attested.target ,
.I After=attested.target
and
.I WantedBy=attested.target
is started whenever the machine is attested; one with
.I WantedBy=multi\-user.target
if it is in time.
What counts is
.IR attested_on :
any "verdict" (the default) or an "affirming" one. Nothing waits longer than
.I attested_wait
seconds (90), and units after network\-online.target not longer than
.I ready_wait
(30).
.SH JOIN TOKEN
Sealed to the TPM of this machine:
.PP
.RS
systemd\-creds encrypt \-\-name=vtpm\-attest.join\-token \-\-tpm2\-pcrs=16 FILE /etc/credstore.encrypted/vtpm\-attest.join\-token
.RE
.PP
It is needed until the machine is enrolled.
.SH FILES
.TP
.I /etc/vtpm\-attest/agent.toml
Settings. Options come first, then variables such as VTPM_ATTEST_SERVER, then this file.
.TP
.I /var/lib/vtpm\-attest/agent.json
What the agent remembers. It holds no key.
.TP
.I /run/vtpm\-attest/verdict.json
The latest verdict in short, for programs of this machine.
.TP
.I /run/vtpm\-attest/attested
There while that verdict is what attested.target asks for.
.SH EXIT STATUS
0 affirming or done, 1 warning, 2 contraindicated, 3 none; 64 usage, 65 refused by the verifier, 66 no TPM, 69 verifier
unreachable, 71 TPM failed, 74 file unusable, 75 try later, 76 verifier not trusted, 77 no permission, 78 configuration.
.SH SEE ALSO
.BR systemd.unit (5),
.BR systemd\-creds (1)
""".lstrip("\n")


def manual() -> str:
    """The page, in man(7)."""
    commands = _commands(build_parser())
    having = {name: _options(command) for name, command in commands.items() if name != "completion"}
    common = [option for option in having["status"] if all(option in other for other in having.values())]
    network = [
        option
        for option in having["enroll"]
        if option not in common and all(option in having[name] for name in ("attest", "run"))
    ]
    lines = [
        f'.TH ATTEST\\-AGENT 1 "" "attest\\-agent {VERSION}" "User Commands"',
        _BEFORE.rstrip(),
        ".SH COMMANDS",
    ]
    for name, command in commands.items():
        own = [option for option in _options(command) if option not in common and option not in network]
        lines += [f".SS {_text(name)}", _text(command.description or ""), *_entries(own)]
    lines += [".SH OPTIONS OF EVERY COMMAND", *_entries(common)]
    lines += [".SH OPTIONS OF ENROLL, ATTEST AND RUN", *_entries(network)]
    return "\n".join([*lines, _AFTER])


Option = tuple[str, str, str]
"""Name, what it takes, and its help."""


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to walk a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return action.choices
    raise LookupError("a parser without commands")


def _options(command: argparse.ArgumentParser) -> list[Option]:
    return [
        (", ".join(action.option_strings) or action.dest.upper(), _takes(action), action.help or "")
        for action in command._actions  # noqa: SLF001
        if action.dest != "help"
    ]


def _takes(action: argparse.Action) -> str:
    if not action.option_strings:
        return "|".join(action.choices or ())
    return action.metavar if isinstance(action.metavar, str) else ""


def _entries(options: Iterable[Option]) -> Iterator[str]:
    for name, takes, text in options:
        yield ".TP"
        yield f'.BI {_text(name)} " {_text(takes)}"' if takes else f".B {_text(name)}"
        yield _text(text)


def _text(text: str) -> str:
    """As it is: a hyphen stays one that can be copied, and nothing at a line's start is a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
