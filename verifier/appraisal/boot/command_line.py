"""The kernel command line, from whoever measured it: GRUB, systemd-stub, or the kernel's own EFI stub.

Every rule here works on digests and on proven text alone. Labels (GRUB's prefixes, the names of tagged events)
choose nothing, because an operating system that booted with a bad command line can relabel its log and can
extend PCRs 8 to 12 once more: a second, good-looking measurement must not win over the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from verifier.appraisal.boot.binding import BoundEvent, covers, knows
from verifier.claims import Binding
from verifier.tcg.algorithms import HashAlg

GRUB_COMMANDS_PCR: Final = 8
KERNEL_PCR: Final = 9
UKI_PCR: Final = 11
OVERRIDE_PCR: Final = 12

_LINUX_COMMANDS: Final = ("linux ", "linuxefi ", "linux16 ")
_QUOTING: Final = str.maketrans("", "", "\"'\\")
_GRUB_IMAGE: Final = "BOOT_IMAGE="

UKI_SECTIONS: Final = (
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".dtbauto",
    ".hwids",
    ".uname",
    ".sbat",
    ".pcrpkey",
    ".profile",
)
"""Names systemd-stub measures before each section's content."""


def _section_digests() -> dict[HashAlg, dict[bytes, str]]:
    algs = [alg for alg in HashAlg if alg.new is not None]
    return {alg: {alg.digest(name.encode() + b"\0"): name for name in UKI_SECTIONS} for alg in algs}


_SECTIONS: Final = _section_digests()


def name_sections(events: list[BoundEvent]) -> None:
    """Recognise systemd-stub's pairs in PCR 11 by the digest of the section's name; the content gets the name.

    Only pairs that stand at the front of the PCR count: the stub measures before anything it starts can.
    """
    positions = [place for place, bound in enumerate(events) if bound.event.pcr == UKI_PCR and bound.digests]
    for at, content_at in zip(positions[0::2], positions[1::2], strict=False):
        name = _section_name(events[at].digests)
        if name is None:
            return
        events[at] = events[at]._replace(binding=Binding.KNOWN, text=name, name=None)
        events[content_at] = events[content_at]._replace(name=name)


def _section_name(digests: Mapping[HashAlg, bytes]) -> str | None:
    names = {_SECTIONS[bank].get(digest) for bank, digest in digests.items()}
    return names.pop() if len(names) == 1 else None


def find_command_line(
    events: list[BoundEvent], believed: Mapping[int, tuple[HashAlg, ...]], candidate: str | None
) -> str | None:
    """The proven command line, or None; events whose digest it explains become KNOWN.

    Args:
        events: bound events, changed in place.
        believed: PCRs whose events, or whose absence of events, are proven.
        candidate: what the guest says; used only as a preimage to try.
    """
    grub = [
        place for place, bound in enumerate(events) if bound.event.pcr == GRUB_COMMANDS_PCR and bound.digests
    ]
    if grub:
        text = _from_grub([events[place] for place in grub])
        if text is not None:
            _mark_load_options(events, (_GRUB_IMAGE + text, text))
            return text
        if _has_linux_command([events[place] for place in grub]):
            return None
    if candidate is None:
        return None
    by_kernel = _mark_load_options(events, (candidate,), first_only=True)
    by_stub = _mark_section(events, candidate)
    if by_kernel:
        return candidate
    overridden = OVERRIDE_PCR not in believed or any(
        e.event.pcr == OVERRIDE_PCR and e.digests for e in events
    )
    return candidate if by_stub and not overridden else None


def _from_grub(events: Sequence[BoundEvent]) -> str | None:
    """GRUB measures `linux ARGS` as a command and then ARGS as the kernel's command line, the image first.

    Believed when every measurement of PCR 8 is bound, and all such pairs agree.
    """
    if any(bound.binding is not Binding.BOUND or bound.text is None for bound in events):
        return None
    texts = [bound.text or "" for bound in events]
    commanded = {_plain(text.split(" ", 1)[1]) for text in texts if text.startswith(_LINUX_COMMANDS)}
    lines = {text for text in texts if _plain(text) in commanded}
    return lines.pop() if len(commanded) == 1 and len(lines) == 1 else None


def _has_linux_command(events: Sequence[BoundEvent]) -> bool:
    return any(bound.text is None or bound.text.startswith(_LINUX_COMMANDS) for bound in events)


def _plain(text: str) -> str:
    """Without quoting, which GRUB adds to arguments with spaces in one of the two measurements only."""
    return " ".join(text.translate(_QUOTING).split())


def _mark_load_options(events: list[BoundEvent], lines: Sequence[str], *, first_only: bool = False) -> bool:
    """The kernel's EFI stub measures its load options, UTF-16 with NUL, into PCR 9 before its initrd."""
    values = {line.encode("utf-16-le") + b"\0\0": line for line in lines}
    for place, bound in enumerate(events):
        if bound.event.pcr != KERNEL_PCR or not bound.digests:
            continue
        if bound.binding is Binding.UNBOUND:
            value = knows(bound.digests, values)
            if value is not None:
                events[place] = bound._replace(binding=Binding.KNOWN, text=values[value])
                return True
        if first_only:
            return False
    return False


def _mark_section(events: list[BoundEvent], candidate: str) -> bool:
    """The stub's `.cmdline` section, as bytes, with or without the padding a builder left."""
    value = candidate.encode()
    found = False
    for place, bound in enumerate(events):
        if bound.name == ".cmdline" and bound.event.pcr == UKI_PCR:
            if knows(bound.digests, (value, value + b"\0", value + b"\n")) is None:
                return False
            events[place] = bound._replace(binding=Binding.KNOWN, text=candidate)
            found = True
    return found


__all__ = ["UKI_SECTIONS", "covers", "find_command_line", "name_sections"]
