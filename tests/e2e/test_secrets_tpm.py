"""Secrets with real software TPMs, agents and verifiers as processes: a disk is unlocked, and nothing else opens an answer."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.commands import Output, options_of, surroundings
from agent.config import load
from agent.errors import TpmError
from agent.esapi import open_tpm
from agent.service import run
from agent.session import Goal, Session
from agent.state import StateFile
from agent.unseal import Unsealer
from scripts.demo import Verifier, configuration, free_port, token, wait_until_ready
from tests import swtpm
from tests.conftest import ROOT
from tests.dying import DIE_AT
from tests.real_guests import BIN, Machine, Operator, booted, guest
from tests.swtpm import manufacture, replay_boot_log, with_vendor_ca

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]
TAMPERED = ROOT / "policies" / "evidence" / "uki-sb-on-cmdline-tampered" / "binary_bios_measurements"
KEY = bytes(range(256)) + b"\n\x00\xff"
needs_cryptsetup = pytest.mark.skipif(
    shutil.which("cryptsetup") is None,
    reason="NO DISK IS UNLOCKED: cryptsetup is missing (Debian package cryptsetup-bin)",
)
needs_device_mapper = pytest.mark.skipif(
    "device-mapper" not in Path("/proc/misc").read_text() or os.geteuid() != 0,
    reason="NO VOLUME IS OPENED, ITS KEY ALONE IS TRIED: no device mapper in this kernel, or not root",
)


@dataclass
class Mortal:
    """A verifier's process that kills itself where it is told to, and can be started again."""

    work: Path
    config: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        return self.work / "verifier" / "tls" / "ca.pem"

    def start(self) -> None:
        log = self.work / "verifier.log"
        command = [sys.executable, "-m", "tests.dying", "verifier", str(self.work / "verifier")]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*command, "serve", "--config", str(self.config)], cwd=ROOT, stdout=file, stderr=file
            )
        wait_until_ready(self.process, f"{self.url}/readyz", self.ca, log)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory) -> Iterator[Mortal]:
    work = tmp_path_factory.mktemp("secrets")
    with_vendor_ca(work)
    port = free_port()
    config = work / "verifier.toml"
    config.write_text(configuration(work, port))
    made = Mortal(work, config, f"https://127.0.0.1:{port}")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def verifier(mortal) -> Verifier:
    assert mortal.process is not None
    join = token(mortal.config, "join", "--uses", "50")
    return Verifier(mortal.work, mortal.url, mortal.config, mortal.ca, join, "", mortal.process)


@pytest.fixture(scope="module")
def operator(verifier) -> Operator:
    return Operator(verifier, token(verifier.config, "operator"))


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(1, 100))


@contextmanager
def enrolled(verifier: Verifier, numbers: Iterator[int], *options: str) -> Iterator[Machine]:
    number = next(numbers)
    made = manufacture(verifier.work / f"guest{number}" / "tpm", verifier.work / "tpm-vendor-ca")
    with booted(made) as tpm:
        machine = guest(verifier, number, tpm)
        done = machine.agent("enroll", *options)
        assert done.returncode == 0, done.stderr
        yield machine


@pytest.fixture(scope="module")
def machine(verifier, numbers) -> Iterator[Machine]:
    """With an EK of P-384, as the agent chooses of what swtpm has."""
    with enrolled(verifier, numbers) as made:
        assert state_of(made).ek_slot == "ecc-p384-high"
        yield made


def state_of(machine: Machine):
    return StateFile(machine.state).load()


def keep(operator: Operator, machine: Machine, name: str, content: bytes, *grant: str) -> None:
    file = operator.verifier.work / f"{name}.key"
    file.write_bytes(content)
    assert operator.json("secret", "put", name, "--from-file", str(file))["size"] == len(content)
    file.unlink()
    attester = state_of(machine).attester_id
    assert operator.json("secret", "grant", name, "--attester", attester, *grant)["attester"] == attester


def unseal(machine: Machine, *options: str) -> subprocess.CompletedProcess[bytes]:
    arguments = [BIN / "attest-agent", *machine.command("unseal", *options, "--once", token=False)]
    return subprocess.run(arguments, capture_output=True, check=False)


def told(operator: Operator, name: str) -> list[str]:
    """Newest first."""
    return [entry["action"] for entry in operator.json("audit", "--subject", name)["entries"]]


