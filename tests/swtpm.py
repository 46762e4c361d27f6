"""Real software TPMs (swtpm) for tests and the demo: manufactured with EK certificates, started, power-cycled.

Importable without pytest. Two ways to run one: `Swtpm` is a process on loopback ports whose TCTI string any program
can open; `real_tpm` is a connection of this process alone, without port, gone with the test.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

os.environ.setdefault("TSS2_LOG", "all+NONE")  # expected TPM errors are asserted, not printed

STATE_FILE = "tpm2-00.permall"
_START_SECONDS = 10.0
_POLL_SECONDS = 0.005


def available() -> bool:
    """Whether swtpm, its tools and tpm2-pytss are installed."""
    if not all(shutil.which(program) for program in ("swtpm", "swtpm_setup", "swtpm_localca")):
        return False
    try:
        import tpm2_pytss  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Manufactured:
    """A TPM's state folder and the CA that certified its EKs (RSA-2048 and P-384) and its platform."""

    state: Path
    ca: Path

    @property
    def issuer_pem(self) -> bytes:
        """The CA that signs EK certificates."""
        return (self.ca / "issuercert.pem").read_bytes()

    @property
    def root_pem(self) -> bytes:
        """The root above it: the trust anchor."""
        return (self.ca / "swtpm-localca-rootca-cert.pem").read_bytes()

    def copy(self, state: Path) -> Manufactured:
        """The same TPM again: same EKs, same seeds, own future."""
        state.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.state / STATE_FILE, state / STATE_FILE)
        return Manufactured(state, self.ca)


