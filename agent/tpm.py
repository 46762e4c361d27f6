"""What the agent needs of a TPM 2.0, and where to find one.

`Tpm` is the whole of it: `agent.esapi` implements it with tpm2-pytss, tests with a fake. Structures cross it as
marshalled bytes, so nothing above it depends on a TPM library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from agent.errors import NoTpmError, TpmPermissionError

DEVICES: Final = ("/dev/tpmrm0", "/dev/tpm0")
"""The kernel's resource manager first: it keeps programs from taking each other's three object slots."""
TBS: Final = "tbs"
"""TPM Base Services, on Windows."""
TCTI_VARIABLES: Final = ("VTPM_ATTEST_TCTI", "TPM2TOOLS_TCTI")

Selection = Mapping[str, Sequence[int]]
"""Bank name to ascending PCR indices."""


class Key(Struct, frozen=True):
    """A key usable now: the adapter's handle, its TPM2B_PUBLIC and its Name."""

    handle: int
    public: bytes
    name: bytes


class Quote(Struct, frozen=True):
    """TPMS_ATTEST as signed, and TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


class TpmProperties(Struct, frozen=True):
    """What a TPM says of itself; for people, not for trust."""

    manufacturer: str
    vendor: str
    firmware: str
    in_lockout: bool
    banks: tuple[str, ...]


class Tpm(Protocol):
    """A TPM 2.0. Every method raises `agent.errors.TpmError` or one below it, and nothing else."""

    def properties(self) -> TpmProperties:
        """Maker, firmware, lockout and banks."""

    def nv_indices(self) -> tuple[int, ...]:
        """All defined NV indices, ascending."""

    def nv_read(self, index: int) -> bytes:
        """The whole content of an index, padding included."""

    def nv_attributes(self, index: int) -> int | None:
        """TPMA_NV of an index, None where it is not defined."""

    def nv_public(self, index: int) -> bytes | None:
        """TPMS_NV_PUBLIC of an index, None where it is not defined."""

    def nv_define_extend(self, index: int, attributes: int, size: int) -> None:
        """Define an index of the owner's with these attributes, an empty password and a SHA-256 Name."""

    def nv_extend(self, index: int, data: bytes) -> None:
        """TPM2_NV_Extend by the index's own (empty) authorisation."""

    def nv_certify(self, ak: Key, index: int, size: int, qualifying_data: bytes) -> Quote:
        """Sign the first `size` bytes of an index and `qualifying_data` with the AK's own scheme."""

    def persistent_handles(self) -> tuple[int, ...]:
        """Handles of all persistent objects, ascending."""

    def persistent(self, handle: int) -> AbstractContextManager[Key]:
        """A key that lives in the TPM under `handle`; leaving the block keeps it there."""

    def primary(self, template: bytes) -> AbstractContextManager[Key]:
        """The endorsement hierarchy's primary of this TPM2B_PUBLIC template, flushed when the block is left."""

    def activate_credential(self, ak: Key, ek: Key, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """The secret, if it was encrypted to `ek` for a key of `ak`'s Name.

        Both blobs with their size prefix (TPM 2.0 Part 3, TPM2_ActivateCredential).
        """

    def quote(self, ak: Key, qualifying_data: bytes, selection: Selection) -> Quote:
        """Sign the selected PCRs and `qualifying_data` (at most 64 bytes) with the AK's own scheme."""

    def read_pcrs(self, bank: str, pcrs: Sequence[int]) -> dict[int, bytes]:
        """Values of `pcrs`, or `BankMissingError`. Not proven; see `agent.evidence`."""

    def close(self) -> None:
        """Let go of the TPM. Idempotent."""


def find_tcti(
    explicit: str | None,
    environ: Mapping[str, str],
    devices: Sequence[str] = DEVICES,
    platform: str = sys.platform,
) -> str:
    """The TCTI to open: as told, else from the environment, else TBS on Windows and the first device node elsewhere.

    Raises:
        NoTpmError: nothing was named and no device exists.
        TpmPermissionError: the device exists, and this user may not open it.
    """
    named = explicit or next((environ[name] for name in TCTI_VARIABLES if environ.get(name)), None)
    if named:
        check_device(named)
        return named
    if platform == "win32":
        return TBS
    present = [device for device in devices if Path(device).exists()]
    if not present:
        raise NoTpmError(
            f"no TPM found: neither {' nor '.join(devices)} exists",
            "add a vTPM to this VM (it needs EFI firmware) or enable the TPM in the firmware, and check that the "
            "kernel has its driver (`modprobe tpm_crb`, `modprobe tpm_tis`); a TPM elsewhere is named with --tcti",
        )
    tcti = f"device:{present[0]}"
    check_device(tcti)
    return tcti


def check_device(tcti: str) -> None:
    """Say plainly when a `device:` TCTI cannot work, before a library says it cryptically."""
    kind, _, node = tcti.partition(":")
    if kind != "device":
        return
    device = node or DEVICES[0]
    if not Path(device).exists():
        raise NoTpmError(
            f"no TPM found: {device} does not exist", "name the right device with --tcti device:PATH"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise TpmPermissionError(
            f"no permission to use the TPM at {device}",
            "run as root, or add this user to the group that owns the device "
            "(`usermod -a -G tss USER`, then log in again)",
        )
