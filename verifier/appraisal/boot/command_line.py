"""The kernel command line, from whoever measured it: GRUB, systemd-stub, or the kernel's own EFI stub.

Every rule here works on digests and on proven text alone. Labels (GRUB's prefixes, the names of tagged events)
choose nothing, because an operating system that booted with a bad command line can relabel its log and can
extend PCRs 8 to 12 once more: a second, good-looking measurement must not win over the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from verifier.appraisal.boot.binding import BoundLog, knows
from verifier.appraisal.boot.sections import UKI_PCR
from verifier.claims import Binding
from verifier.tcg.algorithms import HashAlg

GRUB_PCR: Final = 8
KERNEL_PCR: Final = 9
OVERRIDE_PCR: Final = 12

_LINUX_COMMANDS: Final = ("linux ", "linuxefi ", "linux16 ")
_OTHER_LOADERS: Final = ("chainloader ", "multiboot ", "multiboot2 ", "xen_hypervisor ")
_QUOTING: Final = str.maketrans("", "", "\"'\\")
_GRUB_IMAGE: Final = "BOOT_IMAGE="


def find_command_line(
    bound: BoundLog, believed: Mapping[int, tuple[HashAlg, ...]], candidate: str | None
) -> str | None:
    """The proven command line, or None; events whose digest it explains become KNOWN.

    Args:
        bound: the bound log, changed in place.
        believed: PCRs whose events, or whose absence of events, are proven.
        candidate: what the guest says; used only as a preimage to try.
    """
    commands = [(fact.text if fact.binding is Binding.BOUND else None) for fact in bound.of(GRUB_PCR)]
    if None in commands or any(text is not None and text.startswith(_LINUX_COMMANDS) for text in commands):
        line = _from_grub(commands)
        if line is not None:
            _know_load_options(bound, (_GRUB_IMAGE + line, line))
        return line
    if candidate is None:
        return None
    by_kernel = _know_load_options(bound, (candidate,), first_only=True)
    by_stub = _know_section(bound, candidate)
    if by_kernel:
        return candidate
    overridden = OVERRIDE_PCR not in believed or OVERRIDE_PCR in bound.positions
    return candidate if by_stub and not overridden else None


def _from_grub(commands: Sequence[str | None]) -> str | None:
    """GRUB measures `linux ARGS` as a command, then ARGS as the kernel's command line, the image first.

    Believed when every measurement of PCR 8 is bound, all such pairs agree, and no other loader was called:
    whoever relabels or adds events cannot make the first pair go away.
    """
    texts = [text for text in commands if text is not None]
    if len(texts) != len(commands) or any(text.startswith(_OTHER_LOADERS) for text in texts):
        return None
    ordered = {text.split(" ", 1)[1] for text in texts if text.startswith(_LINUX_COMMANDS)}
    lines = ordered.intersection(texts)
    if not lines:
        ordered = {_plain(text) for text in ordered}
        lines = {text for text in texts if _plain(text) in ordered}
    return lines.pop() if len(ordered) == 1 and len(lines) == 1 else None


def _plain(text: str) -> str:
    """Without quoting, which GRUB adds to arguments with spaces in one of the two measurements only."""
    return " ".join(text.translate(_QUOTING).split())


def _know_load_options(bound: BoundLog, lines: Sequence[str], *, first_only: bool = False) -> bool:
    """The kernel's EFI stub measures its load options, UTF-16 with NUL, into PCR 9 before its initrd.

    With `first_only` they must be the first event of the PCR, which nothing that runs later can arrange.
    """
    values = {line.encode("utf-16-le") + b"\0\0": line for line in lines}
    positions = bound.positions.get(KERNEL_PCR, [])
    for position in positions[:1] if first_only else positions:
        fact = bound.facts[position]
        value = knows(fact.digests, values) if fact.binding is Binding.UNBOUND else None
        if value is not None:
            bound.know(position, values[value])
            return True
    return False


def _know_section(bound: BoundLog, candidate: str) -> bool:
    """The content of the stub's `.cmdline` section: the text, or the text with what builders put behind it."""
    value = candidate.encode()
    for position in bound.positions.get(UKI_PCR, ()):
        fact = bound.facts[position]
        if fact.name == ".cmdline" and knows(fact.digests, (value, value + b"\0", value + b"\n")) is not None:
            bound.know(position, candidate)
            return True
    return False
