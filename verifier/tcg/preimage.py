"""Which bytes of an event its digest may cover, per event type (docs/binding.md).

An event's data proves nothing by standing in the log; it is proven when the measured digest can be recomputed
from it. This module names the candidates and what text they would prove; `verifier.appraisal.boot` does the
comparison. Only bytes inside `Candidate.covered` may be shown as proven: the rest of the event is a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from verifier.tcg.event_types import EventType
from verifier.tcg.uefi import VARIABLE_AUTHORITY_TYPES, parse_variable, proven_variable_name


class Candidate(NamedTuple):
    """A part of an event's data that its digest may cover, and what follows if it does.

    Attributes:
        covered: the bytes to hash.
        name: proven name of the event if they match, or None.
        text: proven text for people and text rules if they match, or None.
    """

    covered: bytes
    name: str | None = None
    text: str | None = None


_GRUB_PREFIXES: Final = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ")


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _utf16(data: bytes) -> str | None:
    try:
        return data.decode("utf-16-le")
    except UnicodeDecodeError:
        return None


def _separator(data: bytes) -> tuple[Candidate, ...]:
    return (Candidate(data, text=data.hex()),)


def _action(data: bytes) -> tuple[Candidate, ...]:
    return (Candidate(data, text=_text(data)),)


def _version(data: bytes) -> tuple[Candidate, ...]:
    wide = _utf16(data) if data[1:2] == b"\0" else None
    text = wide if wide is not None else _text(data)
    return (Candidate(data, text=text.rstrip("\0") if text else None),)


def _whole(data: bytes) -> tuple[Candidate, ...]:
    return (Candidate(data),)


def _driver_config(data: bytes) -> tuple[Candidate, ...]:
    variable = parse_variable(data)
    if variable is None:
        return (Candidate(data),)
    return (Candidate(data, name=proven_variable_name(variable)),)


def _boot_variable(data: bytes) -> tuple[Candidate, ...]:
    """edk2 measures the variable's value alone, so that name and vendor are labels; older rules the whole."""
    variable = parse_variable(data)
    if variable is None:
        return (Candidate(data),)
    return (Candidate(variable.value), Candidate(data, name=proven_variable_name(variable)))


def _authority(data: bytes) -> tuple[Candidate, ...]:
    """The whole structure; some firmware measures the value alone, which leaves the name a label."""
    variable = parse_variable(data)
    if variable is None:
        return (Candidate(data),)
    name = proven_variable_name(variable)
    text = _text(variable.value) if name in VARIABLE_AUTHORITY_TYPES else None
    return (Candidate(data, name=name, text=text), Candidate(variable.value))


def _ipl(data: bytes) -> tuple[Candidate, ...]:
    """Boot loaders: GRUB hashes the text behind its own prefix, systemd-boot the whole field, NUL included."""
    for prefix in _GRUB_PREFIXES:
        if data.startswith(prefix):
            covered = data[len(prefix) :].rstrip(b"\0")
            return (Candidate(covered, text=_text(covered)),)
    if data[1:2] == b"\0":
        wide = _utf16(data)
        return (Candidate(data, text=wide.rstrip("\0") if wide is not None else None),)
    bare = data.rstrip(b"\0")
    text = _text(bare)
    return (Candidate(bare, text=text), Candidate(data, text=text))


_RULES: Final[dict[int, Callable[[bytes], tuple[Candidate, ...]]]] = {
    EventType.EV_POST_CODE: _action,
    EventType.EV_SEPARATOR: _separator,
    EventType.EV_ACTION: _action,
    EventType.EV_EVENT_TAG: _whole,
    EventType.EV_S_CRTM_VERSION: _version,
    EventType.EV_CPU_MICROCODE: _whole,
    EventType.EV_PLATFORM_CONFIG_FLAGS: _whole,
    EventType.EV_TABLE_OF_DEVICES: _whole,
    EventType.EV_COMPACT_HASH: _whole,
    EventType.EV_IPL: _ipl,
    EventType.EV_NONHOST_INFO: _whole,
    EventType.EV_OMIT_BOOT_DEVICE_EVENTS: _action,
    EventType.EV_EFI_VARIABLE_DRIVER_CONFIG: _driver_config,
    EventType.EV_EFI_VARIABLE_BOOT: _boot_variable,
    EventType.EV_EFI_VARIABLE_BOOT2: _boot_variable,
    EventType.EV_EFI_GPT_EVENT: _whole,
    EventType.EV_EFI_GPT_EVENT2: _whole,
    EventType.EV_EFI_ACTION: _action,
    EventType.EV_EFI_HCRTM_EVENT: _action,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _authority,
}


def candidates(event_type: int, data: bytes) -> tuple[Candidate, ...]:
    """What the digest may cover, most usual first; empty where the type's digest never covers the data.

    Image loads (an Authenticode digest of a file), firmware blobs and tables are of the last kind: their data
    is an address or a path that nobody signed.
    """
    rule = _RULES.get(event_type)
    return rule(data) if rule is not None else ()
