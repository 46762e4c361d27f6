"""From entries to PCR values, and to the prefix of a list that a quote proves.

Proven by a prefix that leads to a quoted PCR: the template data of its entries, in order. Not proven: their template
names and template digests, which the PCR does not cover; and of a violation nothing but that there was one.
(Linux, security/integrity/ima/ima_queue.c; TPM 2.0 Library, Part 3, TPM2_PCR_Extend.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from verifier.errors import UnsupportedError
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.ima.entry import ByteOrder, ImaEntry, ImaFormatError, ListEncoding
from verifier.tcg.ima.rules import BankRule
from verifier.tcg.ima.templates import IMA, SHA1_SIZE, hashed_data
from verifier.tcg.ima.walk import MAX_NAME, RawEntry, read_entry

LOCALITY_PCRS: Final = range(17, 23)
"""PCRs of the dynamic root of trust start with ones (TCG PC Client Platform TPM Profile, table of PCR attributes)."""


class Miss(NamedTuple):
    """An entry that was not accepted as a whole: index in the guest's list and offset in the data."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing needs
    offset: int


def start_value(pcr: int, bank: HashAlg) -> bytes:
    """What a PCR holds when the TPM starts."""
    return (b"\xff" if pcr in LOCALITY_PCRS else b"\0") * bank.size


def violation_value(bank: HashAlg, rule: BankRule) -> bytes:
    """What is extended for a violation."""
    if rule is BankRule.PADDED_SHA1:
        return (b"\xff" * min(SHA1_SIZE, bank.size)).ljust(bank.size, b"\0")
    return b"\xff" * bank.size


def extended_value(hashed: bytes, bank: HashAlg, rule: BankRule) -> bytes:
    """What is extended for an entry whose hashed data (`hashed_data`) these are."""
    if rule is BankRule.PADDED_SHA1:
        return HashAlg.SHA1.digest(hashed).ljust(bank.size, b"\0")
    return bank.digest(hashed)


def replay(
    entries: Iterable[ImaEntry], bank: HashAlg, rule: BankRule, byte_order: ByteOrder
) -> dict[int, bytes]:
    """PCR values of one bank that whole lists lead to, of every PCR an entry names.

    Raises:
        UnsupportedError: this build lacks the hash of `bank`.
    """
    if bank.new is None:
        raise UnsupportedError(f"hash {bank.label} is not available in this build")
    values: dict[int, bytes] = {}
    for entry in entries:
        if entry.is_violation:
            value = violation_value(bank, rule)
        else:
            hashed = hashed_data(entry.template_name, entry.template_data, byte_order)
            value = extended_value(hashed, bank, rule)
        values[entry.pcr] = bank.digest(values.get(entry.pcr, start_value(entry.pcr, bank)) + value)
    return values


class Route(NamedTuple):
    """From known PCR values of one bank to quoted ones.

    Attributes:
        bank: of both.
        rule: how this kernel extends it.
        start: values before the first entry; a PCR that is not in it starts as the TPM does.
        targets: quoted values.
        main: the PCR whose value decides where the prefix ends; one of `targets`.
    """

    bank: HashAlg
    rule: BankRule
    start: Mapping[int, bytes]
    targets: Mapping[int, bytes]
    main: int