def manufacture(
    state: Path, ca: Path, *, certificates: bool = True, banks: str = "sha1,sha256"
) -> Manufactured:
    """Make a new TPM in `state` (0.7 to 1.1 s) with EK certificates signed by the CA in `ca`, made at first use."""
    state, ca = state.resolve(), ca.resolve()
    state.mkdir(parents=True, exist_ok=True)
    config = _ca_config(ca)
    log = state.with_name(f"{state.name}.setup.log")
    command = [
        "swtpm_setup",
        "--tpm2",
        "--tpmstate",
        str(state),
        "--config",
        str(config),
        "--pcr-banks",
        banks,
    ]
    command += ["--create-ek-cert", "--create-platform-cert", "--lock-nvram"] if certificates else []
    command += ["--overwrite", "--logfile", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        detail = log.read_text(errors="replace") if log.exists() else ""
        raise RuntimeError(f"swtpm_setup failed:\n{done.stdout}{done.stderr}{detail}")
    return Manufactured(state, ca)


def with_vendor_ca(folder: Path) -> Path:
    """`folder`, with the CA of a vendor in it (`tpm-vendor-ca`), which the verifiers of tests trust.

    `swtpm_setup` makes a CA only together with a first TPM.
    """
    manufacture(folder / "first-of-its-kind", folder / "tpm-vendor-ca")
    return folder


def _ca_config(ca: Path) -> Path:
    config = ca / "setup.conf"
    if config.exists():
        return config
    ca.mkdir(parents=True, exist_ok=True)
    settings = {"statedir": ca, "signingkey": ca / "signkey.pem", "issuercert": ca / "issuercert.pem"}
    settings["certserial"] = ca / "certserial"
    (ca / "localca.conf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    platform = {"manufacturer": "Demo", "version": "2.1", "model": "QEMU"}
    (ca / "localca.options").write_text(
        "".join(f"--platform-{key} {value}\n" for key, value in platform.items())
    )
    tool = shutil.which("swtpm_localca")
    config.write_text(
        f"create_certs_tool={tool}\n"
        f"create_certs_tool_config={ca / 'localca.conf'}\n"
        f"create_certs_tool_options={ca / 'localca.options'}\n"
    )
    return config


class Swtpm:
    """swtpm on two loopback ports, powered on inside a `with` block."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """For `--tcti` and `ESAPI`."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, resume: bool = False) -> None:
        """Power on: TPM2_Startup(CLEAR), or (STATE) to `resume`. Keeps its ports over a power cycle."""
        ports = [self.port] if self.port else [_free_pair() for _ in range(5)]
        for port in ports:
            if self._start_on(port, "startup-state" if resume else "startup-clear"):
                self.port = port
                return
        raise RuntimeError(f"swtpm does not start with the state in {self.state}")

    def _start_on(self, port: int, startup: str) -> bool:
        def listen(number: int) -> str:
            return f"type=tcp,port={number},bindaddr=127.0.0.1"

        # The TCTI expects the control channel on the port after the data channel's.
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}"]
        command += [
            "--server",
            listen(port),
            "--ctrl",
            listen(port + 1),
            "--flags",
            f"not-need-init,{startup}",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if _answers(port) and _answers(port + 1) and process.poll() is None:
                self._process = process
                return True
            time.sleep(_POLL_SECONDS)
        process.kill()
        process.wait(10)
        return False

    def stop(self) -> None:
        """Power off, without a TPM2_Shutdown. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)

    def reboot(self, *, orderly: bool = True) -> None:
        """Power-cycle; `orderly` sends TPM2_Shutdown first, as a kernel does. PCRs are reset either way."""
        if orderly:
            from tpm2_pytss import TPM2_SU

            with self.esapi() as esapi:
                esapi.shutdown(TPM2_SU.CLEAR)
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Sleep and wake up: TPM2_Shutdown(STATE), power off and on, TPM2_Startup(STATE). PCRs stay."""
        from tpm2_pytss import TPM2_SU

        with self.esapi() as esapi:
            esapi.shutdown(TPM2_SU.STATE)
        self.stop()
        self.start(resume=True)

    def handles(self, first: int) -> list[int]:
        """Those in use from `first` on, in its range."""
        with self.esapi() as esapi:
            answer = esapi.get_capability(
                1, first, 254
            )  # the tuple must stay: it owns the memory of its parts
            return [int(one) for one in answer[1].data.handles]

    def flush(self) -> None:
        """Drop the objects that a killed program has left, as a kernel's resource manager does."""
        left = self.handles(0x80000000)
        with self.esapi() as esapi:
            for handle in left:
                esapi.flush_context(esapi.tr_from_tpmpublic(handle))

    def esapi(self) -> Any:
        """A tpm2-pytss connection, to be closed (it is a context manager)."""
        from tpm2_pytss.ESAPI import ESAPI

        return ESAPI(self.tcti)


def _answers(port: int) -> bool:
    """Whether something accepts connections; it is ours only if our process still lives afterwards."""
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _free_pair() -> int:
    """A port that is free, and so is the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def replay_boot_log(tcti: str, log: bytes) -> int:
    """Extend every measured event of `log` into the TPM's PCRs, all banks at once. Returns how many.

    Afterwards the PCRs are those of the machine the log came from, as far as its log tells them. A log whose PCR 0
    starts elsewhere than zero (StartupLocality, H-CRTM) cannot be replayed by extending and is refused.
    """
    from tpm2_pytss import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA
    from tpm2_pytss.constants import ESYS_TR
    from tpm2_pytss.ESAPI import ESAPI

    from tests.simulator.eventlog import EV_NO_ACTION, parse_log

    if b"StartupLocality\0" in log:
        raise ValueError("a log with StartupLocality cannot be replayed from outside the firmware")
    count = 0
    with ESAPI(tcti) as esapi:
        # TPM2_CAP_PCRS. The tuple must stay: it owns the memory its parts point into.
        answer = esapi.get_capability(5, 0, 1)
        active = {int(item.hash) for item in answer[1].data.assignedPCR if any(bytes(item.pcrSelect))}
        for pcr, kind, digests, _ in parse_log(log):
            if kind == EV_NO_ACTION:
                continue
            values = [
                TPMT_HA(hashAlg=alg.tpm_id, digest=TPMU_HA(**{alg.label: digest}))
                for alg, digest in digests.items()
                if alg.tpm_id in active
            ]
            esapi.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES(values))
            count += 1
    return count


@contextmanager
def real_tpm(state: Path) -> Iterator[Any]:
    """An ESAPI connection to a fresh, started swtpm that keeps its state in `state`; skips without swtpm."""
    import pytest

    program = shutil.which("swtpm")
    if program is None:
        pytest.skip("SKIPPED FOR WANT OF A TPM: swtpm is not installed, so this check did not run")
    pytss = pytest.importorskip("tpm2_pytss")
    ours, theirs = socket.socketpair()
    command = [program, "socket", "--tpm2", "--tpmstate", f"dir={state}", "--fd", str(theirs.fileno())]
    flags = ["--flags", "not-need-init,startup-clear"]
    process = subprocess.Popen([*command, *flags], pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
    theirs.close()
    try:
        with pytss.ESAPI(_tcti_class()(ours)) as esapi:
            yield esapi
    finally:
        ours.close()
        process.wait(10)


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise EOFError("swtpm closed the connection")
        received += part
    return received


def _tcti_class():
    from tpm2_pytss.TCTI import PyTCTI  # imported late: tests that need no TPM do not pay for it

    class SocketTcti(PyTCTI):
        """Commands and answers on a connected socket; everything a socket cannot do is a no-op."""

        def __init__(self, connection: socket.socket) -> None:
            self._connection = connection
            super().__init__()

        def do_transmit(self, command):
            self._connection.sendall(bytes(command))

        def do_receive(self, timeout):
            header = _exactly(self._connection, 10)
            return header + _exactly(self._connection, struct.unpack(">I", header[2:6])[0] - 10)

        def do_make_sticky(self, handle, sticky):
            return handle

        def do_get_poll_handles(self):
            return ()

        def do_cancel(self): ...

        def do_set_locality(self, locality): ...

        def do_finalize(self): ...

    return SocketTcti
