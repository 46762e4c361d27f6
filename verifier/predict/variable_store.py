"""Variables in a firmware image: edk2's authenticated variable store, as in OVMF_VARS.fd.

edk2, MdeModulePkg/Include/Guid/VariableFormat.h; UEFI Platform Initialization 1.7, volume 3, section 3.2.1 (firmware
volume header). Little-endian. Only what survives a power cycle is in it, so `SecureBoot` is worked out.
"""

from __future__ import annotations

import struct
from typing import Final

from verifier.errors import MalformedInputError, UnsupportedError
from verifier.predict.errors import PredictionError
from verifier.predict.variables import SecureBootVariables, from_variables
from verifier.tcg.guid import guid_bytes
from verifier.tcg.uefi import GLOBAL_VARIABLE

STRUCTURE: Final = "variable store"
MAX_VARIABLES: Final = 4096

_VOLUME_GUID: Final = guid_bytes("fff12b8d-7696-4c8b-a985-2747075b4f50")
_STORE_GUID: Final = guid_bytes("aaf32c78-947b-439a-a180-2e144ec37792")
_VOLUME_GUID_OFFSET: Final = 16
_HEADER_LENGTH_OFFSET: Final = 48
_STORE: Final = struct.Struct("<16sIBB")
_STORE_HEADER_SIZE: Final = 28
_FORMATTED, _HEALTHY = 0x5A, 0xFE
_VARIABLE: Final = struct.Struct("<HBBIQ16sIII16s")
_START: Final = 0x55AA
_ADDED: Final = 0x3F
_IN_TRANSITION: Final = 0x3E
_ALIGNMENT: Final = 4
_ENABLE: Final = ("SecureBootEnable", guid_bytes("f0a30bc7-af08-4556-99c4-001009c93a44"))
_PLATFORM_KEY: Final = ("PK", GLOBAL_VARIABLE)


def is_variable_store(data: bytes) -> bool:
    """Whether this begins like a firmware volume with variables."""
    return data[_VOLUME_GUID_OFFSET : _VOLUME_GUID_OFFSET + 16] == _VOLUME_GUID


def read_variable_store(data: bytes) -> SecureBootVariables:
    """The Secure Boot variables that a guest with this store boots with.

    `SecureBoot` is on when a platform key is there and `SecureBootEnable` is not 0, which is what edk2 makes of it.

    Raises:
        MalformedInputError: sizes that do not fit.
        UnsupportedError: another kind of store.
        PredictionError: a name that is not UTF-16.
    """
    variables = dict(_variables(data))
    on = bool(variables.get(_PLATFORM_KEY)) and variables.get(_ENABLE, b"\x01") != b"\0"
    return from_variables(variables | {("SecureBoot", GLOBAL_VARIABLE): b"\x01" if on else b"\0"})


def _variables(data: bytes) -> list[tuple[tuple[str, bytes], bytes]]:
    start, end = _store_range(data)
    found: list[tuple[tuple[str, bytes], bytes]] = []
    for _ in range(MAX_VARIABLES):
        if end - start < _VARIABLE.size or int.from_bytes(data[start : start + 2], "little") != _START:
            return found
        fields = _VARIABLE.unpack_from(data, start)
        state, name_size, data_size, vendor = fields[1], fields[7], fields[8], fields[9]
        content = start + _VARIABLE.size
        after = content + name_size + data_size
        if after > end:
            raise _error(start, f"a variable of {name_size} and {data_size} bytes, {end - content} are left")
        if state in (_ADDED, _IN_TRANSITION):
            name = _name(data[content : content + name_size])
            found.append(((name, vendor), data[content + name_size : after]))
        start = after + -after % _ALIGNMENT
    raise _error(start, f"more than {MAX_VARIABLES} variables")


def _store_range(data: bytes) -> tuple[int, int]:
    if not is_variable_store(data) or len(data) < _HEADER_LENGTH_OFFSET + 2:
        raise UnsupportedError("not a firmware volume with variables", structure=STRUCTURE)
    start = int.from_bytes(data[_HEADER_LENGTH_OFFSET : _HEADER_LENGTH_OFFSET + 2], "little")
    if len(data) - start < _STORE_HEADER_SIZE:
        raise _error(_HEADER_LENGTH_OFFSET, f"a volume header of {start} bytes in a file of {len(data)}")
    guid, size, formatted, state = _STORE.unpack_from(data, start)
    if guid != _STORE_GUID or (formatted, state) != (_FORMATTED, _HEALTHY):
        raise UnsupportedError("not a store of authenticated variables", structure=STRUCTURE, offset=start)
    if size > len(data) - start:
        raise _error(start + 16, f"a store of {size} bytes, {len(data) - start} are left")
    return start + _STORE_HEADER_SIZE, start + size


def _name(raw: bytes) -> str:
    try:
        return raw.decode("utf-16-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise PredictionError("a variable's name is not UTF-16", where=STRUCTURE) from error


def _error(offset: int, detail: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, offset, detail)
