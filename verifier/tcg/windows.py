"""Tagged events of the Windows boot manager and loader (SIPA): what a WBCL log says of Windows.

Windows measures TCG_PCClientTaggedEvent records into PCRs 11 to 14, H(the whole event data), so that what is
decoded here is covered by the digest (Windows SDK, wbcl.h; "TPM and PC Client Protection Profile" names none of
it). A container holds further records; its content is measured as a whole with it. All integers little-endian.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from verifier.errors import MalformedInputError
from verifier.tcg.reader import Reader

STRUCTURE: Final = "SIPA event"
NON_MEASURED: Final = 0x80000000
AGGREGATION: Final = 0x40000000
MAX_RECORDS: Final = 8192
MAX_DEPTH: Final = 4

_HEADER: Final = struct.Struct("<II")
_new_record: Final = tuple.__new__


class Sipa(enum.IntEnum):
    """Registered record types (wbcl.h, SIPAEVENT_*)."""

    TRUSTBOUNDARY = 0x40010001
    ELAM_AGGREGATION = 0x40010002
    LOADEDMODULE_AGGREGATION = 0x40010003
    TRUSTPOINT_AGGREGATION = 0xC0010004
    KSR_AGGREGATION = 0x40010005
    KSR_SIGNED_MEASUREMENT_AGGREGATION = 0x40010006
    INFORMATION = 0x00020001
    BOOTCOUNTER = 0x00020002
    TRANSFER_CONTROL = 0x00020003
    APPLICATION_RETURN = 0x00020004
    BITLOCKER_UNLOCK = 0x00020005
    EVENTCOUNTER = 0x00020006
    COUNTERID = 0x00020007
    MORBIT_NOT_CANCELABLE = 0x00020008
    APPLICATION_SVN = 0x00020009
    SVN_CHAIN_STATUS = 0x0002000A
    MORBIT_API_STATUS = 0x0002000B
    IDK_GENERATION_STATUS = 0x0002000C
    FIRMWAREFAILURE = 0x00030001
    TPMFAILURE = 0x80030002
    INTERNALFAILURE = 0x00030003
    KSRFAILURE = 0x80030004
    HYPERVISORFAILURE = 0x00030005
    BOOTDEBUGGING = 0x00040001
    BOOT_REVOCATION_LIST = 0x00040002
    OSKERNELDEBUG = 0x00050001
    CODEINTEGRITY = 0x00050002
    TESTSIGNING = 0x00050003
    DATAEXECUTIONPREVENTION = 0x00050004
    SAFEMODE = 0x00050005
    WINPE = 0x00050006
    PHYSICALADDRESSEXTENSION = 0x00050007
    OSDEVICE = 0x00050008
    SYSTEMROOT = 0x00050009
    HYPERVISOR_LAUNCH_TYPE = 0x0005000A
    HYPERVISOR_PATH = 0x0005000B
    HYPERVISOR_IOMMU_POLICY = 0x0005000C
    HYPERVISOR_DEBUG = 0x0005000D
    DRIVER_LOAD_POLICY = 0x0005000E
    SI_POLICY = 0x0005000F
    HYPERVISOR_MMIO_NX_POLICY = 0x00050010
    HYPERVISOR_MSR_FILTER_POLICY = 0x00050011
    VSM_LAUNCH_TYPE = 0x00050012
    OS_REVOCATION_LIST = 0x00050013
    SMT_STATUS = 0x00050014
    VSM_IDK_INFO = 0x00050020
    FLIGHTSIGNING = 0x00050021
    PAGEFILE_ENCRYPTION_ENABLED = 0x00050022
    VSM_IDKS_INFO = 0x00050023
    HIBERNATION_DISABLED = 0x00050024
    DUMPS_DISABLED = 0x00050025
    DUMP_ENCRYPTION_ENABLED = 0x00050026
    DUMP_ENCRYPTION_KEY_DIGEST = 0x00050027
    LSAISO_CONFIG = 0x00050028
    SBCP_INFO = 0x00050029
    HYPERVISOR_BOOT_DMA_PROTECTION = 0x00050030
    SI_POLICY_SIGNER = 0x00050031
    SI_POLICY_UPDATE_SIGNER = 0x00050032
    NOAUTHORITY = 0x00060001
    AUTHORITYPUBKEY = 0x00060002
    FILEPATH = 0x00070001
    IMAGESIZE = 0x00070002
    HASHALGORITHMID = 0x00070003
    AUTHENTICODEHASH = 0x00070004
    AUTHORITYISSUER = 0x00070005
    AUTHORITYSERIAL = 0x00070006
    IMAGEBASE = 0x00070007
    AUTHORITYPUBLISHER = 0x00070008
    AUTHORITYSHA1THUMBPRINT = 0x00070009
    IMAGEVALIDATED = 0x0007000A
    MODULE_SVN = 0x0007000B
    MODULE_PLUTON = 0x0007000C
    MODULE_ORIGINAL_FILENAME = 0x0007000D
    MODULE_VERSION = 0x0007000E
    PUBLISHER_OEMNAME = 0x0007000F
    QUOTE = 0x80080001
    QUOTESIGNATURE = 0x80080002
    AIKID = 0x80080003
    AIKPUBDIGEST = 0x80080004
    ELAM_KEYNAME = 0x00090001
    ELAM_CONFIGURATION = 0x00090002
    ELAM_POLICY = 0x00090003
    ELAM_MEASURED = 0x00090004
    VBS_VSM_REQUIRED = 0x000A0001
    VBS_SECUREBOOT_REQUIRED = 0x000A0002
    VBS_IOMMU_REQUIRED = 0x000A0003
    VBS_MMIO_NX_REQUIRED = 0x000A0004
    VBS_MSR_FILTERING_REQUIRED = 0x000A0005
    VBS_MANDATORY_ENFORCEMENT = 0x000A0006
    VBS_HVCI_POLICY = 0x000A0007
    VBS_MICROSOFT_BOOT_CHAIN_REQUIRED = 0x000A0008
    VBS_DUMP_USES_AMEROOT = 0x000A0009
    VBS_VSM_NOSECRETS_ENFORCED = 0x000A000A
    KSR_SIGNATURE = 0x000B0001
    DRTM_STATE_AUTH = 0x000C0001
    DRTM_SMM_LEVEL = 0x000C0002
    DRTM_AMD_SMM_HASH = 0x000C0003
    DRTM_AMD_SMM_SIGNER_KEY = 0x000C0004


SIPA_NAMES: Final[dict[int, str]] = {int(kind): kind.name.lower() for kind in Sipa}


class Record(NamedTuple):
    """One SIPA record; a container has `parts` and no other content.

    A named tuple: a log has hundreds, and a frozen dataclass costs several times as much to make.
    """

    kind: int
    content: bytes
    parts: tuple[Record, ...] = ()

    @property
    def name(self) -> str:
        """Registered name in lower case, or the number."""
        return SIPA_NAMES.get(self.kind) or f"0x{self.kind:08x}"

    @property
    def text(self) -> str:
        """Content as UTF-16, without its terminator."""
        return self.content.decode("utf-16-le", "replace").rstrip("\0")

    @property
    def number(self) -> int:
        """Content as an unsigned number."""
        return int.from_bytes(self.content, "little")


def parse_sipa(data: bytes) -> tuple[Record, ...]:
    """The records that `data`, the whole event field, consists of.

    Raises:
        MalformedInputError: a size does not fit, or more records or levels than Windows writes.
    """
    return _records(data, 0, len(data), MAX_DEPTH, [MAX_RECORDS])


def _records(data: bytes, start: int, end: int, levels: int, budget: list[int]) -> tuple[Record, ...]:
    """Records from `start` to `end`, at most `levels` deep; `budget` is how many more there may be."""
    records: list[Record] = []
    while start < end:
        content = start + _HEADER.size
        if content > end:
            raise MalformedInputError(STRUCTURE, start, f"{end - start} bytes are left over")
        kind, size = _HEADER.unpack_from(data, start)
        stop = content + size
        if stop > end:
            raise MalformedInputError(
                STRUCTURE, start + 4, f"size {size} exceeds the {end - content} bytes left"
            )
        budget[0] -= 1
        if budget[0] < 0 or not levels:
            raise MalformedInputError(
                STRUCTURE, start, f"more than {MAX_RECORDS} records or {MAX_DEPTH} levels"
            )
        if kind & AGGREGATION:
            parts = _records(data, content, stop, levels - 1, budget)
            records.append(_new_record(Record, (kind, b"", parts)))
        else:
            records.append(_new_record(Record, (kind, data[content:stop], ())))
        start = stop
    return tuple(records)


def parse_si_policy(content: bytes) -> str:
    """Name of a code-integrity policy (SIPAEVENT_SI_POLICY_PAYLOAD).

    Raises:
        MalformedInputError: a length does not fit.
    """
    reader = Reader(content, "SIPAEVENT_SI_POLICY_PAYLOAD")
    reader.u64le("PolicyVersion")
    size = reader.u16le("PolicyNameLength")
    reader.u16le("HashAlgID")
    reader.u32le("DigestLength")
    return reader.take(size, "PolicyName").decode("utf-16-le", "replace").rstrip("\0")


_UNLOCK: Final = {
    0x1: "cached",
    0x2: "media",
    0x4: "tpm",
    0x10: "pin",
    0x20: "external",
    0x40: "recovery",
    0x80: "passphrase",
    0x100: "network",
    0x200: "os-volume-key",
}


def unlock_flags(value: int) -> frozenset[str]:
    """By what BitLocker unlocked a volume (FVEB_UNLOCK_FLAG_*); unknown bits as hexadecimal."""
    names = {name for bit, name in _UNLOCK.items() if value & bit}
    unknown = value & ~sum(_UNLOCK)
    return frozenset(names | {f"0x{unknown:x}"} if unknown else names)
