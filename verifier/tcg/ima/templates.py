"""Template descriptors and their fields (Linux, security/integrity/ima/ima_template.c and ima_template_lib.c)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from verifier.tcg.ima.entry import ByteOrder, DigestType, ImaFields, ImaFormatError

IMA: Final = "ima"
"""The oldest template: no field lengths, a digest of 20 bytes, a name of at most 255."""
TEMPLATES: Final[Mapping[str, str]] = {
    IMA: "d|n",
    "ima-ng": "d-ng|n-ng",
    "ima-ngv2": "d-ngv2|n-ng",
    "ima-sig": "d-ng|n-ng|sig",
    "ima-sigv2": "d-ngv2|n-ng|sig",
    "ima-buf": "d-ng|n-ng|buf",
    "ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
    "evm-sig": "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
}
NUMBERS: Final = {"iuid": 4, "igid": 4, "imode": 2}
"""Fields that are numbers in the kernel's byte order, with their sizes in bytes (old kernels: smaller ids)."""
STRINGS: Final = frozenset({"n", "n-ng", "xattrnames"})
FIELDS: Final = frozenset("|".join(TEMPLATES.values()).split("|"))
MD5_SIZE: Final = 16
SHA1_SIZE: Final = 20
IMA_NAME_SIZE: Final = 256
"""IMA_EVENT_NAME_LEN_MAX + 1: what template `ima` pads a name to before it is hashed."""

_ALGORITHM: Final = re.compile(rb"[a-z0-9][a-z0-9_-]{0,31}")


def fields_of(template: str) -> tuple[str, ...] | None:
    """Names of a template's fields; a custom `ima_template_fmt` is its own description. None: unknown here."""
    description = TEMPLATES.get(template, template)
    names = tuple(description.split("|"))
    return names if FIELDS.issuperset(names) else None


def hashed_data(template: str, data: bytes, byte_order: ByteOrder) -> bytes:
    """The bytes the kernel hashes for an entry; the template data itself, but for template `ima`.

    For that the name is padded to 256 bytes and has no length (ima_calc_field_array_hash_tfm in ima_crypto.c).
    """
    if template != IMA:
        return data
    size = int.from_bytes(data[SHA1_SIZE : SHA1_SIZE + 4], byte_order)
    name = data[SHA1_SIZE + 4 : SHA1_SIZE + 4 + size]
    return data[:SHA1_SIZE] + name.ljust(IMA_NAME_SIZE, b"\0")


def split_fields(data: bytes, byte_order: ByteOrder, *, offset: int, entry: int) -> list[bytes]:
    """Fields of template data, each after its length (u32).

    Args:
        data: template data, not of template `ima`.
        byte_order: of the lengths.
        offset: of `data`, for errors.
        entry: index, for errors.

    Raises:
        ImaFormatError: a field is longer than what is left, or bytes are left over.
    """
    number = struct.Struct("<I" if byte_order == "little" else ">I")
    fields: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if end - at < number.size:
            raise ImaFormatError(
                offset + at, entry, f"{end - at} bytes where the length of a field is expected"
            )
        (size,) = number.unpack_from(data, at)
        start = at + number.size
        at = start + size
        if at > end:
            raise ImaFormatError(
                offset + start - 4, entry, f"a field of {size} bytes, {end - start} are left"
            )
        fields.append(data[start:at])
    return fields


def decode_fields(template: str, data: bytes, byte_order: ByteOrder, *, offset: int, entry: int) -> ImaFields:
    """Decode template data; of an unknown template nothing is decoded.

    Raises:
        ImaFormatError: as `split_fields`, or a field that is not what its name says.
    """
    names = fields_of(template)
    if names is None:
        return ImaFields()
    if template == IMA:
        size = int.from_bytes(data[SHA1_SIZE : SHA1_SIZE + 4], byte_order)
        parts = [data[:SHA1_SIZE], data[SHA1_SIZE + 4 : SHA1_SIZE + 4 + size]]
    else:
        parts = split_fields(data, byte_order, offset=offset, entry=entry)
    if len(parts) != len(names):
        raise ImaFormatError(offset, entry, f"{len(parts)} fields where {template} has {len(names)}")
    found: dict[str, Any] = {}
    extra: dict[str, bytes] = {}
    for name, part in zip(names, parts, strict=True):
        try:
            decode = _DECODERS.get(name)
            if decode is None:
                extra[name] = part
            else:
                decode(found, part)
        except ValueError as error:
            raise ImaFormatError(offset, entry, f"field {name}: {error}") from error
    return ImaFields(**found, extra=extra)


def _digest(part: bytes, count: int) -> tuple[list[str], bytes]:
    """The `count` labels before the digest, and it: `sha256:` NUL digest, or `verity:sha256:` NUL digest."""
    head, separator, digest = part.partition(b":\0")
    labels = head.split(b":")
    if not separator or len(labels) != count or not all(map(_ALGORITHM.fullmatch, labels)):
        raise ValueError(
            "the digest does not come after what it is" if count > 1 else "no algorithm before the digest"
        )
    return [label.decode("ascii") for label in labels], digest


def _d(found: dict[str, Any], part: bytes) -> None:
    if len(part) not in {MD5_SIZE, SHA1_SIZE}:
        raise ValueError(f"a digest of {len(part)} bytes")
    found["algorithm"] = "md5" if len(part) == MD5_SIZE else "sha1"
    found["digest"] = part


def _d_ng(found: dict[str, Any], part: bytes) -> None:
    (found["algorithm"],), found["digest"] = _digest(part, 1)


def _d_ngv2(found: dict[str, Any], part: bytes) -> None:
    (kind, found["algorithm"]), found["digest"] = _digest(part, 2)
    found["digest_type"] = DigestType(kind)


def _d_modsig(found: dict[str, Any], part: bytes) -> None:
    if part:
        (algorithm,), digest = _digest(part, 1)
        found["modsig_digest"] = (algorithm, digest)


def _name(found: dict[str, Any], part: bytes) -> None:
    text = part.removesuffix(b"\0")
    if b"\0" in text:
        raise ValueError("a NUL inside the name")
    found["path"] = text.decode("utf-8", "surrogateescape")


def _raw(key: str) -> Callable[[dict[str, Any], bytes], None]:
    def put(found: dict[str, Any], part: bytes) -> None:
        found[key] = part

    return put


_DECODERS: Final[Mapping[str, Callable[[dict[str, Any], bytes], None]]] = {
    "d": _d,
    "d-ng": _d_ng,
    "d-ngv2": _d_ngv2,
    "n": _name,
    "n-ng": _name,
    "sig": _raw("signature"),
    "buf": _raw("buffer"),
    "d-modsig": _d_modsig,
    "modsig": _raw("modsig"),
    "evmsig": _raw("evm_signature"),
}
