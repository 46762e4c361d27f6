"""`agent.tpm.Tpm` on the software TPM: NV, persistent keys, three object slots, and failures on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from agent.errors import BankMissingError, TpmBusyError, TpmError
from agent.templates import Attribute, name_of, parse_public
from agent.tpm import Key, Quote, Selection, TpmProperties
from tests.simulator import SoftwareTpm, TpmRefusal
from verifier.tcg.algorithms import HASH_BY_LABEL

SLOTS = 3


class FakeTpm:
    """One machine's TPM as the agent sees it.

    Args:
        machine: makes the signatures; a signing template gives its AK, a storage template its EK.
        nv: index to content.
        persistent: handle to TPM2B_PUBLIC.
        primaries: template to TPM2B_PUBLIC (or an error to raise), for EKs other than the machine's.
        before_read: called before every PCR reading, so that a test can extend meanwhile.
    """

    def __init__(
        self,
        machine: SoftwareTpm | None = None,
        *,
        nv: Mapping[int, bytes | TpmError] | None = None,
        persistent: Mapping[int, bytes] | None = None,
        primaries: Mapping[bytes, bytes | TpmError] | None = None,
        before_read: Callable[[], None] = lambda: None,
    ) -> None:
        self.machine = machine or SoftwareTpm()
        self.nv = dict(nv or {})
        self.persistent_keys = dict(persistent or {})
        self.primaries = dict(primaries or {})
        self.before_read = before_read
        self.created: list[bytes] = []
        self.loaded = 0
        self.closed = 0
        self.failure: TpmError | None = None
        self.nv_failure: TpmError | None = None

    def properties(self) -> TpmProperties:
        return TpmProperties("FAKE", "simulator", "1.0", False, ("sha1", "sha256"))

    def nv_indices(self) -> tuple[int, ...]:
        return tuple(sorted(self.nv))

    def nv_read(self, index: int) -> bytes:
        extended = self.machine.nv_index(index)
        if extended is not None:
            return extended.value
        content = self.nv[index]
        if isinstance(content, TpmError):
            raise content
        return content

    def nv_attributes(self, index: int) -> int | None:
        found = self.machine.nv_index(index)
        return None if found is None else found.all_attributes

    def nv_public(self, index: int) -> bytes | None:
        found = self.machine.nv_index(index)
        return None if found is None else found.public

    def nv_define_extend(self, index: int, attributes: int, size: int) -> None:
        if self.nv_failure is not None:
            raise self.nv_failure
        assert size == 32
        self.machine.nv_define_extend(index, attributes)

    def nv_extend(self, index: int, data: bytes) -> None:
        self.machine.nv_extend(index, data)

    def nv_certify(self, ak: Key, index: int, size: int, qualifying_data: bytes) -> Quote:
        return Quote(*self.machine.nv_certify(qualifying_data, index))

    def persistent_handles(self) -> tuple[int, ...]:
        return tuple(sorted(self.persistent_keys))

    @contextmanager
    def persistent(self, handle: int) -> Iterator[Key]:
        public = self.persistent_keys[handle]
        yield Key(handle, public, name_of(public))

    @contextmanager
    def primary(self, template: bytes) -> Iterator[Key]:
        if self.failure is not None:
            raise self.failure
        if self.loaded >= SLOTS:
            raise TpmBusyError("no free slot", "flush")
        self.created.append(template)
        public = self.primaries.get(template) or self._own(template)
        if isinstance(public, TpmError):
            raise public
        self.loaded += 1
        try:
            yield Key(0x80000000 + self.loaded, public, name_of(public))
        finally:
            self.loaded -= 1

    def _own(self, template: bytes) -> bytes:
        signs = parse_public(template).attributes & Attribute.SIGN
        return self.machine.ak_public if signs else self.machine.ek_public

    def activate_credential(self, ak: Key, ek: Key, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        try:
            return self.machine.activate(credential_blob, encrypted_secret)
        except TpmRefusal as error:
            raise TpmError(str(error), "none") from error

    def quote(self, ak: Key, qualifying_data: bytes, selection: Selection) -> Quote:
        return Quote(*self.machine.quote(qualifying_data, selection))

    def read_pcrs(self, bank: str, pcrs: Sequence[int]) -> dict[int, bytes]:
        self.before_read()
        try:
            values = self.machine.pcrs(HASH_BY_LABEL[bank])
        except KeyError as error:
            raise BankMissingError(f"no bank {bank}", "switch it on") from error
        return {pcr: values[pcr] for pcr in pcrs}

    def close(self) -> None:
        self.closed += 1
