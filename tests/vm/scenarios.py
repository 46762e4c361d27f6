"""What is done to a guest, and exactly what the verifier has to say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.vm.bootfiles import COMMAND_LINE
from tests.vm.lab import Boot, Lab

Verdict = dict[str, Any]
_EVENT = re.compile(r"\(EV_\w+ (.*)\)$")
Play = Callable[[Lab], Iterator[Verdict]]


@dataclass(frozen=True)
class Expected:
    """A verdict: its tier, and every finding that is not passed and more than informative."""

    tier: str
    findings: tuple[str, ...] = ()
    lifecycle: str = "enrolled"


@dataclass(frozen=True)
class Scenario:
    """`play` yields the verdicts that `expected` lists, in order."""

    name: str
    story: str
    play: Play
    expected: tuple[Expected, ...]
    quick: bool = False
    """Whether `make test` runs it."""


def findings(verdict: Verdict) -> tuple[str, ...]:
    """Each as `code`, `code RULE`, `code RULE: EVENT` or, of IMA, `code PATH`; sorted."""
    named = []
    for finding in verdict["findings"]:
        if finding["status"] == "passed" or finding["severity"] == "info":
            continue
        words = [finding["code"], finding.get("rule", "")]
        if finding["code"].startswith("ima-"):
            words.append(next((word for word in finding["message"].split() if word.startswith("/")), ""))
        name = " ".join(filter(None, words))
        event = _EVENT.search(finding.get("expected", "")) if finding["code"].startswith("event-") else None
        named.append(f"{name}: {event[1]}" if event else name)
    return tuple(sorted(named))


IMAGE = "linux.efi"
LOADED = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "virtio-rng", "qemu_fw_cfg", "efivarfs"),
)
"""By the initrd, of the kernel's modules."""
AFFIRMING = Expected("affirming")


def _contraindicated(*names: str) -> tuple[Expected, ...]:
    return (Expected("contraindicated", tuple(sorted(names))),)


def _booting(boot: Boot, good: Boot | None = None) -> Play:
    """The policy is of the good boot; the machine boots otherwise."""

    def play(lab: Lab) -> Iterator[Verdict]:
        lab.serve(good)
        yield lab.verdict(lab.booted(boot))

    return play


SCENARIOS = (
    Scenario("good", "the image that the policy was made of", _booting(Boot()), (AFFIRMING,), quick=True),
    Scenario(
        "command-line",
        "two words more on the kernel command line, signed again by the right key",
        _booting(Boot(command_line=f"{COMMAND_LINE} lockdown=none module.sig_enforce=0")),
        _contraindicated(
            *(
                "command-line-mismatch command-line",
                "event-mismatch pcr-4",
                "event-mismatch pcr-9",
                "event-mismatch pcr-11",
            )
        ),
        quick=True,
    ),
    Scenario(
        "secure-boot-off",
        "Secure Boot switched off in the firmware",
        _booting(Boot(secure_boot=False)),
        _contraindicated(
            *(
                "secure-boot-off secure-boot",
                "event-mismatch pcr-7",
                "event-missing pcr-7",
                "event-unexpected pcr-4",
            )
        ),
        quick=True,
    ),
    Scenario(
        "initrd",
        "a file added to the initrd, signed again by the right key",
        _booting(Boot(initrd={"etc-backdoor": "listen 4444\n"})),
        _contraindicated(
            *(
                f"event-mismatch pcr-4: {IMAGE}",
                "event-mismatch pcr-9: Linux initrd",
                "event-mismatch pcr-11: .initrd",
            )
        ),
    ),
    Scenario(
        "kernel",
        "an older kernel (and its modules), signed by the right key",
        _booting(Boot(older_kernel=True)),
        _contraindicated(
            *(f"event-mismatch pcr-4: {IMAGE}", "event-mismatch pcr-9: Linux initrd"),
            *("event-mismatch pcr-11: .linux", "event-mismatch pcr-11: .initrd"),
            *(f"ima-module-unknown /lib/modules/{name}.ko" for name in LOADED),
        ),
    ),
    Scenario(
        "foreign-signer",
        "the image signed by another key, which somebody added to db",
        _booting(Boot(signer="stranger", db=("db", "stranger"))),
        _contraindicated("event-mismatch pcr-7: db", "event-mismatch pcr-7: db: CN=vm test db"),
        quick=True,
    ),
    Scenario(
        "extra-db-key",
        "another key in db, and the good image",
        _booting(Boot(db=("db", "stranger"))),
        _contraindicated("event-mismatch pcr-7: db"),
    ),
)
