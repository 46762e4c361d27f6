"""Stand-ins for what only Windows has."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("tbs.c")


def compiled(folder: Path) -> ctypes.CDLL:
    """The stand-in of `tbs.c`, loaded as ctypes loads a DLL; a copy of its own for each folder."""
    library = folder / "tbs.so"
    compiler = shutil.which("gcc") or "cc"
    subprocess.run(
        [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE], check=True, timeout=60
    )
    return ctypes.CDLL(str(library))


class Registry:
    """A Windows as a collector sees it."""

    def __init__(
        self, values: dict[str, str | int], *, smbios: bytes = b"", log: bytes | None = None
    ) -> None:
        self._values = values
        self._smbios = smbios
        self._log = log

    def boot_log(self) -> bytes | None:
        return self._log

    def smbios(self) -> bytes:
        return self._smbios

    def registry(self, key: str, name: str) -> str | int | None:
        return self._values.get(f"{key}\\{name}")

    def hostname(self) -> str:
        return "WIN-GUEST"
