"""The simulated machine: PCRs, clock, keys, quotes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from tests.simulator import marshal
from tests.simulator.activation import TpmRefusal, activate
from tests.simulator.ca import SoftwareCa
from tests.simulator.eventlog import EV_NO_ACTION, parse_log
from tests.simulator.keys import ECC_AK, ECC_EK, AkProfile, AttestationKey, EkProfile, EndorsementKey
from verifier.tcg.algorithms import HashAlg

__all__ = ["Clock", "SoftwareTpm", "Tamper", "TpmRefusal", "parse_log"]

BANKS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384)
FIRMWARE_VERSION = 0x2019102300163636
CLOCK_UPDATE = 22
"""TPM_PT_CLOCK_UPDATE: the clock is saved every 2^22 ms, the longest that is allowed."""
_ONES = frozenset(range(17, 23))
_STARTUP_LOCALITY = b"StartupLocality\0"


@dataclass(frozen=True, slots=True)
class Clock:
    """TPMS_CLOCK_INFO; compares with `verifier`'s by its fields."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tamper:
    """What a forger changes in a quote; each field left None stays honest. All but the last two are signed."""

    magic: int | None = None
    attest_type: int | None = None
    nonce: bytes | None = None
    signer: bytes | None = None
    clock: Clock | None = None
    firmware_version: int | None = None
    selection: bytes | None = None
    """Marshalled TPML_PCR_SELECTION."""
    pcr_digest: bytes | None = None
    suffix: bytes = b""
    scheme: str | None = None
    hash_alg: HashAlg | None = None
    """Of the signature and so of the PCR digest."""
    corrupt_signature: bool = False
    attest_after_signing: Mapping[int, int] = field(default_factory=dict)
    """Byte offset to new byte, changed once the signature is made."""


HONEST = Tamper()


@dataclass
class _State:
    """Everything that a reboot, a snapshot or time can change."""

    clock: Clock
    pcrs: dict[HashAlg, list[bytes]]
    nv: dict[int, _ExtendIndex] = field(default_factory=dict)
    saved_clock: int = 0
    """What a power loss leaves of the clock."""


@dataclass
class _ExtendIndex:
    """An NV index of type extend (TPM_NT_EXTEND) with a SHA-256 name and digest."""

    handle: int
    value: bytes = bytes(32)
    attributes: int = 0x00060046
    """ownerwrite, authwrite, ownerread, authread, nt=extend."""
    written: bool = False

    @property
    def all_attributes(self) -> int:
        return self.attributes | (0x20000000 if self.written else 0)

    @property
    def public(self) -> bytes:
        """TPMS_NV_PUBLIC."""
        head = marshal.u32(self.handle) + marshal.u16(0x000B) + marshal.u32(self.all_attributes)
        return head + marshal.tpm2b(b"") + marshal.u16(32)

    @property
    def name(self) -> bytes:
        return marshal.u16(0x000B) + hashlib.sha256(self.public).digest()


@lru_cache(maxsize=1)
def _default_ca() -> SoftwareCa:
    return SoftwareCa()


