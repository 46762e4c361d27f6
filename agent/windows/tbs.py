"""TPM Base Services (`tbs.dll`) through ctypes: commands to the TPM, and the log of what was measured.

TBS shares one TPM among all programs: it swaps objects and sessions of its contexts in and out, and flushes what a
context, or a process that ended, has left in the TPM. Types and codes: Microsoft, tbs.h and "TBS Return Codes".
"""

from __future__ import annotations

import ctypes
import enum
import sys
from typing import Any, Final

from agent.errors import NoTpmError, TpmBusyError, TpmCommandBlockedError, TpmError, TpmPermissionError

MAX_RESPONSE: Final = 4096
"""Bytes; TPM2_PT_MAX_RESPONSE_SIZE of every TPM seen is at most this."""
_LOG_GREW: Final = 4
"""Times to ask again for a log that became longer between size and content."""
_VERSION_TWO: Final = 2
_INCLUDE_TPM20: Final = 1 << 2
_LOCALITY_ZERO: Final = 0
_PRIORITY_NORMAL: Final = 200
_SUCCESS: Final = 0
_NO_DRTM_LOG: Final = 1


class Log(enum.IntEnum):
    """Which log `Tbsi_Get_TCG_Log_Ex` gives."""

    SRTM_CURRENT = 0
    """What PCRs 0 to 15 of this session came from: of the boot, or of the last resume from hibernation."""
    SRTM_BOOT = 2
    SRTM_RESUME = 3


class Code(enum.IntEnum):
    """TBS_RESULT values that say more than that something failed."""

    INTERNAL_ERROR = 0x80284001
    INSUFFICIENT_BUFFER = 0x80284005
    SERVICE_NOT_RUNNING = 0x80284008
    TOO_MANY_CONTEXTS = 0x80284009
    SERVICE_START_PENDING = 0x8028400B
    TPM_NOT_FOUND = 0x8028400F
    SERVICE_DISABLED = 0x80284010
    NO_EVENT_LOG = 0x80284011
    ACCESS_DENIED = 0x80284012
    COMMAND_BLOCKED = 0x80280400


class _ContextParameters(ctypes.Structure):
    """TBS_CONTEXT_PARAMS2: `includeTpm20` is the third bit of the flags."""

    _fields_ = (("version", ctypes.c_uint32), ("flags", ctypes.c_uint32))


def load_library() -> Any:  # noqa: ANN401 - ctypes has no types for what a library exports
    """`tbs.dll` of this system."""
    if sys.platform != "win32":
        raise NoTpmError(
            "TPM Base Services are a part of Windows",
            "name this system's TPM, e.g. --tcti device:/dev/tpmrm0",
        )
    return ctypes.WinDLL(
        "tbs.dll", winmode=0x800
    )  # LOAD_LIBRARY_SEARCH_SYSTEM32: nobody's DLL but Windows' own


