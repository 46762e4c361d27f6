"""What Windows knows of the machine: firmware tables and the registry. Nothing of it is proven."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any, Final, Protocol

from agent.errors import SourceError
from agent.windows.tbs import Log, Tbs, load_library

_RSMB: Final = int.from_bytes(b"RSMB")
"""Signature of the SMBIOS provider, as `GetSystemFirmwareTable` takes it (most significant letter first)."""
_CURRENT_VERSION: Final = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_CRYPTOGRAPHY: Final = r"SOFTWARE\Microsoft\Cryptography"
_FIRST_WINDOWS_11: Final = 22000


class Machine(Protocol):
    """What a collector asks of the running Windows."""

    def boot_log(self) -> bytes | None:
        """The log of what PCRs 0 to 15 of this session came from, None where firmware handed none over."""

    def smbios(self) -> bytes:
        """RawSMBIOSData, its eight bytes of header included; empty where there is none."""

    def registry(self, key: str, name: str) -> str | int | None:
        """A value below HKEY_LOCAL_MACHINE (64-bit view), None where it is not."""

    def hostname(self) -> str:
        """The computer's name."""


class Windows:
    """The running system."""

    def boot_log(self) -> bytes | None:
        """See `Machine`."""
        return Tbs(load_library()).log(Log.SRTM_CURRENT)

    def smbios(self) -> bytes:
        """See `Machine`."""
        return firmware_table(_kernel32(), _RSMB, 0)

    def registry(self, key: str, name: str) -> str | int | None:
        """See `Machine`."""
        if sys.platform != "win32":
            return None
        import winreg  # noqa: PLC0415 - exists on Windows alone

        try:
            with winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE, key, access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY
            ) as opened:
                value, _ = winreg.QueryValueEx(opened, name)
        except OSError:
            return None
        return value if isinstance(value, str | int) else None

    def hostname(self) -> str:
        """See `Machine`."""
        return platform.node()


def _kernel32() -> Any:  # noqa: ANN401 - ctypes has no types for what a library exports
    if sys.platform != "win32":
        raise SourceError("firmware tables are asked of Windows", "this system has them under /sys/firmware")
    return ctypes.WinDLL("kernel32.dll", winmode=0x800)


def firmware_table(library: Any, provider: int, table: int) -> bytes:  # noqa: ANN401
    """`GetSystemFirmwareTable` of a loaded kernel32; empty where there is none.

    Raises:
        SourceError: the table changed its size while it was read.
    """
    call = library.GetSystemFirmwareTable
    call.argtypes = [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32]
    call.restype = ctypes.c_uint32
    size = call(provider, table, None, 0)
    if size == 0:
        return b""
    content = ctypes.create_string_buffer(size)
    written = call(provider, table, content, size)
    if written > size:
        raise SourceError("a firmware table grew while it was read", "try again")
    return content.raw[:written]


def os_name(machine: Machine) -> str:
    """Such as `Windows Server 2022 Standard`.

    Windows 11 still calls itself `Windows 10` there; its build number tells.
    """
    product = machine.registry(_CURRENT_VERSION, "ProductName")
    if not isinstance(product, str) or not product:
        return "Windows"
    build = machine.registry(_CURRENT_VERSION, "CurrentBuildNumber")
    if isinstance(build, str) and build.isdigit() and int(build) >= _FIRST_WINDOWS_11:
        return product.replace("Windows 10", "Windows 11", 1)
    return product


def os_release(machine: Machine) -> str | None:
    """Build and revision, such as `10.0.20348.2402`."""
    build = machine.registry(_CURRENT_VERSION, "CurrentBuildNumber")
    if not isinstance(build, str) or not build:
        return None
    major = machine.registry(_CURRENT_VERSION, "CurrentMajorVersionNumber")
    minor = machine.registry(_CURRENT_VERSION, "CurrentMinorVersionNumber")
    revision = machine.registry(_CURRENT_VERSION, "UBR")
    parts = [major, minor, build] if isinstance(major, int) and isinstance(minor, int) else [build]
    return ".".join(str(part) for part in (*parts, revision) if part is not None)


def machine_guid(machine: Machine) -> str | None:
    """Made when Windows is installed, and copied with its disk unless `sysprep` makes another."""
    value = machine.registry(_CRYPTOGRAPHY, "MachineGuid")
    return value.lower() if isinstance(value, str) and value else None
