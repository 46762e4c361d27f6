"""Which bytes of an event its digest covers, per event type (docs/binding.md).

An event's data proves nothing by standing in the log; it is proven when the measured digest can be recomputed
from it. This module names the bytes to hash and what they would prove; `verifier.appraisal.boot` compares. Names
and texts come from covered bytes alone: the rest of an event is a label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from verifier.tcg.event_types import USERSPACE, EventType
from verifier.tcg.uefi import parse_variable, variable_name
from verifier.tcg.userspace_text import kind_of

Proven = tuple[str | None, str | None]
"""Stable name within the event type, and text for people and text rules."""
NOTHING: Final[Proven] = (None, None)

_GRUB_PREFIXES: Final = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ")
_RED_HAT_PREFIXES: Final = (b"grub_cmd ", b"grub_kernel_cmdline ")
SEPARATOR_SIZE: Final = 4
SHIM_EXCESS: Final = 6
"""Bytes that old shims log behind their EV_EFI_VARIABLE_AUTHORITY structures."""
_TEXT_VARIABLES: Final = frozenset({"SbatLevel"})


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _utf16(data: bytes) -> str | None:
    try:
        return data.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError:
        return None


def _nothing(_: bytes) -> Proven:
    return NOTHING


def _text(data: bytes) -> Proven:
    text = _utf8(data)
    return None, text.rstrip("\0") if text is not None else None


def _separator(data: bytes) -> Proven:
    """Four bytes; whatever else calls itself a separator has no text, or an image could hide in one."""
    if len(data) != SEPARATOR_SIZE:
        return NOTHING
    return None, data.decode("ascii") if data.isalnum() else data.hex()


def _version(data: bytes) -> Proven:
    return (None, _utf16(data)) if len(data) > 1 and data[1] == 0 else _text(data)


def _variable(data: bytes) -> Proven:
    variable = parse_variable(data)
    if variable is None:
        return NOTHING
    name = variable_name(variable)
    return name, _utf8(variable.value) if name in _TEXT_VARIABLES else None


def _userspace(data: bytes) -> Proven:
    """The string is hashed, without NUL (systemd, "TPM2 PCR Measurements Made by systemd")."""
    text = _utf8(data)
    return (None, None) if text is None else (kind_of(text), text)


ALWAYS_COVERED: Final = frozenset(
    {
        EventType.EV_SEPARATOR,
        EventType.EV_EFI_ACTION,
        EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
    }
)
"""Types whose digest covers the data on every sound platform, so that a difference is worth pointing at. Not
EV_S_CRTM_VERSION: servers of Dell measure something else than the version they log."""

_WHOLE: Final[dict[int, Callable[[bytes], Proven]]] = {
    EventType.EV_POST_CODE: _text,
    EventType.EV_SEPARATOR: _separator,
    EventType.EV_ACTION: _text,
    EventType.EV_EVENT_TAG: _nothing,
    EventType.EV_S_CRTM_VERSION: _version,
    EventType.EV_CPU_MICROCODE: _nothing,
    EventType.EV_PLATFORM_CONFIG_FLAGS: _text,
    EventType.EV_TABLE_OF_DEVICES: _nothing,
    EventType.EV_COMPACT_HASH: _nothing,
    EventType.EV_NONHOST_INFO: _nothing,
    EventType.EV_OMIT_BOOT_DEVICE_EVENTS: _text,
    EventType.EV_EFI_VARIABLE_DRIVER_CONFIG: _variable,
    EventType.EV_EFI_VARIABLE_BOOT2: _variable,
    EventType.EV_EFI_GPT_EVENT: _nothing,
    EventType.EV_EFI_GPT_EVENT2: _nothing,
    EventType.EV_EFI_ACTION: _text,
    EventType.EV_EFI_HCRTM_EVENT: _text,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _variable,
    USERSPACE: _userspace,
}


def whole(event_type: int) -> Callable[[bytes], Proven] | None:
    """For types whose digest covers the whole event: what the data then proves. None for the others."""
    return _WHOLE.get(event_type)


def parts(event_type: int, data: bytes) -> tuple[tuple[bytes, Proven], ...]:
    """Other bytes a digest of this type may cover, most usual first, each with what they would prove.

    Nothing for image loads (an Authenticode digest of a file), firmware blobs and tables: their data is an
    address or a path that nobody signed.
    """
    rule = _PARTS.get(event_type)
    return rule(data) if rule is not None else ()


def _boot_variable(data: bytes) -> tuple[tuple[bytes, Proven], ...]:
    """edk2 measures the value alone, so that name and vendor are labels; others the whole structure."""
    variable = parse_variable(data)
    if variable is None:
        return ()
    return (variable.value, NOTHING), (data, (variable_name(variable), None))


def _authority(data: bytes) -> tuple[tuple[bytes, Proven], ...]:
    """Some firmware measures the value alone; shim up to 15.4 logs six bytes too many and measures five of them."""
    variable = parse_variable(data)
    if variable is not None:
        return ((variable.value, NOTHING),)
    variable = parse_variable(data[:-SHIM_EXCESS])
    return ((data[:-1], (variable_name(variable), None)),) if variable is not None else ()


def _ipl(data: bytes) -> tuple[tuple[bytes, Proven], ...]:
    """Boot loaders: GRUB and Red Hat's GRUB hash the text behind a prefix, systemd-boot UTF-16 text."""
    if data.startswith(_GRUB_PREFIXES):
        covered = data[data.index(b" ") + 1 :].rstrip(b"\0")
        return ((covered, (None, _utf8(covered))),)
    if data.startswith(_RED_HAT_PREFIXES):
        bare = data[data.index(b" ") + 1 :].split(b"\0", 1)[0]
        proven = (None, _utf8(bare))
        return (bare + b"\0", proven), (bare, proven)
    if data[1:2] == b"\0":
        wide = (None, _utf16(data))
        return (data.removesuffix(b"\0\0"), wide), (data, wide)
    return ((data, (None, _utf8(data.rstrip(b"\0")))),)


_PARTS: Final[dict[int, Callable[[bytes], tuple[tuple[bytes, Proven], ...]]]] = {
    EventType.EV_EFI_VARIABLE_BOOT: _boot_variable,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _authority,
    EventType.EV_IPL: _ipl,
}
