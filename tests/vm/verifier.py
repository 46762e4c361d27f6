"""The verifier on the host: its settings, and what it says."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.demo import free_port, token, wait_until_ready
from tests.swtpm import Manufactured
from tests.vm.builds import POLICY
from tests.vm.rootfs import SETTINGS
from tests.vm.tools import BIN, LabError

HOST = "10.0.2.2"
"""What QEMU calls this machine in the guest's network."""


@dataclass
class Verifier:
    """One service with its own state; can be stopped and started again."""

    folder: Path
    tpm: Manufactured
    interval: str = "5s"
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _reader: str = ""

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def config(self) -> Path:
        return self.folder / "verifier.toml"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        return self.folder / "state" / "tls" / "ca.pem"

    def start(self) -> None:
        """Serve, with the policies that are there now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        anchors = ", ".join(
            f'"{self.tpm.ca / name}"' for name in ("swtpm-localca-rootca-cert.pem", "issuercert.pem")
        )
        self.config.write_text(
            f'state_dir = "{self.folder / "state"}"\ntrust_anchors = [{anchors}]\n'
            f'policies_dir = "{self.policies}"\ndefault_policy = "{POLICY}"\n'
            f"[listen]\nport = {self.port}\n"
            f'[tls]\nhostnames = ["{HOST}"]\n'
            f'[attestation]\ninterval = "{self.interval}"\n'
        )
        with (self.folder / "verifier.log").open("ab") as log:
            command = [BIN / "attest-verifier", "serve", "--config", self.config]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_ready(self._process, f"{self.url}/readyz", self.ca, self.folder / "verifier.log")
        except SystemExit as error:
            raise LabError(str(error)) from error
        if not self._reader:
            self._reader = token(self.config, "operator")

    def stop(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def told(self) -> dict[str, str]:
        """What a new guest has to know: the agent's settings and a join token."""
        settings = f'server = "https://{HOST}:{self.port}"\ntoken_file = "{SETTINGS.format("join-token")}"\n'
        join = token(self.config, "join", "--uses", "10", "--expires", "1h")
        return {"vtpm-attest/agent.toml": settings, "vtpm-attest/join-token": join}

    def get(self, path: str) -> Any:
        """An answer of the API."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self._reader}"})
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(request, timeout=30, context=context) as reply:
            return json.load(reply)

    def attesters(self) -> list[dict[str, Any]]:
        return self.get("/v1/attesters")["attesters"]

    def verdict(self, attester: str) -> dict[str, Any]:
        return self.get(f"/v1/attesters/{attester}/verdict")

    def attestctl(self, *words: object) -> bytes:
        """As an operator calls it."""
        environment = {
            "ATTESTCTL_SERVER": self.url,
            "ATTESTCTL_CA": str(self.ca),
            "ATTESTCTL_TOKEN": self._reader,
        }
        command = [str(BIN / "attestctl"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)
        if done.returncode > 3:
            raise LabError(
                f"attestctl {words[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
            )
        return done.stdout


def wait_for(what: str, seconds: float, ask: Callable[[], Any]) -> Any:
    """The first answer that is not empty."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.3)
    raise LabError(f"{what}: not within {seconds:.0f} s")
