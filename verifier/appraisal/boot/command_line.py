"""The kernel command line, from whoever measured it: GRUB, systemd-stub, or the kernel's own EFI stub.

Every rule here works on digests and on proven text alone. Labels (GRUB's prefixes, the names of tagged events)
choose nothing, because an operating system that booted with a bad command line can relabel its log and can
extend PCRs 8 to 12 once more: a second, good-looking measurement must not win over the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from verifier.appraisal.boot.binding import BoundLog
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
    commands = [fact.text if fact.binding is Binding.BOUND else None for fact in bound.of(GRUB_PCR)]
    if None in commands:
        return None
    texts = [text for text in commands if text is not None]
    ordered = {text.split(" ", 1)[1] for text in texts if text.startswith(_LINUX_COMMANDS)}
    if ordered:
        line = None if _stub_ran(bound) else _from_grub(texts, ordered)
        if line is not None:
            _know_load_options(bound, (_GRUB_IMAGE + line, line))
        return line
    typed = _typed(bound)
    tried = typed if candidate is None else (*typed, candidate)
    by_kernel = _know_load_options(bound, tried, first_only=True)
    by_stub = candidate if candidate is not None and _know_section(bound, candidate) else None
    if by_kernel is not None:
        return by_kernel
    # The section is what the kernel got unless a loader passed another line, which the stub measures into
    # PCR 12, or GRUB booted a kernel itself, which PCR 8 shows: both must be seen to be empty of that.
    alone = GRUB_PCR in believed and OVERRIDE_PCR in believed and OVERRIDE_PCR not in bound.positions
    return by_stub if alone else None


def _stub_ran(bound: BoundLog) -> bool:
    """Whether systemd-stub or systemd-boot left measurements: then GRUB's may have been added after the boot."""
    return OVERRIDE_PCR in bound.positions or any(fact.name for fact in bound.of(UKI_PCR))


def _from_grub(texts: Sequence[str], ordered: set[str]) -> str | None:
    """GRUB measures `linux ARGS` as a command, then ARGS as the kernel's command line, the image first.

    Believed when every measurement of PCR 8 is bound, all such pairs agree, and no other loader was called:
    whoever relabels or adds events cannot make the first pair go away.

    Args:
        texts: all of PCR 8.
        ordered: the arguments of its `linux` commands.
    """
    lines = ordered.intersection(texts)
    if not lines:
        ordered = {_plain(text) for text in ordered}
        lines = {text for text in texts if _plain(text) in ordered}
    if len(ordered) != 1 or len(lines) != 1 or any(text.startswith(_OTHER_LOADERS) for text in texts):
        return None
    return next(iter(lines))


def _plain(text: str) -> str:
    """Without quoting, which GRUB adds to arguments with spaces in one of the two measurements only."""
    return " ".join(text.translate(_QUOTING).split())


def _typed(bound: BoundLog) -> tuple[str, ...]:
    """Command lines that systemd-boot or systemd-stub measured as such into PCR 12, last one first."""
    facts = bound.of(OVERRIDE_PCR)
    return tuple([fact.text for fact in reversed(facts) if fact.binding is Binding.BOUND and fact.text])


def _know_load_options(bound: BoundLog, lines: Sequence[str], *, first_only: bool = False) -> str | None:
    """The kernel's EFI stub measures its load options, UTF-16 with NUL, into PCR 9 before its initrd.

    With `first_only` they must be the first event of the PCR, which nothing that runs later can arrange.
    """
    positions = bound.positions.get(KERNEL_PCR, [])
    for line in lines if positions else ():
        wanted = bound.expected(line.encode("utf-16-le") + b"\0\0", bound.facts[positions[0]].digests)
        for position in positions[:1] if first_only else positions:
            fact = bound.facts[position]
            if fact.digests == wanted and fact.binding is Binding.UNBOUND:
                bound.know(position, line)
                return line
    return None


def _know_section(bound: BoundLog, candidate: str) -> bool:
    """The content of the stub's `.cmdline` section: the text, or the text with what builders put behind it."""
    for position in bound.positions.get(UKI_PCR, ()):
        fact = bound.facts[position]
        if fact.name == ".cmdline":
            ends = (b"", b"\0", b"\n", b"\n\0")
            if any(fact.digests == bound.expected(candidate.encode() + end, fact.digests) for end in ends):
                bound.know(position, candidate)
                return True
    return False
