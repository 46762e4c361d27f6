"""A real ACME server (Pebble, of Let's Encrypt) with a name server that leads every name here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from verifier.keys.tls import own_tls

KID, EAB_KEY = "customer-7", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@dataclass(frozen=True)
class Pebble:
    """Where it is, and where it asks."""

    directory: str
    ca: Path
    port: int
    """Of its challenges."""
    management: str

    def root(self) -> bytes:
        """The CA above what it issues, as PEM."""
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(f"{self.management}/roots/0", context=context) as reply:
            found: bytes = reply.read()
        return found


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def pebble(folder: Path, *, binding: bool = False) -> Iterator[Pebble]:
    """A running one, or a loud skip where there is none."""
    program, names = shutil.which("pebble"), shutil.which("pebble-challtestsrv")
    if program is None or names is None:
        pytest.skip("ACME NOT TESTED: no pebble; scripts/install-system-packages.sh test installs it")
    api, management, challenges, dns, control = _ports(5)
    tls = own_tls(folder / "pebble", ["localhost", "127.0.0.1"], datetime.now(UTC))
    config = {
        "listenAddress": f"127.0.0.1:{api}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(tls.certificate),
        "privateKey": str(tls.key),
        "httpPort": challenges,
        "tlsPort": 1,
        "externalAccountBindingRequired": binding,
        "externalAccountMACKeys": {KID: EAB_KEY} if binding else {},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    here = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
    commands = [
        [names, *here, "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}"],
        [program, "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}", "-strict"],
    ]
    assert tls.ca is not None
    url = "https://127.0.0.1"
    made = Pebble(f"{url}:{api}/dir", tls.ca, challenges, f"{url}:{management}")
    with (folder / "pebble.log").open("ab") as log, contextlib.ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        for port in (api, control):
            _until_open(port, folder / "pebble.log")
        yield made


def _until_open(port: int, log: Path) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