class SoftwareTpm:
    """A TPM and the guest around it.

    Args:
        seed: which machine this is; another seed has other keys.
        ak, ek: what its keys are like.
        ca: who endorsed it; all machines share one CA by default.
        banks: active PCR banks.
        certificate: overrides of `SoftwareCa.issue` for its EK certificate.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        ak: AkProfile = ECC_AK,
        ek: EkProfile = ECC_EK,
        ca: SoftwareCa | None = None,
        banks: tuple[HashAlg, ...] = BANKS,
        firmware_version: int = FIRMWARE_VERSION,
        certificate: Mapping[str, object] | None = None,
    ) -> None:
        self.seed = seed
        self.ca = ca or _default_ca()
        self.ek = EndorsementKey(ek, f"tpm {seed}")
        self.ak = AttestationKey(ak, f"tpm {seed}")
        self.firmware_version = firmware_version
        self._certificate = dict(certificate or {})
        self._state = _State(Clock(0, 0, 0, safe=True), {bank: [] for bank in banks})
        self.reboot()

    # --- identity

    @property
    def ek_public(self) -> bytes:
        """TPM2B_PUBLIC."""
        return self.ek.public

    @property
    def ak_public(self) -> bytes:
        """TPM2B_PUBLIC."""
        return self.ak.public

    @property
    def ak_name(self) -> bytes:
        return self.ak.name

    @cached_property
    def ek_certificate(self) -> bytes:
        """DER, as issued by `ca`."""
        return self.ca.issue(self.ek.private.public_key(), **self._certificate)

    def make_ak(self, profile: AkProfile) -> AttestationKey:
        """Another key; give it to `quote` or `activate`. Equal profiles make the same key."""
        return AttestationKey(profile, f"tpm {self.seed}")

    def activate(
        self, credential_blob: bytes, encrypted_secret: bytes, *, ak: AttestationKey | None = None
    ) -> bytes:
        """TPM2_ActivateCredential: the secret, or `TpmRefusal`.

        A software key that admits to be one can be loaded as an external object and so be activated; one
        that claims fixedTPM, fixedParent or restricted cannot be loaded, as in a real TPM.
        """
        ak = ak or self.ak
        if not ak.profile.resident and ak.profile.attributes & 0x00010012:
            raise TpmRefusal("TPM_RC_ATTRIBUTES")
        return activate(self.ek, ak.name, credential_blob, encrypted_secret)

    # --- time

    @property
    def clock(self) -> Clock:
        return self._state.clock

    def advance(self, milliseconds: int) -> None:
        """Let time pass. Whenever the clock is saved, it is past everything it ever told, and so it is safe."""
        self._set_clock(clock=self.clock.clock + milliseconds)
        if self.clock.clock >> CLOCK_UPDATE > self._state.saved_clock >> CLOCK_UPDATE:
            self._state.saved_clock = self.clock.clock
            self._set_clock(safe=True)

    def power_loss(self) -> None:
        """TPM Reset without TPM2_Shutdown: the clock goes back to what was saved."""
        self._set_clock(clock=self._state.saved_clock)
        self.reboot(orderly=False)

    def reboot(self, *, orderly: bool = True, locality: int = 0) -> None:
        """TPM Reset: new PCRs, resetCount + 1, restartCount 0. One that is not orderly turns `safe` off for a while."""
        safe = orderly and self.clock.safe
        self._set_clock(reset_count=self.clock.reset_count + 1, restart_count=0, safe=safe)
        self._state.saved_clock = self.clock.clock
        self._reset_pcrs(locality)

    def restart(self) -> None:
        """TPM Restart (hibernation): new PCRs, restartCount + 1."""
        self._set_clock(restart_count=self.clock.restart_count + 1)
        self._reset_pcrs()

    def suspend_resume(self) -> None:
        """TPM Resume: PCRs stay, restartCount + 1."""
        self._set_clock(restart_count=self.clock.restart_count + 1)

    def snapshot(self) -> object:
        """What a hypervisor saves; keys are the same in it."""
        return copy.deepcopy(self._state)

    def restore(self, snapshot: object) -> None:
        """Go back to a snapshot: clock, counters, PCRs and NV as they were."""
        self._state = copy.deepcopy(snapshot)

    def clone(self) -> SoftwareTpm:
        """A second guest with the same keys and, from now on, a life of its own."""
        other = copy.copy(self)
        other._state = copy.deepcopy(self._state)
        return other

    def _set_clock(self, **changes: object) -> None:
        self._state.clock = replace(self.clock, **changes)

    # --- PCRs

    def _reset_pcrs(self, locality: int = 0) -> None:
        for bank in self._state.pcrs:
            values = [(b"\xff" if pcr in _ONES else b"\0") * bank.size for pcr in range(24)]
            values[0] = bytes(bank.size - 1) + bytes([locality])
            self._state.pcrs[bank] = values

    def pcrs(self, bank: HashAlg | str) -> dict[int, bytes]:
        """All 24 values of a bank."""
        return dict(enumerate(self._state.pcrs[marshal.as_bank(bank)]))

    def extend(self, pcr: int, digests: Mapping[HashAlg | str, bytes]) -> None:
        """TPM2_PCR_Extend: one digest per bank; banks not named keep their value."""
        for label, digest in digests.items():
            bank = marshal.as_bank(label)
            if len(digest) != bank.size:
                raise TpmRefusal("TPM_RC_SIZE")
            if bank in self._state.pcrs:
                values = self._state.pcrs[bank]
                values[pcr] = bank.digest(values[pcr] + digest)

    def measure(self, pcr: int, data: bytes) -> None:
        """TPM2_PCR_Event: extend every bank with the digest of `data`."""
        self.extend(pcr, {bank: bank.digest(data) for bank in self._state.pcrs})

    def replay_log(self, log: bytes) -> None:
        """Boot as this log says: extend every event's digests. Call it after `reboot` or on a new machine."""
        for pcr, kind, digests, data in parse_log(log):
            if kind == EV_NO_ACTION:
                if data.startswith(_STARTUP_LOCALITY):
                    for bank, values in self._state.pcrs.items():
                        values[0] = bytes(bank.size - 1) + data[16:17]
                continue
            self.extend(pcr, digests)

    # --- attestation

    def quote(
        self,
        nonce: bytes,
        selections,
        *,
        ak: AttestationKey | None = None,
        tamper: Tamper = HONEST,
    ) -> tuple[bytes, bytes]:
        """TPM2_Quote: (TPMS_ATTEST, TPMT_SIGNATURE) over `nonce` and the selected PCRs.

        `selections` is {bank: pcrs}, [(bank, pcrs)] or verifier's PcrSelections; banks by HashAlg or label.
        Time passes by a few milliseconds.
        """
        ak = ak or self.ak
        listed = marshal.as_selections(selections)
        values = b"".join(
            self._state.pcrs[bank][pcr] for bank, pcrs in listed if bank in self._state.pcrs for pcr in pcrs
        )
        # A bank that is not active is quoted as selecting nothing, as real TPMs do.
        listed = [(bank, pcrs if bank in self._state.pcrs else ()) for bank, pcrs in listed]
        hash_alg = tamper.hash_alg or ak.profile.hash_alg
        digest = hash_alg.digest(values) if tamper.pcr_digest is None else tamper.pcr_digest
        selection = marshal.pcr_selection_list(listed) if tamper.selection is None else tamper.selection
        return self._attest(0x8018, nonce, selection + marshal.tpm2b(digest), ak, tamper)

    def _attest(
        self, kind: int, nonce: bytes, attested: bytes, ak: AttestationKey, tamper: Tamper
    ) -> tuple[bytes, bytes]:
        self.advance(7)
        clock, firmware = self._reported(ak)
        message = marshal.attest(
            attested,
            magic=_or(tamper.magic, 0xFF544347),
            kind=_or(tamper.attest_type, kind),
            signer=_or(tamper.signer, ak.qualified_name),
            extra=_or(tamper.nonce, nonce),
            clock=_or(tamper.clock, clock),
            firmware=_or(tamper.firmware_version, firmware),
        )
        message += tamper.suffix
        signature = ak.sign(message, scheme=tamper.scheme, hash_alg=tamper.hash_alg)
        if tamper.corrupt_signature:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        changed = bytearray(message)
        for offset, value in tamper.attest_after_signing.items():
            changed[offset] = value
        return bytes(changed), signature

    def _reported(self, ak: AttestationKey) -> tuple[Clock, int]:
        """Counters and firmware version as this key may tell them (Part 2, section 10.12.12)."""
        if ak.profile.hierarchy == "endorsement":
            return self.clock, self.firmware_version
        secret = hashlib.sha256(f"proof {self.seed}".encode() + ak.name).digest()
        clock = replace(
            self.clock,
            reset_count=(self.clock.reset_count + int.from_bytes(secret[:4], "big")) % 2**32,
            restart_count=(self.clock.restart_count + int.from_bytes(secret[4:8], "big")) % 2**32,
        )
        return clock, (self.firmware_version + int.from_bytes(secret[8:16], "big")) % 2**64

    # --- NV extend index

    def nv_define_extend(self, handle: int, attributes: int = 0x00060046) -> None:
        """Define an extend index; its value starts at zeros and grows like a PCR, but survives reboots."""
        self._state.nv[handle] = _ExtendIndex(handle, attributes=attributes)

    def nv_index(self, handle: int) -> _ExtendIndex | None:
        """An extend index, if it is defined."""
        return self._state.nv.get(handle)

    def nv_name(self, handle: int) -> bytes:
        """Its Name now: TPM2_NV_ReadPublic."""
        return self._state.nv[handle].name

    def nv_undefine(self, handle: int) -> None:
        """TPM2_NV_UndefineSpace."""
        del self._state.nv[handle]

    def nv_extend(self, handle: int, data: bytes) -> None:
        """TPM2_NV_Extend."""
        index = self._state.nv[handle]
        index.value = hashlib.sha256(index.value + data).digest()
        index.written = True

    def nv_certify(
        self, nonce: bytes, handle: int, *, ak: AttestationKey | None = None, tamper: Tamper = HONEST
    ) -> tuple[bytes, bytes]:
        """TPM2_NV_Certify of the whole index: (TPMS_ATTEST, TPMT_SIGNATURE)."""
        index = self._state.nv[handle]
        if not index.written:
            raise TpmRefusal("TPM_RC_NV_UNINITIALIZED")
        attested = marshal.tpm2b(index.name) + marshal.u16(0) + marshal.tpm2b(index.value)
        return self._attest(0x8014, nonce, attested, ak or self.ak, tamper)


def _or(value, default):
    return default if value is None else value