class Tbs:
    """The functions of a loaded `tbs.dll`, with their types."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401
        u32, pointer = ctypes.c_uint32, ctypes.POINTER
        self._create = library.Tbsi_Context_Create
        self._create.argtypes = [pointer(_ContextParameters), pointer(ctypes.c_void_p)]
        self._submit = library.Tbsip_Submit_Command
        self._submit.argtypes = [
            ctypes.c_void_p,
            u32,
            u32,
            ctypes.c_char_p,
            u32,
            ctypes.c_char_p,
            pointer(u32),
        ]
        self._close = library.Tbsip_Context_Close
        self._close.argtypes = [ctypes.c_void_p]
        self._log = library.Tbsi_Get_TCG_Log_Ex
        self._log.argtypes = [u32, ctypes.c_char_p, pointer(u32)]
        for function in (self._create, self._submit, self._close, self._log):
            function.restype = u32

    def open(self) -> TbsContext:
        """A context for a TPM 2.0.

        Raises:
            TpmError: or one below it.
        """
        parameters = _ContextParameters(_VERSION_TWO, _INCLUDE_TPM20)
        handle = ctypes.c_void_p()
        _check(self._create(ctypes.byref(parameters), ctypes.byref(handle)), "Tbsi_Context_Create")
        return TbsContext(self, handle)

    def submit(self, handle: ctypes.c_void_p, command: bytes) -> bytes:
        """One command and its response, both with their headers (TPM 2.0 Part 1, section 18)."""
        response = ctypes.create_string_buffer(MAX_RESPONSE)
        size = ctypes.c_uint32(MAX_RESPONSE)
        result = self._submit(
            handle, _LOCALITY_ZERO, _PRIORITY_NORMAL, command, len(command), response, ctypes.byref(size)
        )
        _check(result, "Tbsip_Submit_Command")
        return response.raw[: size.value]

    def close(self, handle: ctypes.c_void_p) -> None:
        """Give the context back."""
        self._close(handle)

    def log(self, which: Log) -> bytes | None:
        """The Windows Boot Configuration Log, or None where firmware handed none over.

        Raises:
            TpmError: or one below it.
        """
        for _ in range(_LOG_GREW):
            size = ctypes.c_uint32(0)
            result = self._log(which, None, ctypes.byref(size))
            if result in {Code.NO_EVENT_LOG, _NO_DRTM_LOG, Code.INTERNAL_ERROR}:
                return None
            if result not in {_SUCCESS, Code.INSUFFICIENT_BUFFER}:
                _check(result, "Tbsi_Get_TCG_Log_Ex")
            if size.value == 0:
                return None
            content = ctypes.create_string_buffer(size.value)
            result = self._log(which, content, ctypes.byref(size))
            if result != Code.INSUFFICIENT_BUFFER:
                _check(result, "Tbsi_Get_TCG_Log_Ex")
                return content.raw[: size.value]
        raise TpmBusyError(
            "the log of this boot keeps growing while it is read", "try again", rc=Code.INSUFFICIENT_BUFFER
        )


class TbsContext:
    """A context of `Tbs.open`."""

    def __init__(self, tbs: Tbs, handle: ctypes.c_void_p) -> None:
        self._tbs = tbs
        self._handle: ctypes.c_void_p | None = handle

    def submit(self, command: bytes) -> bytes:
        """See `Tbs.submit`."""
        if self._handle is None:
            raise TpmError("the TBS context is closed", "report this: it is a fault of the agent")
        return self._tbs.submit(self._handle, command)

    def close(self) -> None:
        """Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._tbs.close(handle)


def _check(result: int, call: str) -> None:
    match result:
        case 0:
            return
        case Code.TPM_NOT_FOUND:
            raise NoTpmError(
                "Windows finds no TPM 2.0",
                "add a vTPM to this VM (it needs EFI firmware) or enable the TPM in the firmware; `Get-Tpm` shows it",
                rc=result,
            )
        case Code.ACCESS_DENIED:
            raise TpmPermissionError(
                f"{call}: Windows refuses access to the TPM",
                "run as administrator or as the service",
                rc=result,
            )
        case Code.COMMAND_BLOCKED:
            raise TpmCommandBlockedError(
                f"{call}: Windows blocks this TPM command",
                "see the blocked commands in the policy `Trusted Platform Module Services`",
                rc=result,
            )
        case Code.SERVICE_DISABLED:
            raise TpmError(
                f"{call}: TPM Base Services are disabled",
                "start the service `TBS` (`Start-Service tbs`)",
                rc=result,
            )
        case Code.SERVICE_NOT_RUNNING | Code.SERVICE_START_PENDING | Code.TOO_MANY_CONTEXTS:
            raise TpmBusyError(
                f"{call}: TPM Base Services are not ready (0x{result:08x})", "try again", rc=result
            )
        case _:
            raise TpmError(
                f"{call} failed with 0x{result:08x}", "look the code up under `TBS return codes`", rc=result
            )
