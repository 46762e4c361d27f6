"""A real software TPM (swtpm) for one test: a process on a socket pair, no port, no path, gone with the test."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("TSS2_LOG", "all+NONE")  # expected TPM errors are asserted, not printed


@contextmanager
def real_tpm(state: Path) -> Iterator:
    """An ESAPI connection to a fresh, started swtpm that keeps its state in `state`; skips without swtpm."""
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
