"""`make demo`: a verifier and three guests, each with a software TPM fresh from the factory.

Guest 1 boots as captured on a real machine and is affirming. Guest 2 booted with a tampered kernel command
line and is contraindicated. Guest 3 is a forger with a key in software and is refused. Everything runs on
loopback and below `.demo/`; `--keep` leaves the verifier up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.forger import Forgery, forge
from tests.swtpm import Swtpm, manufacture, replay_boot_log

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_WORK = ROOT / ".demo"
BIN = Path(sys.executable).parent
EVIDENCE = ROOT / "policies" / "evidence"
POLICY = "uki-strict"
START_SECONDS = 30.0
TIERS = {"affirming": "green", "contraindicated": "red", "warning": "yellow", "none": "magenta"}
console = Console(highlight=False)


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    guest: str
    story: str
    outcome: str
    reason: str


def main() -> int:
    """Run the demo; 0 when all three guests fared as they must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the verifier running")
    keep = parser.parse_args().keep
    shutil.rmtree(DEFAULT_WORK, ignore_errors=True)
    DEFAULT_WORK.mkdir()
    with ExitStack() as stack:
        tpms = [stack.enter_context(guest_tpm(DEFAULT_WORK, number)) for number in (1, 2, 3)]
        verifier = stack.enter_context(Verifier.running(DEFAULT_WORK, keep=keep))
        rows, ear, wrong = play(verifier, tpms)
        show(rows, ear)
        if keep:
            tell_how_to_go_on(verifier)
    if wrong:
        console.print(f"[bold red]the demo did not end as it must:[/] {', '.join(wrong)}")
    return 1 if wrong else 0


@contextmanager
def guest_tpm(work: Path, number: int) -> Iterator[Swtpm]:
    """A new TPM with EK certificates from the demo's own TPM vendor, powered on."""
    console.print(f"guest {number}: manufacturing a TPM with EK certificates")
    made = manufacture(work / f"guest{number}" / "tpm", work / "tpm-vendor-ca")
    with Swtpm(made.state) as tpm:
        yield tpm


def play(verifier: Verifier, tpms: list[Swtpm]) -> tuple[list[Row], str, list[str]]:
    """The three stories. Returns the table, the EAR of guest 1 and which stories went wrong."""
    good = attest(verifier, tpms[0], 1, "uki-sb-on")
    bad = attest(verifier, tpms[1], 2, "uki-sb-on-cmdline-tampered")
    console.print("guest 3: enrolling with attestation keys made in software")
    honest, lying = forge(tpms[2].tcti, verifier.url, verifier.join_token)
    rows = [
        Row("1 web-01", "booted as captured", good["verdict"]["status"], explain(good["verdict"])),
        Row("2 web-02", "kernel command line tampered", bad["verdict"]["status"], explain(bad["verdict"])),
        Row("3 forger", honest.story, f"refused ({honest.status})", f"{honest.code}: {honest.detail}"),
        Row("3 forger", lying.story, f"refused ({lying.status})", f"{lying.code}: {lying.detail}"),
    ]
    return rows, good["ear"], unexpected(good["verdict"], bad["verdict"], honest, lying)


def unexpected(good: dict[str, Any], bad: dict[str, Any], honest: Forgery, lying: Forgery) -> list[str]:
    """Which stories did not end as they must."""
    event = next((f for f in bad["findings"] if f.get("pcr") == 11 and f["status"] == "failed"), {})
    checks = {
        "guest 1 is affirming": good["status"] == "affirming",
        "guest 2 is contraindicated": bad["status"] == "contraindicated",
        "guest 2's finding names the event and both values": {"event_index", "expected", "actual"}
        <= event.keys(),
        "the software AK is refused": honest.code == "ak-attributes",
        "the lying software AK is refused": lying.code == "activation-failed",
    }
    return [name for name, holds in checks.items() if not holds]


def attest(verifier: Verifier, tpm: Swtpm, number: int, scenario: str) -> dict[str, Any]:
    """Boot a guest as captured, enrol it and attest once; the agent's own JSON answer."""
    evidence = EVIDENCE / scenario
    events = replay_boot_log(tpm.tcti, (evidence / "binary_bios_measurements").read_bytes())
    console.print(f"guest {number}: booted ({events} events of {scenario} measured into its PCRs), enrolling")
    root = guest_root(verifier.work, number, evidence)
    options = [
        "--tcti",
        tpm.tcti,
        "--root",
        str(root),
        "--state-dir",
        str(verifier.work / f"guest{number}" / "agent"),
    ]
    run_agent("enroll", *options, "--server", verifier.url, "--token", verifier.join_token, "--json")
    answer: dict[str, Any] = run_agent("attest", "--once", *options, "--ear", "--json")
    console.print(f"guest {number}: {paint(answer['verdict']['status'])}")
    return answer


