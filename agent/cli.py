"""`attest-agent`: enroll, attest, run, wait, collect, status."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from agent import commands
from agent.config import Settings, load
from agent.errors import AgentError, Exit, UsageError
from agent.version import VERSION

_EXIT_CODES: Final = """\
exit codes:
  0 affirming (or done)   1 warning   2 contraindicated   3 none
  64 usage   65 refused by the verifier   66 no TPM   69 verifier unreachable   71 TPM failed
  74 file unusable   75 try later (lockout, busy, pending)   76 verifier not trusted   77 no permission   78 configuration
"""
_EXAMPLES: Final = """\
examples:
  attest-agent enroll --server https://verifier.example:8443 --token vtj1.AAAA.BBBB
  attest-agent attest --once
  attest-agent attest --nonce 00112233445566778899aabbccddeeff --out evidence.json
  attest-agent unseal disk-web --out /run/disk.key
  attest-agent run
  attest-agent wait
  attest-agent collect --out bundle.json
  attest-agent status --json

Settings come from options, then VTPM_ATTEST_SERVER, VTPM_ATTEST_TOKEN, ..., then /etc/vtpm-attest/agent.toml.
"""
SHELLS: Final = ("bash", "zsh", "fish")
_COMPLETION: Final = """\
examples:
  attest-agent completion bash > /etc/bash_completion.d/attest-agent
  attest-agent completion zsh > "${fpath[1]}/_attest-agent"
  attest-agent completion fish > ~/.config/fish/completions/attest-agent.fish
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """With a width of its own: asking the terminal imports four compression modules on every start."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """Wrong usage exits with 64: 2 means contraindicated."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - argparse's own
        # An abbreviation in a unit file would break the day another option begins the same way.
        super().__init__(*arguments, **{**keywords, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(
        prog="attest-agent",
        description="Prove to a vtpm-attest verifier how this machine booted.",
        epilog=f"{_EXAMPLES}\n{_EXIT_CODES}",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"attest-agent {VERSION}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    common, network = _common(), _network()
    for name, (text, example, online, add_options) in _DESCRIPTIONS.items():
        command = subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  {example}\n\n{_EXIT_CODES}",
            formatter_class=_Formatter,
            parents=[common, network] if online else [common],
        )
        add_options(command.add_argument)
    completion = subparsers.add_parser(
        "completion",
        help="print the completion script for a shell",
        description="Print the script with which a shell completes this command.",
        epilog=_COMPLETION,
        formatter_class=_Formatter,
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")
    return parser


def _common() -> _Parser:
    """Options of every command."""
    parser = _Parser(add_help=False)
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="settings file (TOML)")
    add("--state-dir", metavar="DIR", help="what the agent remembers (default: /var/lib/vtpm-attest)")
    add("--tcti", metavar="TCTI", help="TPM, e.g. device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321")
    add("--root", metavar="DIR", help="read logs and identity below DIR instead of /")
    add("--ek", metavar="KIND", help="EK to use: auto (default), ecc-p256, ecc-p384-high, rsa-2048, ...")
    add(
        "--ak",
        metavar="KIND",
        help="AK to use: ecc-p256 (default), rsa-2048, or certified: the one a cloud or maker put into this TPM",
    )
    add("--json", action="store_true", help="one JSON document on stdout and nothing else")
    return parser


def _network() -> _Parser:
    """Options of the commands that talk to the verifier."""
    parser = _Parser(add_help=False)
    add = parser.add_argument
    add("--server", metavar="URL", help="the verifier, https://HOST[:PORT]")
    add("--token", metavar="TOKEN", help="join token (better: --token-file, or the environment)")
    add("--token-file", metavar="FILE", help="file with the join token")
    add("--ca-file", metavar="PEM", help="CA of the verifier, instead of the token's fingerprint")
    add(
        "--ak-certificate",
        metavar="FILE",
        help="ask for an AK certificate and keep it there (PEM, with its chain)",
    )
    add("--ear-file", metavar="FILE", help="ask for an EAR with each verdict and keep it there (mode 0600)")
    add("--ear-audience", metavar="NAME", help="for whom EARs are: the relying party they are shown to (aud)")
    add("--encoding", metavar="NAME", help="body of attestations: msgpack (default) or json")
    return parser


_Add = Callable[..., object]


def _enroll_options(add: _Add) -> None:
    add("--again", action="store_true", help="enrol anew although this machine is enrolled")
    add("--new-ak", action="store_true", help="with a new attestation key (implies --again)")
    add("--wait", metavar="SECONDS", type=float, default=0.0, help="keep trying this long (default: 0)")


def _attest_options(add: _Add) -> None:
    add("--once", action="store_true", help="one try, no waiting for network or verifier")
    add("--wait", metavar="SECONDS", type=float, default=300.0, help="else keep trying (default: 300)")
    add("--ear", action="store_true", help="ask for the signed attestation result (JWT) too")
    add(
        "--nonce",
        metavar="HEX|BASE64",
        help="evidence over this nonce of a relying party (8 to 64 bytes) instead; the verifier is not asked",
    )
    add("--out", metavar="FILE", help="with --nonce: bundle to write for the relying party, - for stdout")
    _pcr_options(add)


def _collect_options(add: _Add) -> None:
    add("--out", metavar="FILE", required=True, help="bundle to write, - for stdout")
    add("--nonce", metavar="HEX", help="1 to 64 bytes to quote over (default: 32 random bytes)")
    _pcr_options(add)


def _pcr_options(add: _Add) -> None:
    add("--bank", default="sha256", help="PCR bank of the bundle (default: sha256)")
    add("--pcrs", default="0-15", help="PCRs of the bundle, like 0-9,14 (default: 0-15)")


def _run_options(add: _Add) -> None:
    add(
        "--ready-wait",
        metavar="SECONDS",
        help="tell the service manager that it has started after so long without a verdict (default: 30)",
    )
    _standing_options(add)


def _wait_options(add: _Add) -> None:
    add("--attested-wait", metavar="SECONDS", help="give up after so long; or `forever` (default: 90)")
    _standing_options(add)


def _standing_options(add: _Add) -> None:
    add(
        "--attested-on",
        metavar="WHAT",
        help="what counts as attested: verdict (default; whichever it is) or affirming",
    )
    add("--runtime-dir", metavar="DIR", help="where verdict.json is (default for wait: /run/vtpm-attest)")


def _unseal_options(add: _Add) -> None:
    add("name", metavar="NAME", help="the secret, as the verifier's operator calls it")
    add(
        "--out",
        metavar="FILE",
        help="file to write it to, new and of mode 0600, instead of stdout",
    )
    add("--once", action="store_true", help="one try, no waiting for network or verifier")
    add("--wait", metavar="SECONDS", type=float, default=300.0, help="else keep trying (default: 300)")


def _no_options(_add: _Add) -> None:
    return


_DESCRIPTIONS: Final[Mapping[str, tuple[str, str, bool, Callable[[_Add], None]]]] = {
    "enroll": (
        "bind this TPM's attestation key to its endorsement key at the verifier",
        "attest-agent enroll --server https://verifier.example:8443 --token-file /run/join-token",
        True,
        _enroll_options,
    ),
    "attest": (
        "attest once and print the verdict; enrols first if a join token is given",
        "attest-agent attest --once --json",
        True,
        _attest_options,
    ),
    "unseal": (
        "get a secret that the verifier gives to this machine while it is affirming",
        "attest-agent unseal disk-web --out /run/disk.key",
        True,
        _unseal_options,
    ),
    "run": ("attest, and again whenever the verifier wants it", "attest-agent run", True, _run_options),
    "wait": (
        "wait until the agent of this machine has a verdict; what attested.target does",
        "attest-agent wait --attested-on affirming --attested-wait 60",
        False,
        _wait_options,
    ),
    "collect": (
        "write an offline bundle for `attestctl appraise`; no verifier needed",
        "attest-agent collect --out bundle.json --nonce 00112233445566778899aabbccddeeff",
        False,
        _collect_options,
    ),
    "status": (
        "what this agent knows: TPM, enrolment, trusted CA, last verdict",
        "attest-agent status",
        False,
        _no_options,
    ),
}
"""Command to its help, an example, whether it talks to the verifier, and its own options."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; every failure is explained on stderr and has its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.command == "completion":
            return _completion(arguments.shell)
        settings = _settings(arguments, os.environ)
        return _COMMANDS[arguments.command](arguments, settings)
    except AgentError as error:
        commands.explain(error, as_json=arguments.json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.IO


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    options = {
        name: value for name, value in vars(arguments).items() if value is None or isinstance(value, str)
    }
    return load(options, environ, arguments.config)


def _enroll(arguments: argparse.Namespace, settings: Settings) -> int:
    return commands.enroll(
        settings,
        again=arguments.again or arguments.new_ak,
        new_ak=arguments.new_ak,
        patience=arguments.wait,
        output=commands.Output(as_json=arguments.json),
        clockwork=_CLOCKWORK,
    )


def _attest(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.nonce is not None or arguments.out is not None:
        return _attest_to(arguments, settings)
    return commands.attest(
        settings,
        patience=0.0 if arguments.once else arguments.wait,
        want_ear=arguments.ear,
        output=commands.Output(as_json=arguments.json),
        clockwork=_CLOCKWORK,
    )


def _attest_to(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.bundle import attest_to, parse_nonce, parse_pcrs  # noqa: PLC0415 - not on the path of `attest --once`

    if arguments.nonce is None or arguments.out is None or arguments.ear:
        raise UsageError(
            "--nonce and --out go together, and without --ear",
            "give both to write evidence for a relying party, neither to attest to the verifier",
        )
    selection = {arguments.bank: parse_pcrs(arguments.pcrs)}
    output = commands.Output(as_json=arguments.json)
    return attest_to(settings, Path(arguments.out), parse_nonce(arguments.nonce), selection, output)


def _unseal(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.unseal import unseal  # noqa: PLC0415 - not on the path of `attest --once`

    return unseal(
        settings,
        arguments.name,
        None if arguments.out is None else Path(arguments.out),
        patience=0.0 if arguments.once else arguments.wait,
        output=commands.Output(as_json=arguments.json),
        clockwork=_CLOCKWORK,
    )


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.daemon import run_forever  # noqa: PLC0415 - not on the path of `attest --once`

    return run_forever(settings, commands.Output(as_json=arguments.json), _CLOCKWORK)


def _wait(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.wait import wait  # noqa: PLC0415 - not on the path of `attest --once`

    return wait(settings, commands.Output(as_json=arguments.json), _CLOCKWORK)


def _collect(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.bundle import collect, parse_pcrs  # noqa: PLC0415 - not on the path of `attest --once`

    try:
        nonce = bytes.fromhex(arguments.nonce) if arguments.nonce else os.urandom(32)
    except ValueError as error:
        raise UsageError(
            f"--nonce is not hexadecimal: {error}", "give 2 to 128 hexadecimal digits"
        ) from error
    selection = {arguments.bank: parse_pcrs(arguments.pcrs)}
    return collect(settings, Path(arguments.out), nonce, selection, commands.Output(as_json=arguments.json))


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    from agent.status import status  # noqa: PLC0415 - not on the path of `attest --once`

    return status(settings, commands.Output(as_json=arguments.json))


def _completion(shell: str) -> int:
    sys.stdout.write(Path(__file__).with_name("completions").joinpath(f"attest-agent.{shell}").read_text())
    sys.stdout.flush()
    return Exit.AFFIRMING


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace, Settings], int]]] = {
    "enroll": _enroll,
    "attest": _attest,
    "unseal": _unseal,
    "run": _run,
    "wait": _wait,
    "collect": _collect,
    "status": _status,
}
_CLOCKWORK: Final = commands.Clockwork(
    sleep=time.sleep, random=lambda: int.from_bytes(os.urandom(6)) / (1 << 48)
)

if __name__ == "__main__":
    sys.exit(main())
