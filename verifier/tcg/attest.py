"""TPMS_ATTEST (TPM 2.0 Library Specification, Part 2, section 10.12)."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from msgspec import Struct

from verifier.errors import EvidenceError, MalformedInputError
from verifier.reasons import Reason
from verifier.tcg.pcr import PcrSelection, read_selections
from verifier.tcg.reader import Reader

TPM_GENERATED_VALUE: Final = 0xFF544347
"""`ff 'T' 'C' 'G'`: a restricted key signs nothing from outside that begins so."""
TPM_ST_ATTEST_NV: Final = 0x8014
TPM_ST_ATTEST_QUOTE: Final = 0x8018

STRUCTURE: Final = "TPMS_ATTEST"
_MAX_NAME: Final = 66
_MAX_DATA: Final = 66
_MAX_DIGEST: Final = 64
_MAX_NV_BUFFER: Final = 2048

# The layout nearly every quote has: SHA-256 name, 32-byte nonce, one bank of 24 PCRs, SHA-256 digest.
# In order: magic, type and size of the name; name; nonce with its size; clock info; firmware version; the
# selection; digest with its size.
_ORDINARY: Final = struct.Struct(">8s34sH32sQIIBQ10sH32s")
_ORDINARY_SIZE: Final = _ORDINARY.size
_ORDINARY_HEAD: Final = struct.pack(">IHH", TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE, 34)
_ORDINARY_SIZES: Final = (32, 32)
# The same beginning, then the name of the index with its size, the offset, and 32 bytes of contents with theirs: the
# whole of an index that is extended with SHA-256.
_ORDINARY_NV: Final = struct.Struct(">8s34sH32sQIIBQH34sHH32s")
_ORDINARY_NV_SIZE: Final = _ORDINARY_NV.size
_ORDINARY_NV_HEAD: Final = struct.pack(">IHH", TPM_GENERATED_VALUE, TPM_ST_ATTEST_NV, 34)
_ORDINARY_NV_SIZES: Final = (32, 34, 32)


class ClockInfo(Struct, frozen=True):
    """TPMS_CLOCK_INFO (Part 2, section 10.11.1).

    Attributes:
        clock: milliseconds the TPM was powered, u64.
        reset_count: TPM resets since TPM2_Clear, u32.
        restart_count: TPM restarts and resumes since the last reset, u32.
        safe: no higher clock value than this was ever reported.
    """

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


class QuoteAttest(Struct, frozen=True):
    """A quote as a TPM2_Quote makes it. Proves nothing until its signature is verified.

    Attributes:
        qualified_signer: qualified name of the signing key; depends on the key's ancestors.
        extra_data: the nonce (qualifyingData) of the caller.
        clock: state of the TPM's clock and counters.
        firmware_version: vendor's number, u64.
        selections: quoted PCRs, in the order in which `pcr_digest` covers them.
        pcr_digest: digest of the quoted values with the hash of the signing scheme.
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes


class NvCertifyAttest(Struct, frozen=True):
    """NV contents as TPM2_NV_Certify makes it (TPMS_NV_CERTIFY_INFO, Part 2, section 10.12.8).

    Proves nothing until its signature is verified; then it proves the contents at `offset` of the index whose
    *name* (attributes and policy included) is `index_name`. The first four fields are those of `QuoteAttest`.
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    index_name: bytes
    offset: int
    contents: bytes


def parse_attest(data: bytes) -> QuoteAttest | NvCertifyAttest:
    """Parse a TPMS_ATTEST of type quote or NV certification; no trailing bytes.

    Args:
        data: the structure as signed, big-endian: the content of a TPM2B_ATTEST, without its size prefix.

    Raises:
        MalformedInputError: not such a structure; `reason` is QUOTE_MAGIC where a TPM did not make it, and
            QUOTE_TYPE where it attests something else.
        UnsupportedError: a PCR bank of unknown algorithm.
    """
    certified = _parse_ordinary_nv(data) if len(data) == _ORDINARY_NV_SIZE else None
    return certified or _parse_any(data)


def _parse_any(data: bytes) -> QuoteAttest | NvCertifyAttest:
    reader = Reader(data, STRUCTURE)
    kind = _read_kind(reader)
    if kind not in (TPM_ST_ATTEST_QUOTE, TPM_ST_ATTEST_NV):
        raise _wrong_type(kind, "neither a quote nor an NV certification")
    signer = reader.sized_u16("qualifiedSigner", limit=_MAX_NAME)
    extra = reader.sized_u16("extraData", limit=_MAX_DATA)
    clock = _read_clock(reader)
    firmware = reader.u64("firmwareVersion")
    if kind == TPM_ST_ATTEST_NV:
        name = reader.sized_u16("indexName", limit=_MAX_NAME)
        offset = reader.u16("offset")
        contents = reader.sized_u16("nvContents", limit=_MAX_NV_BUFFER)
        reader.finish()
        return NvCertifyAttest(signer, extra, clock, firmware, name, offset, contents)
    selections = read_selections(reader)
    digest = reader.sized_u16("pcrDigest", limit=_MAX_DIGEST)
    reader.finish()
    return QuoteAttest(signer, extra, clock, firmware, selections, digest)


def parse_quote(data: bytes) -> QuoteAttest:
    """Parse a TPMS_ATTEST that must be a quote. Arguments and errors as `parse_attest`."""
    quote = _parse_ordinary(data) if len(data) == _ORDINARY_SIZE else None
    if quote is not None:
        return quote
    attest = parse_attest(data)
    if isinstance(attest, NvCertifyAttest):
        raise _wrong_type(TPM_ST_ATTEST_NV, "not a quote")
    return attest


def _parse_ordinary(data: bytes) -> QuoteAttest | None:
    """One unpacking for the layout above; None hands over to the reader, which knows where a fault is."""
    fields = _ORDINARY.unpack(data)
    head, signer, extra_size, extra, clock, resets, restarts, safe, firmware, listed, digest_size, digest = (
        fields
    )
    if head != _ORDINARY_HEAD or (extra_size, digest_size) != _ORDINARY_SIZES or safe > 1:
        return None
    selections = _whole_list(listed)
    if selections is None:
        return None
    return QuoteAttest(
        signer, extra, ClockInfo(clock, resets, restarts, safe == 1), firmware, selections, digest
    )


def _parse_ordinary_nv(data: bytes) -> NvCertifyAttest | None:
    """Likewise."""
    fields = _ORDINARY_NV.unpack(data)
    head, signer, extra_size, extra, clock, resets, restarts, safe, firmware = fields[:9]
    name_size, name, offset, size, contents = fields[9:]
    if head != _ORDINARY_NV_HEAD or (extra_size, name_size, size) != _ORDINARY_NV_SIZES or safe > 1:
        return None
    info = ClockInfo(clock, resets, restarts, safe == 1)
    return NvCertifyAttest(signer, extra, info, firmware, name, offset, contents)


@lru_cache(maxsize=1024)
def _whole_list(listed: bytes) -> tuple[PcrSelection, ...] | None:
    """The selections of exactly these bytes, remembered because a fleet asks for few; None where there is a fault."""
    reader = Reader(listed, STRUCTURE)
    try:
        selections = read_selections(reader)
        reader.finish()
    except EvidenceError:
        return None
    return selections


def _read_kind(reader: Reader) -> int:
    magic = reader.u32("magic")
    if magic != TPM_GENERATED_VALUE:
        raise MalformedInputError(
            STRUCTURE,
            0,
            f"magic 0x{magic:08x} is not 0x{TPM_GENERATED_VALUE:08x}: a TPM did not make this",
            reason=Reason.QUOTE_MAGIC,
        )
    return reader.u16("type")


def _read_clock(reader: Reader) -> ClockInfo:
    clock, resets, restarts = reader.u64("clock"), reader.u32("resetCount"), reader.u32("restartCount")
    start = reader.offset
    safe = reader.u8("safe")
    if safe > 1:
        raise reader.error(f"safe is {safe}, neither 0 nor 1", offset=start)
    return ClockInfo(clock, resets, restarts, safe == 1)


def _wrong_type(kind: int, problem: str) -> MalformedInputError:
    return MalformedInputError(STRUCTURE, 4, f"type 0x{kind:04x} is {problem}", reason=Reason.QUOTE_TYPE)