def guest_root(work: Path, number: int, evidence: Path) -> Path:
    """What the agent reads of a guest: its boot log and who it says it is."""
    root = work / f"guest{number}" / "root"
    command_line = json.loads((evidence / "meta.json").read_text())["cmdline"]
    files = {
        "sys/kernel/security/tpm0/binary_bios_measurements": (
            evidence / "binary_bios_measurements"
        ).read_bytes(),
        "sys/class/dmi/id/product_uuid": f"{uuid.uuid4()}\n".encode(),
        "proc/cmdline": f"{command_line}\n".encode(),
        "proc/sys/kernel/hostname": f"web-{number:02d}\n".encode(),
        "proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n".encode(),
        "etc/machine-id": f"{uuid.uuid4().hex}\n".encode(),
        "etc/os-release": b'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def run_agent(*arguments: str) -> Any:
    """Run `attest-agent`; its exit code is the verdict, so only codes above 3 are failures."""
    done = subprocess.run([BIN / "attest-agent", *arguments], capture_output=True, text=True, check=False)
    if done.returncode > 3:
        raise SystemExit(f"attest-agent {arguments[0]} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Verifier:
    """The running service and the credentials made for the demo."""

    work: Path
    url: str
    config: Path
    ca: Path
    join_token: str
    dashboard_token: str
    process: subprocess.Popen[bytes]

    @classmethod
    @contextmanager
    def running(cls, work: Path, *, keep: bool = False, more: str = "") -> Iterator[Verifier]:
        """Configure (with `more` TOML at the end) and start a verifier; stop it at the end unless it is to be kept."""
        state = work / "verifier"
        port = free_port()
        config = work / "verifier.toml"
        config.write_text(configuration(work, port) + more)
        console.print(f"verifier: starting on https://127.0.0.1:{port} (own CA, SQLite)")
        with (work / "verifier.log").open("wb") as log:
            process = subprocess.Popen(
                [BIN / "attest-verifier", "serve", "--config", str(config)],
                stdout=log,
                stderr=log,
                start_new_session=keep,
            )
        try:
            ca = state / "tls" / "ca.pem"
            wait_until_ready(process, f"https://127.0.0.1:{port}/readyz", ca, work / "verifier.log")
            join = token(config, "join", "--uses", "10", "--expires", "1h")
            yield cls(
                work, f"https://127.0.0.1:{port}", config, ca, join, token(config, "dashboard"), process
            )
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


def configuration(work: Path, port: int) -> str:
    """The demo's settings; see docs/settings.md for what each means."""
    return "\n".join(
        (
            f'state_dir = "{work / "verifier"}"',
            (
                f'trust_anchors = ["{work / "tpm-vendor-ca" / "swtpm-localca-rootca-cert.pem"}",'
                f' "{work / "tpm-vendor-ca" / "issuercert.pem"}"]'
            ),
            f'policies_dir = "{ROOT / "policies"}"',
            f'default_policy = "{POLICY}"',
            "[listen]",
            f"port = {port}",
            "[attestation]",
            'interval = "1m"',
            "",
        )
    )


def token(config: Path, scope: str, *options: str) -> str:
    """Create a token with the verifier's own command."""
    command = [
        BIN / "attest-verifier",
        "tokens",
        "create",
        "--config",
        config,
        "--scope",
        scope,
        *options,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"attest-verifier tokens create failed:\n{done.stderr}")
    return str(json.loads(done.stdout)["token"])


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], url: str, ca: Path, log: Path) -> None:
    """Poll /readyz until it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2, context=ssl.create_default_context(cafile=str(ca))).close()  # noqa: S310 - https, loopback
        except (OSError, ssl.SSLError):
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the verifier did not start:\n{log.read_text()}")


def explain(verdict: dict[str, Any]) -> str:
    """The findings that moved a verdict, for the table."""
    lines = []
    for finding in verdict["findings"]:
        if finding["status"] == "passed" or finding["severity"] == "info":
            continue
        lines.append(f"[bold]{escape(finding['message'])}[/]")
        for key, label in (("expected", "expected"), ("actual", "found   ")):
            if finding.get(key):
                lines.append(f"  {label} {escape(str(finding[key]))}")
    passed = sum(finding["status"] == "passed" for finding in verdict["findings"])
    return "\n".join(lines) or f"all {passed} checks passed"


def paint(status: str) -> str:
    """A verdict in its colour."""
    return f"[bold {TIERS.get(status, 'red')}]{status}[/]"


def show(rows: list[Row], ear: str) -> None:
    """The verdicts as a table, and the attestation result of guest 1 decoded."""
    table = Table(title="Verdicts", title_justify="left", show_lines=True)
    table.add_column("guest", no_wrap=True)
    table.add_column("what happened", max_width=22)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(row.guest, row.story, paint(row.outcome), row.reason)
    console.print()
    console.print(table)
    import jwt  # noqa: PLC0415 - a library nobody here wrote reads the result

    console.print("\n[bold]EAR of guest 1, decoded[/]")
    header, claims = jwt.get_unverified_header(ear), jwt.decode(ear, options={"verify_signature": False})
    console.print_json(json.dumps({"header": header, "claims": claims}))


def tell_how_to_go_on(verifier: Verifier) -> None:
    """What to try while the verifier is up."""
    relative = os.path.relpath
    console.print(f"\nthe verifier is still up at {verifier.url} (process {verifier.process.pid}); try:")
    console.print(
        f"  export ATTESTCTL_SERVER={verifier.url} ATTESTCTL_CA={relative(verifier.ca)}", soft_wrap=True
    )
    console.print(f"  export ATTESTCTL_TOKEN={verifier.dashboard_token}", soft_wrap=True)
    console.print(f"  {relative(BIN / 'attestctl')} attesters")
    console.print(f"  kill {verifier.process.pid}    # to stop it")


if __name__ == "__main__":
    sys.exit(main())
