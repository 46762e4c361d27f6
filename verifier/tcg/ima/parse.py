"""IMA lists, binary and ascii: bytes to entries (Linux, Documentation/security/IMA-templates.rst)."""

from __future__ import annotations

import re
from typing import Final

from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ByteOrder, ImaEntry, ImaFormatError, ImaList, ListEncoding
from verifier.tcg.ima.templates import (
    IMA,
    NUMBERS,
    SHA1_SIZE,
    STRINGS,
    decode_fields,
    fields_of,
    hashed_data,
)
from verifier.tcg.ima.walk import MAX_PCR, RawEntry, detect_encoding, pack_entry, walk

_ASCII_START: Final = re.compile(rb"\s*\d{1,2} [0-9a-fA-F]{40,128} [\x21-\x7e]+ ")
_LINES_TRIED: Final = 64
_LINE_WORDS: Final = 4
_PCR_DIGITS: Final = 2
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2})*")
_ALGORITHM_BY_SIZE: Final = {
    alg.size: alg for alg in (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
}


def parse_binary(
    data: bytes, *, byte_order: ByteOrder = "little", digest_size: int = 20, first_index: int = 0
) -> ImaList:
    """Parse `binary_runtime_measurements`, whole or from the start of any entry.

    Args:
        data: whole entries.
        byte_order: of the guest's kernel (little with `ima_canonical_fmt`).
        digest_size: bytes of a template digest; 20 but in the per-algorithm files of newer kernels.
        first_index: index of the first entry in the guest's list.

    Raises:
        ImaFormatError: with the byte offset and the entry's index.
    """
    encoding = ListEncoding(byte_order, digest_size)
    raw = enumerate(walk(data, encoding, first_index=first_index), first_index)
    return ImaList(encoding, tuple(decode_entry(entry, index, byte_order) for index, entry in raw))


def decode_entry(raw: RawEntry, index: int, byte_order: ByteOrder) -> ImaEntry:
    """Decode the fields of an entry; raises `ImaFormatError` where they are not what their template says."""
    fields = decode_fields(raw.name, raw.data, byte_order, offset=raw.data_offset, entry=index)
    return ImaEntry(index, raw.offset, raw.pcr, raw.name, raw.digest, raw.data, fields)


def parse_ascii(data: bytes, *, byte_order: ByteOrder = "little", first_index: int = 0) -> ImaList:
    """Parse `ascii_runtime_measurements`; the template data is rebuilt from the text, for `byte_order`.

    What the ascii form loses (a path with a line feed in it) makes an entry whose template digest does not fit its
    template data, or an `ImaFormatError`.
    """
    entries: list[ImaEntry] = []
    at = 0
    for line in data.split(b"\n"):
        if line.strip(b" "):
            index = first_index + len(entries)
            raw = _read_line(line, at, index, byte_order)
            entries.append(decode_entry(raw, index, byte_order))
        at += len(line) + 1
    return ImaList(None, tuple(entries))


def parse_list(data: bytes, *, first_index: int = 0) -> ImaList:
    """Parse a list of either form, finding out which it is, its byte order and the size of its template digests.

    The byte order of an ascii list is that for which the template digest of its first measurement fits.
    """
    if is_ascii(data):
        return parse_ascii(data, byte_order=_ascii_order(data), first_index=first_index)
    encoding = detect_encoding(data) if data else ListEncoding()
    return parse_binary(
        data, byte_order=encoding.byte_order, digest_size=encoding.digest_size, first_index=first_index
    )


def is_ascii(data: bytes) -> bool:
    """Whether a list is `ascii_runtime_measurements`."""
    return _ASCII_START.match(data) is not None


def to_binary(data: bytes) -> bytes:
    """A list of either form as a binary one; of an ascii list, what its kernel's binary list would be."""
    if not is_ascii(data):
        return data
    order = _ascii_order(data)
    entries = parse_ascii(data, byte_order=order).entries
    return b"".join(
        pack_entry((one.pcr, one.template_digest, one.template_name, one.template_data), order)
        for one in entries
    )


def fits(entry: ImaEntry, byte_order: ByteOrder) -> bool:
    """Whether the template digest is that of the template data; of a violation it never is."""
    alg = _ALGORITHM_BY_SIZE.get(len(entry.template_digest))
    hashed = hashed_data(entry.template_name, entry.template_data, byte_order)
    return alg is not None and alg.digest(hashed) == entry.template_digest


def _ascii_order(data: bytes) -> ByteOrder:
    """The order for which the first measurement's digest fits; that of template `ima` fits both."""
    for line in data.split(b"\n", _LINES_TRIED)[:_LINES_TRIED]:
        if not line.strip(b" "):
            continue
        raw = _read_line(line, 0, 0, "big")
        if any(raw.digest) and raw.name != IMA:
            return "big" if fits(decode_entry(raw, 0, "big"), "big") else "little"
    return "little"


def _read_line(line: bytes, offset: int, index: int, order: ByteOrder) -> RawEntry:
    """One line: `PCR digest template field...`, fields apart by one space, an empty field being nothing."""
    words = line.lstrip(b" ").split(b" ", _LINE_WORDS - 1)
    if len(words) != _LINE_WORDS:
        raise ImaFormatError(offset, index, "a line has a PCR, a template digest, a template name and fields")
    if not words[0].isdigit() or len(words[0]) > _PCR_DIGITS or int(words[0]) > MAX_PCR:
        raise ImaFormatError(offset, index, f"{words[0][:16]!r} is no PCR")
    digest = _hex(words[1], offset, index, "template digest")
    name = words[2].decode("ascii", "replace")
    names = fields_of(name)
    if names is None:
        raise ImaFormatError(
            offset, index, f"template {name[:40]!r} is unknown: its ascii form cannot be read"
        )
    if len(digest) not in _ALGORITHM_BY_SIZE:
        raise ImaFormatError(offset, index, f"a template digest of {len(digest)} bytes")
    parts = _split(words[3], names, offset, index)
    packed = [_pack(field, part, offset, index, order) for field, part in zip(names, parts, strict=True)]
    if name == IMA:
        path = packed[1].removesuffix(b"\0")
        data = packed[0] + len(path).to_bytes(4, order) + path
    else:
        data = b"".join(len(one).to_bytes(4, order) + one for one in packed)
    return RawEntry(offset, int(words[0]), digest, name, data, offset, offset + len(line))


def _split(text: bytes, names: tuple[str, ...], offset: int, index: int) -> list[bytes]:
    """Fields of a line. Only a name may hold spaces: fields before it are cut from the left, others from the right.

    Empty fields at the end are often lost with the space before them; the template digest tells whether they were.
    """
    place = next((at for at, field in enumerate(names) if field in {"n", "n-ng"}), 0)
    left = text.split(b" ", place)
    after = len(names) - place - 1
    right = left[-1].rsplit(b" ", after) if after else [left[-1]]
    parts = left[:-1] + right + [b""] * (after + 1 - len(right))
    if len(left) != place + 1:
        raise ImaFormatError(offset, index, f"{len(left)} fields where {len(names)} are expected")
    return parts


def _pack(field: str, part: bytes, offset: int, index: int, order: ByteOrder) -> bytes:
    """A field as template data has it, from its ascii form."""
    if field in STRINGS:
        return part + b"\0"
    if field in NUMBERS:
        if not part.isdigit() or int(part) >= 1 << 8 * NUMBERS[field]:
            raise ImaFormatError(
                offset, index, f"{field} {part[:16]!r} is no number of {NUMBERS[field]} bytes"
            )
        return int(part).to_bytes(NUMBERS[field], order)
    if field in {"d-ng", "d-ngv2", "d-modsig"}:
        if not part:
            return b""
        label, colon, digits = part.rpartition(b":")
        if not colon:
            raise ImaFormatError(offset, index, f"field {field} names no algorithm")
        return label + b":\0" + _hex(digits, offset, index, field)
    raw = _hex(part, offset, index, field)
    if field == "d" and len(raw) != SHA1_SIZE:
        raise ImaFormatError(offset, index, f"a digest of {len(raw)} bytes, 20 expected")
    return raw


def _hex(part: bytes, offset: int, index: int, what: str) -> bytes:
    if _HEX.fullmatch(part) is None:
        raise ImaFormatError(offset, index, f"{what} is not hexadecimal: {part[:24]!r}")
    return bytes.fromhex(part.decode("ascii"))
