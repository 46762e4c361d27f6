"""Every scenario, and exactly what the verifier has to say of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.vm import plays
from tests.vm.bootfiles import COMMAND_LINE
from tests.vm.builds import Boot
from tests.vm.judging import Expected
from tests.vm.plays import Play


@dataclass(frozen=True)
class Scenario:
    """`play` yields the verdicts that `expected` lists, in order."""

    name: str
    story: str
    play: Play
    expected: tuple[Expected, ...]
    quick: bool = False
    """Whether `make test` runs it."""


IMAGE = "linux.efi"
LOWERED = "lockdown=none module.sig_enforce=0"
BACKDOOR = {"backdoor": "listen 4444\n"}
LOADED = (
    *("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "virtio-rng", "qemu_fw_cfg", "efivarfs"),
)
"""By the initrd, of the kernel's modules."""
AFFIRMING = Expected("affirming")


def _contraindicated(*names: str) -> tuple[Expected, ...]:
    return (Expected("contraindicated", tuple(sorted(names))),)


GRUB = Boot(grub=True)
SCENARIOS = (
    Scenario("good", "the image that the policy was made of", plays.good, (AFFIRMING,), quick=True),
    Scenario(
        "command-line",
        "two words more on the kernel command line, signed again by the right key",
        plays.booting(Boot(command_line=f"{COMMAND_LINE} {LOWERED}")),
        _contraindicated(
            "command-line-mismatch command-line",
            f"event-mismatch pcr-4: {IMAGE}",
            "event-mismatch pcr-9: LOADED_IMAGE::LoadOptions",
            "event-mismatch pcr-11: .cmdline",
        ),
        quick=True,
    ),
    Scenario(
        "secure-boot-off",
        "Secure Boot switched off in the firmware",
        plays.booting(Boot(secure_boot=False)),
        _contraindicated(
            "secure-boot-off secure-boot",
            "event-mismatch pcr-7: SecureBoot",
            "event-missing pcr-7: db: CN=vm test db",
            "event-unexpected pcr-4",
        ),
        quick=True,
    ),
    Scenario(
        "initrd",
        "a file added to the initrd, signed again by the right key",
        plays.booting(Boot(initrd=BACKDOOR)),
        _contraindicated(
            f"event-mismatch pcr-4: {IMAGE}",
            "event-mismatch pcr-9: Linux initrd",
            "event-mismatch pcr-11: .initrd",
        ),
    ),
    Scenario(
        "kernel",
        "an older kernel (and its modules), signed by the right key",
        plays.booting(Boot(older_kernel=True)),
        _contraindicated(
            *(f"event-mismatch pcr-4: {IMAGE}", "event-mismatch pcr-9: Linux initrd"),
            *("event-mismatch pcr-11: .linux", "event-mismatch pcr-11: .initrd"),
            *(f"ima-module-unknown /lib/modules/{name}.ko" for name in LOADED),
        ),
    ),
    Scenario(
        "foreign-signer",
        "the image signed by another key, which somebody added to db",
        plays.booting(Boot(signer="stranger", db=("db", "stranger"))),
        _contraindicated("event-mismatch pcr-7: db", "event-mismatch pcr-7: db: CN=vm test db"),
        quick=True,
    ),
    Scenario(
        "extra-db-key",
        "another key in db, and the good image",
        plays.booting(Boot(db=("db", "stranger"))),
        _contraindicated("event-mismatch pcr-7: db"),
    ),
    Scenario(
        "ima-unknown",
        "a program that no package has is run",
        plays.unknown_binary,
        (AFFIRMING, Expected("contraindicated", ("ima-file-unknown /opt/implant",))),
    ),
    Scenario(
        "ima-signed",
        "a program signed by a key of the policy is run, then one signed by a stranger",
        plays.signed_binary,
        (AFFIRMING, AFFIRMING, Expected("contraindicated", ("ima-file-unknown /opt/stranger",))),
    ),
    Scenario(
        "ima-changed",
        "a program of the image is changed after boot, and run",
        plays.changed_file,
        (AFFIRMING, Expected("contraindicated", ("ima-file-changed /usr/bin/nproc",))),
    ),
    Scenario(
        "clone",
        "all state of the VM is copied; the original boots again, then the copy",
        plays.clone,
        (
            AFFIRMING,
            AFFIRMING,
            Expected("contraindicated", ("clock-rollback", "clone-proven", "ratchet-rollback")),
        ),
    ),
    Scenario(
        "rollback",
        "the VM is set back to a snapshot",
        plays.rollback,
        (
            AFFIRMING,
            AFFIRMING,
            Expected("contraindicated", ("clock-rollback", "ratchet-rollback", "rollback")),
        ),
    ),
    Scenario(
        "tpm-replaced",
        "the VM gets another vTPM; an operator approves",
        plays.replaced_tpm,
        (AFFIRMING, Expected("none", ("identity-replaced",), "pending"), AFFIRMING),
    ),
    Scenario(
        "agent-killed",
        "the agent is killed (and started again), then stopped",
        plays.killed_agent,
        (AFFIRMING, AFFIRMING, Expected("none", lifecycle="stale")),
    ),
    Scenario(
        "verifier-down", "the verifier is down at boot and back later", plays.verifier_down, (AFFIRMING,)
    ),
    Scenario("network-late", "the network comes long after the agent", plays.network_late, (AFFIRMING,)),
    Scenario(
        "grub",
        "Debian's signed shim, GRUB and kernel under Microsoft's keys",
        plays.booting(GRUB, GRUB),
        (AFFIRMING,),
    ),
    Scenario(
        "grub-command-line",
        "the policy learned from a good boot; that boot again, then two words more on the command line in grub.cfg",
        plays.learned(GRUB, replace(GRUB, command_line=f"{COMMAND_LINE} {LOWERED}")),
        (
            AFFIRMING,
            AFFIRMING,
            Expected(
                "contraindicated",
                (
                    "command-line-mismatch command-line",
                    *(
                        f"event-mismatch pcr-8: {line[:79]}…"
                        for line in (f"/vmlinuz {COMMAND_LINE}", f"linux /vmlinuz {COMMAND_LINE}")
                    ),
                    "event-mismatch pcr-9",  # grub.cfg
                ),
            ),
        ),
    ),
    Scenario(
        "grub-initrd",
        "the same with a file added to the initrd",
        plays.learned(GRUB, replace(GRUB, initrd=BACKDOOR)),
        (AFFIRMING, AFFIRMING, Expected("contraindicated", ("event-mismatch pcr-9",))),
    ),
    Scenario(
        "mok",
        "the same, and a key that somebody enrolled as the machine owner's (MOK)",
        plays.booting(replace(GRUB, mok=("stranger",)), GRUB),
        _contraindicated("event-mismatch pcr-14: MokList"),
    ),
)