def test_the_secret_comes_raw_to_stdout_and_nowhere_else(operator, machine):
    keep(operator, machine, "raw", KEY)
    before = {path: path.read_bytes() for path in machine.state.rglob("*") if path.is_file()}
    done = unseal(machine, "raw")
    assert (done.returncode, done.stdout) == (0, KEY), done.stderr
    assert KEY not in done.stderr
    after = {path: path.read_bytes() for path in machine.state.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() <= {machine.state / "ratchet.lock"}
    assert not any(KEY[:32] in content for content in after.values())
    assert told(operator, "raw")[0] == "secret.released"


def test_it_comes_over_a_socket_as_systemd_cryptsetup_reads_it(operator, machine):
    keep(operator, machine, "socket", KEY)
    ours, theirs = socket.socketpair()
    command = [BIN / "attest-agent", *machine.command("unseal", "socket", "--once", token=False)]
    with ours, subprocess.Popen(command, stdout=theirs.fileno()) as running:
        theirs.close()
        with ours.makefile("rb") as stream:
            assert stream.read() == KEY
        assert running.wait(20) == 0


def test_a_file_is_new_private_and_whole(operator, machine, tmp_path):
    keep(operator, machine, "file", KEY)
    precious, out = tmp_path / "precious", tmp_path / "key"
    precious.write_bytes(b"do not touch")
    out.symlink_to(precious)
    done = unseal(machine, "file", "--out", str(out))
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert (out.read_bytes(), precious.read_bytes()) == (KEY, b"do not touch")
    assert not out.is_symlink()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [out, precious]
    done = unseal(machine, "file", "--out", str(tmp_path / "absent" / "key"))
    assert (done.returncode, done.stdout) == (74, b"")
    document = json.loads(unseal(machine, "file", "--json").stdout)
    assert (document["name"], document["revision"], document["size"]) == ("file", 1, len(KEY))


def test_what_is_not_granted_is_unknown_and_what_is_withheld_says_why(operator, verifier, numbers):
    with enrolled(verifier, numbers) as machine:
        keep(operator, machine, "tampered", KEY)
        absent = unseal(machine, "nothing")
        assert (absent.returncode, absent.stdout) == (65, b"")
        assert b"secret-unknown" in absent.stderr
        machine.tpm.reboot()
        replay_boot_log(machine.tpm.tcti, TAMPERED.read_bytes())
        shutil.copy2(TAMPERED, machine.root / "sys/kernel/security/tpm0/binary_bios_measurements")
        withheld = unseal(machine, "tampered")
        assert (withheld.returncode, withheld.stdout) == (65, b"")
        assert b"secret-withheld" in withheld.stderr
        assert b"contraindicated" in withheld.stderr
        assert told(operator, "tampered")[0] == "secret.withheld"
        operator.call("revoke", str(state_of(machine).attester_id))
        revoked = unseal(machine, "tampered")
        assert (revoked.returncode, revoked.stdout) == (65, b"")
        assert b"attester-revoked" in revoked.stderr


class Recording(Unsealer):
    """Keeps what came over the wire, as somebody on the path does."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.heard = None

    def _server(self):
        server = super()._server()
        post = type(server).post

        def heard(path, message, reply, *more):
            answer = post(server, path, message, reply, *more)
            if path.endswith("/release"):
                self.heard = answer
            return answer

        server.post = heard
        return server


def in_process(machine: Machine, name: str) -> Recording:
    """The same command within this process."""
    options = {
        "tcti": machine.tpm.tcti,
        "state_dir": str(machine.state),
        "root": str(machine.root),
        "server": machine.verifier.url,
        "ca_file": str(machine.verifier.ca),
    }
    settings, store = load(options, {}, None), StateFile(machine.state)
    output = Output(as_json=False)
    agent = Recording(surroundings(settings, store, output), options_of(settings, store.load()), name)
    session = Session(
        goal=Goal.VERDICT,
        attester_id=store.load().attester_id,
        may_reenroll=False,
        patience=0.0,
        random=lambda: 0.5,
    )
    run(session, agent, lambda _: None, lambda _: None)
    assert agent.heard is not None
    return agent


def test_another_tpm_does_not_open_what_was_recorded(operator, verifier, machine, numbers):
    keep(operator, machine, "recorded", KEY)
    with enrolled(verifier, numbers, "--ek", "rsa-2048") as other:
        keep(operator, other, "for-the-other", KEY)
        assert in_process(other, "for-the-other").secret == bytearray(KEY), "an EK of RSA opens its own"
        heard = in_process(machine, "recorded").heard
        with open_tpm(other.tpm.tcti) as tpm:
            for slot in ("rsa-2048", "ecc-p384-high"):
                with key_pair(tpm, slot) as (ak, ek), pytest.raises(TpmError):
                    tpm.activate_credential(ak, ek, heard.credential_blob, heard.encrypted_secret)
    with open_tpm(machine.tpm.tcti) as tpm, key_pair(tpm, "ecc-p384-high") as (ak, ek):
        half = tpm.activate_credential(ak, ek, heard.credential_blob, heard.encrypted_secret)
    assert len(half) == 32, "its own opens its half again, to which the process that asked had the other"


@contextmanager
def key_pair(tpm, slot):
    from agent.ak import opened_ak
    from agent.ek import chosen_ek, read_endorsements

    with opened_ak(tpm, "ecc-p256", 0) as ak, chosen_ek(tpm, read_endorsements(tpm), slot) as ek:
        yield ak, ek.key


def test_a_running_agent_is_not_disturbed(operator, verifier, numbers):
    with enrolled(verifier, numbers) as machine:
        keep(operator, machine, "beside", KEY)
        command = [BIN / "attest-agent", *machine.command("run", token=False)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("verdict      affirming")
            for _ in range(3):
                done = subprocess.run(
                    [BIN / "attest-agent", *machine.command("unseal", "beside", "--wait", "30", token=False)],
                    capture_output=True,
                    check=False,
                )
                assert done.stdout == KEY, done.stderr
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
        assert machine.attest(token=False)["status"] == "affirming"


# --- a disk


def cryptsetup(*arguments: str | Path, key: bytes) -> int:
    return subprocess.run(
        ["cryptsetup", *map(str, arguments)], input=key, capture_output=True, check=False
    ).returncode


@pytest.fixture
def volume(tmp_path) -> tuple[Path, bytes]:
    """A LUKS volume in a file, and its key."""
    image, key = tmp_path / "volume.img", os.urandom(64)
    with image.open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    fast = ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    assert cryptsetup("luksFormat", "--batch-mode", *fast, "--key-file", "-", image, key=key) == 0
    return image, key


@needs_cryptsetup
def test_a_disk_is_unlocked_while_the_machine_is_affirming_and_not_otherwise(
    operator, verifier, numbers, volume
):
    image, key = volume
    with enrolled(verifier, numbers) as machine:
        keep(operator, machine, "disk", key)
        agent = [str(BIN / "attest-agent"), *machine.command("unseal", "disk", "--once", token=False)]
        unlock = (
            f"{shlex.join(agent)} | cryptsetup open --test-passphrase --key-file - {shlex.quote(str(image))}"
        )
        done = subprocess.run(["sh", "-c", unlock], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert cryptsetup("open", "--test-passphrase", "--key-file", "-", image, key=key[:-1]) == 2
        machine.tpm.reboot()
        replay_boot_log(machine.tpm.tcti, TAMPERED.read_bytes())
        shutil.copy2(TAMPERED, machine.root / "sys/kernel/security/tpm0/binary_bios_measurements")
        done = subprocess.run(["sh", "-c", unlock], capture_output=True, check=False)
        assert done.returncode != 0
        assert b"secret-withheld" in done.stderr


@needs_cryptsetup
@needs_device_mapper
def test_a_volume_is_opened_and_read(operator, machine, volume):
    image, key = volume
    keep(operator, machine, "volume", key)
    name = f"vtpm-attest-test-{os.getpid()}"
    given = unseal(machine, "volume").stdout
    assert cryptsetup("open", "--key-file", "-", image, name, key=given) == 0
    try:
        mapped = Path("/dev/mapper") / name
        mapped.write_bytes(b"in the clear" + bytes(500))
        assert mapped.read_bytes()[:12] == b"in the clear"
        assert b"in the clear" not in image.read_bytes()
    finally:
        subprocess.run(["cryptsetup", "close", name], check=True)


# --- killed


def test_a_verifier_killed_at_the_record_has_released_nothing_that_is_not_recorded(mortal, operator, machine):
    for when, recorded in (("before", 0), ("after", 1)):
        name = f"killed-{when}"
        keep(operator, machine, name, KEY, "--uses", "1")
        (mortal.work / "verifier" / DIE_AT).write_text(f"{when} release_secret")
        done = unseal(machine, name)
        assert (done.returncode, done.stdout) == (69, b""), "the verifier is gone"
        mortal.start()
        assert told(operator, name).count("secret.released") == recorded
        again = unseal(machine, name)
        if recorded:
            assert b"secret-unknown" in again.stderr, "its one use is gone with what was lost"
        else:
            assert again.stdout == KEY, again.stderr
    assert machine.attest(token=False)["status"] == "affirming"