class Scan:
    """Looks for the prefix of a binary list that leads from known PCR values to quoted ones.

    The list may run ahead of the quote: the kernel appends an entry before it extends the PCR, and may have appended
    more since. `advance` in a loop; afterwards the attributes say what was found. The inner loop is the hottest of
    the verifier and therefore written out: per entry one hash of the template data, one extend, one set lookup.

    Attributes:
        found: whether a prefix leads to the quoted value of the main PCR.
        position: where it ends in the data.
        index: entries of it, counted from `index` given.
        values: value of each PCR after it.
        misses: its entries that `accepted` does not have, in order.
        torn: the data end inside an entry.
    """

    __slots__ = (
        "_accepted",
        "_bank",
        "_data",
        "_encoding",
        "_rule",
        "_targets",
        "found",
        "index",
        "main",
        "misses",
        "position",
        "torn",
        "values",
    )

    def __init__(
        self,
        data: bytes,
        encoding: ListEncoding,
        route: Route,
        accepted: Container[bytes] = frozenset(),
        index: int = 0,
        position: int = 0,
    ) -> None:
        """Prepare.

        Args:
            data: entries; the last may be torn.
            encoding: of `data`.
            route: from where to where.
            accepted: digests of template data that are good as they stand, or of their first two fields, under the
                route's bank; under PADDED_SHA1 they are SHA-1.
            index: of the first entry.
            position: where that is in `data`.
        """
        self._data, self._encoding, self._accepted = data, encoding, accepted
        self._bank, self._rule, start, self._targets, self.main = route
        self.values: dict[int, bytes] = dict(start)
        if self.main not in self.values:
            self.values[self.main] = start_value(self.main, self._bank)
        self.position, self.index = position, index
        self.misses: list[Miss] = []
        self.torn = False
        self.found = self.values[self.main] == self._targets[self.main]

    def advance(self, entries: int) -> bool:
        """Go on for at most so many entries. True when there is nothing left to do.

        Raises:
            ImaFormatError: the bytes are no entries.
        """
        if self.found or self.torn or self.position >= len(self._data):
            return True
        self._run(entries)
        if self.found:
            self._finish_others()
        return self.found or self.torn or self.position >= len(self._data)

    def _run(self, entries: int) -> None:  # noqa: C901 - the hottest loop, written out
        data, at, index = self._data, self.position, self.index
        end, stop, main = len(data), index + entries, self.main
        read, head_size, name_size = _head(self._encoding, _USUAL_NAME)
        read_number = _NUMBERS[self._encoding.byte_order]
        zeroes = bytes(self._encoding.digest_size)
        inner, new, padding = _hashes(self._bank, self._rule)
        value, target = self.values[main], self._targets[main]
        accepted, miss = self._accepted, self.misses.append
        while at < end and index < stop:
            after = 0
            try:
                pcr, digest, size, count = read(data, at)
                if size != name_size and 0 < size <= MAX_NAME:
                    read, head_size, name_size = _head(self._encoding, size)
                    pcr, digest, size, count = read(data, at)
                if pcr == main and digest != zeroes and size == name_size != _IMA_SIZE:
                    body = at + head_size
                    after = body + count
            except struct.error:  # the entry is cut, which is for `_read` to say
                after = 0
            if 0 < after <= end:
                digest = inner(data[body:after]).digest()
                if digest not in accepted:
                    # Further fields (a signature, or the empty one of ima-sig) leave what the first two say.
                    try:
                        cut = body + 4 + read_number(data, body)[0]
                        cut += 4 + read_number(data, cut)[0]
                    except struct.error:
                        cut = after
                    if cut >= after or inner(data[body:cut]).digest() not in accepted:
                        miss(Miss(index, at))
                value = new(value + (digest + padding if padding else digest)).digest()
                at = after
            else:
                self.values[main] = value
                entry = self._read(at, index)
                if entry is None:
                    break
                self._extend(entry, index)
                value, at = self.values[main], entry.end
            index += 1
            if value == target:
                self.found = True
                break
        self.values[main] = value
        self.position, self.index = at, index

    def _read(self, at: int, index: int) -> RawEntry | None:
        """The entry at `at`, or None where the data end inside it."""
        try:
            return read_entry(self._data, at, self._encoding, index)
        except ImaFormatError as error:
            if not error.cut:
                raise
            self.torn = True
            return None

    def _extend(self, entry: RawEntry, index: int) -> None:
        """Any entry: of another PCR, a violation, or of template `ima`."""
        bank, rule = self._bank, self._rule
        if any(entry.digest):
            hashed = hashed_data(entry.name, entry.data, self._encoding.byte_order)
            digest = extended_value(hashed, bank, rule)
            known = digest if rule is BankRule.OWN_HASH else digest[:SHA1_SIZE]
            if entry.pcr != self.main or known not in self._accepted:
                self.misses.append(Miss(index, entry.offset))
        else:
            digest = violation_value(bank, rule)
            self.misses.append(Miss(index, entry.offset))
        before = self.values.get(entry.pcr)
        if before is None:
            before = start_value(entry.pcr, bank)
        self.values[entry.pcr] = bank.digest(before + digest)

    def _finish_others(self) -> None:
        """Take in entries of other PCRs that follow directly, as far as the quote has seen them as well."""
        if self.position >= len(self._data):
            return
        good = self.position, self.index, dict(self.values), len(self.misses)
        while self.position < len(self._data):
            entry = self._read(self.position, self.index)
            if entry is None or entry.pcr == self.main or entry.pcr not in self._targets:
                break
            self._extend(entry, self.index)
            self.position, self.index = entry.end, self.index + 1
            if self._others_match():
                good = self.position, self.index, dict(self.values), len(self.misses)
        self.torn = False
        self.position, self.index, self.values, count = good
        del self.misses[count:]

    def _others_match(self) -> bool:
        return all(self._targets.get(pcr) in {None, value} for pcr, value in self.values.items())


_IMA_SIZE: Final = len(IMA)
_USUAL_NAME: Final = len("ima-ng")


@lru_cache
def _hashes(bank: HashAlg, rule: BankRule) -> tuple[Callable[..., Any], Callable[..., Any], bytes]:
    """What hashes an entry, what extends the bank, and what comes between."""
    padded = rule is BankRule.PADDED_SHA1
    inner = HashAlg.SHA1.new if padded else bank.new
    if bank.new is None or inner is None:
        raise UnsupportedError(f"hash {bank.label} is not available in this build")
    return inner, bank.new, bytes(bank.size - SHA1_SIZE) if padded else b""


_NUMBERS: Final = {"little": struct.Struct("<I").unpack_from, "big": struct.Struct(">I").unpack_from}
_Read = Callable[[bytes, int], tuple[int, bytes, int, int]]


@lru_cache(maxsize=64)
def _head(encoding: ListEncoding, name_size: int) -> tuple[_Read, int, int]:
    """Reads PCR, template digest, name size and data size of an entry whose name has `name_size` bytes."""
    mark = "<" if encoding.byte_order == "little" else ">"
    head = struct.Struct(f"{mark}I{encoding.digest_size}sI{name_size}xI")
    return head.unpack_from, head.size, name_size
