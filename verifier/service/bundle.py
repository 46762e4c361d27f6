"""The evidence of one attestation as one blob, so that it can be audited and judged again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from verifier.appraisal.alike import of_all_these, of_this
from verifier.appraisal.evidence import Evidence, NvCertificate, PcrRequest, RatchetEvidence
from verifier.appraisal.ima.segment import ImaEvidence, ImaSegment
from verifier.errors import StoredDataDamaged
from verifier.service.held_logs import HeldLog
from verifier.service.model import AttestCommand
from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

FORMAT: Final = "vtpm-attest evidence 2"


class Asked(msgspec.Struct, frozen=True):
    """What the challenge asked for, of one bank."""

    bank: str
    pcrs: list[int]


class JudgedList(NamedTuple):
    """A list as it was judged: so many bytes that were held of the boot, and what came now."""

    held: int
    sha256: bytes | None
    """Of what came, as far as the quote reaches into it; all of it where the quote does not prove it. None: nothing new."""


class StoredEvidence(msgspec.Struct, frozen=True):
    """What was judged, but for the logs, which are named by their digests.

    `ak_public` is the AK that was bound to the attester's EK then; `nonce` was proven to be its own, and fresh.
    """

    format: str
    attester_id: str
    ak_public: bytes
    nonce: bytes
    request: list[Asked]
    attest: bytes
    signature: bytes
    pcrs: dict[str, dict[int, bytes]]
    boot_log_sha256: bytes | None
    kernel_command_line: str | None
    smbios_uuid: str | None
    boot_id: str | None
    ratchet: tuple[bytes, bytes, int | None, bytes | None, bytes | None] | None = None
    """Attest, signature, step, base and nonce of the step."""
    userspace_log_sha256: bytes | None = None
    nvpcrs: list[tuple[bytes, bytes, bytes]] = []
    """Public area, attest and signature of each certified NV index."""
    ima: tuple[int, bytes | None] | None = None
    """The IMA list: bytes that were held of the boot, and the SHA-256 of what came after them; None: nothing new."""

    @property
    def logs(self) -> tuple[bytes, ...]:
        """SHA-256 of the logs it names."""
        named = (self.boot_log_sha256, self.userspace_log_sha256)
        return tuple(digest for digest in named if digest is not None)

    def evidence(
        self, boot_log: bytes | None, userspace_log: bytes | None = None, ima_list: bytes | None = None
    ) -> Evidence:
        """As it was judged. The logs must be the bytes that `boot_log_sha256` and `userspace_log_sha256` name.

        `ima_list` is the list of the boot up to then, whole.
        """
        return Evidence(
            attest=self.attest,
            signature=self.signature,
            pcrs={HASH_BY_LABEL[bank]: values for bank, values in self.pcrs.items()},
            boot_log=boot_log,
            kernel_command_line=self.kernel_command_line,
            smbios_uuid=self.smbios_uuid,
            boot_id=self.boot_id,
            boot_log_sha256=self.boot_log_sha256,
            ratchet=None if self.ratchet is None else RatchetEvidence(*self.ratchet),
            userspace_log=userspace_log,
            userspace_log_sha256=self.userspace_log_sha256,
            nvpcrs=tuple(NvCertificate(*each) for each in self.nvpcrs),
            ima=None if ima_list is None else ImaEvidence(ImaSegment(ima_list, 0, len(ima_list))),
        )


def _as_asked(requests: tuple[PcrRequest, ...]) -> list[Asked]:
    return [Asked(bank=each.bank.label, pcrs=sorted(each.pcrs)) for each in requests]


_asked: Final = of_this(_as_asked)


def _by_label(pcrs: Mapping[HashAlg, Mapping[int, bytes]]) -> msgspec.Raw:
    ordered = {bank.label: dict(sorted(values.items())) for bank, values in pcrs.items()}
    return msgspec.Raw(msgspec.msgpack.encode(ordered))


_packed: Final = of_all_these(_by_label)
"""PCR values as a bundle has them."""
_decoder: Final = msgspec.msgpack.Decoder(StoredEvidence)


def pack(
    command: AttestCommand,
    ak_public: bytes,
    requests: tuple[PcrRequest, ...],
    boot_log: HeldLog | None,
    userspace_log: HeldLog | None = None,
    ima: JudgedList | None = None,
) -> bytes:
    """The bundle (MessagePack), the logs by digest. Its own SHA-256 names the evidence."""
    more: dict[str, object] = {}
    ratchet = command.ratchet
    if userspace_log is not None:
        more["userspace_log_sha256"] = userspace_log.sha256
    if ima is not None:
        more["ima"] = tuple(ima)
    if command.nvpcrs:
        more["nvpcrs"] = [(each.public, each.attest, each.signature) for each in command.nvpcrs]
    return msgspec.msgpack.encode(
        {
            "format": FORMAT,
            "attester_id": command.attester_id,
            "ak_public": ak_public,
            "nonce": command.quoted,
            "request": _asked(requests),
            "attest": command.attest,
            "signature": command.signature,
            "pcrs": _packed(command.pcrs),
            "boot_log_sha256": None if boot_log is None else boot_log.sha256,
            "kernel_command_line": command.kernel_command_line,
            "smbios_uuid": command.identity.smbios_uuid,
            "boot_id": command.boot_id,
            "ratchet": None if ratchet is None else _ratchet_fields(ratchet),
            **more,
        }
    )


def _ratchet_fields(
    proof: RatchetEvidence,
) -> tuple[bytes, bytes, int | None, bytes | None, bytes | None]:
    """In the order of `StoredEvidence.ratchet`."""
    return proof.attest, proof.signature, proof.step, proof.base, proof.nonce


def unpack(bundle: bytes) -> StoredEvidence:
    """The reverse, of bytes that a store has proven to have their digest.

    Raises:
        StoredDataDamaged: they are no bundle of this format; they are named, and never judged.
    """
    try:
        found = _decoder.decode(bundle)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _damaged(bundle, str(error)) from error
    if found.format != FORMAT:
        raise _damaged(bundle, f"its format is {found.format!r}, not {FORMAT!r}")
    if not found.pcrs.keys() <= HASH_BY_LABEL.keys():
        raise _damaged(bundle, "it names a PCR bank nobody knows")
    return found


def _damaged(bundle: bytes, detail: str) -> StoredDataDamaged:
    return StoredDataDamaged(f"evidence {hashlib.sha256(bundle).hexdigest()} cannot be read: {detail}")
