"""TPM structures as bytes, written straight from Part 2 and apart from `verifier.tcg`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from verifier.tcg.algorithms import HASH_BY_LABEL, HashAlg

ALG_NULL = 0x0010
ALG_BY_SCHEME = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}
CURVE_IDS = {"p256": 0x0003, "p384": 0x0004, "p521": 0x0005}


def u16(value):
    return struct.pack(">H", value)


def u32(value):
    return struct.pack(">I", value)


def tpm2b(content: bytes) -> bytes:
    return u16(len(content)) + content


def as_bank(bank: HashAlg | str) -> HashAlg:
    return HASH_BY_LABEL[bank] if isinstance(bank, str) else bank


def as_selections(selections) -> list[tuple[HashAlg, tuple[int, ...]]]:
    """Accept {bank: pcrs}, [(bank, pcrs)] or objects with `.bank` and `.pcrs`; keep the order given."""
    if isinstance(selections, Mapping):
        selections = selections.items()
    pairs = [item if isinstance(item, tuple) else (item.bank, item.pcrs) for item in selections]
    return [(as_bank(bank), tuple(sorted(pcrs))) for bank, pcrs in pairs]


def bitmap(pcrs: Iterable[int], size: int = 3) -> bytes:
    return sum(1 << pcr for pcr in set(pcrs)).to_bytes(size, "little")


def pcr_selection_list(selections) -> bytes:
    listed = as_selections(selections)
    return u32(len(listed)) + b"".join(u16(bank.tpm_id) + b"\x03" + bitmap(pcrs) for bank, pcrs in listed)


def scheme(name: str | None, hash_alg: HashAlg) -> bytes:
    return u16(ALG_NULL) if name is None else u16(ALG_BY_SCHEME[name]) + u16(hash_alg.tpm_id)


def symmetric(aes_bits: int | None) -> bytes:
    return u16(ALG_NULL) if aes_bits is None else u16(0x0006) + u16(aes_bits) + u16(0x0043)


def rsa_parameters(aes_bits: int | None, scheme_bytes: bytes, modulus: int) -> bytes:
    bits = modulus.bit_length()
    unique = tpm2b(modulus.to_bytes(bits // 8, "big"))
    return symmetric(aes_bits) + scheme_bytes + u16(bits) + u32(0) + unique


def ecc_parameters(aes_bits: int | None, scheme_bytes: bytes, curve: str, x: bytes, y: bytes) -> bytes:
    unique = tpm2b(x) + tpm2b(y)
    return symmetric(aes_bits) + scheme_bytes + u16(CURVE_IDS[curve]) + u16(ALG_NULL) + unique


def public_area(kind: str, name_alg: HashAlg, attributes: int, policy: bytes, parameters: bytes) -> bytes:
    """TPMT_PUBLIC."""
    type_alg = 0x0001 if kind == "rsa" else 0x0023
    return u16(type_alg) + u16(name_alg.tpm_id) + u32(attributes) + tpm2b(policy) + parameters


def attest(attested: bytes, *, magic, kind, signer, extra, clock, firmware) -> bytes:
    """TPMS_ATTEST around a marshalled TPMU_ATTEST."""
    head = u32(magic) + u16(kind) + tpm2b(signer) + tpm2b(extra)
    times = struct.pack(">QIIB", clock.clock, clock.reset_count, clock.restart_count, clock.safe)
    return head + times + struct.pack(">Q", firmware) + attested
