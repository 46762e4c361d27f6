"""A Debian with the agent set up, whose TPM and verifier are the test's."""

from __future__ import annotations

from agent.wire.messages import AttestationRequest
from tests.fake_verifier import FakeVerifier
from tests.packages.debian import Debian

REQUIRES = """
[Unit]
Requires=attested.target
After=attested.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""
WANTED = REQUIRES.replace("multi-user", "attested")
ONLINE = REQUIRES.replace("attested", "network-online").replace("Requires", "Wants")
UNITS = {"requires": REQUIRES, "wanted": WANTED, "online": ONLINE}


class Guest:
    """A Debian with the agent set up, that was not booted yet."""

    def __init__(self, debian: Debian, verifier: FakeVerifier, tcti: str) -> None:
        self.debian, self.verifier = debian, verifier
        self.tcti = tcti

    def configure(self, **settings: str) -> None:
        every = {"server": self.verifier.url, "tcti": self.tcti, "root": "/guest", **settings}
        lines = [f'{key} = "{value}"\n' for key, value in every.items()]
        self.debian.write("etc/vtpm-attest/agent.toml", "".join(lines))

    def evidence(self) -> AttestationRequest:
        return next(message for _, message in self.verifier.seen if isinstance(message, AttestationRequest))


def seal_token(debian: Debian, secret: str) -> None:
    """As docs/boot.md has it, but to the machine's key: the TPM of the test is no device."""
    debian.write("root/token", secret)
    (debian.root / "etc/credstore.encrypted").mkdir(exist_ok=True)
    seal = "systemd-creds encrypt --with-key=host --name=vtpm-attest.join-token /root/token"
    debian.run_with_proc(*seal.split(), "/etc/credstore.encrypted/vtpm-attest.join-token")
