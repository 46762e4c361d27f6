"""NV indices as makers and operators lay them into a TPM, for tests on a real one."""

from __future__ import annotations

from tests.swtpm import Swtpm


def define_nv(machine: Swtpm, index: int, content: bytes, *, readable: bool = True) -> None:
    from tpm2_pytss import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC
    from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPMA_NV

    attributes = TPMA_NV.OWNERWRITE | TPMA_NV.NO_DA
    # An index must be readable by somebody: here by a policy nobody can satisfy.
    attributes |= TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD if readable else TPMA_NV.POLICYREAD
    public = TPMS_NV_PUBLIC(
        nvIndex=index, nameAlg=TPM2_ALG.SHA256, attributes=attributes, dataSize=len(content)
    )
    if not readable:
        public.authPolicy = bytes(31) + b"\x01"
    with machine.esapi() as esapi:
        handle = esapi.nv_define_space(None, TPM2B_NV_PUBLIC(nvPublic=public))
        for offset in range(0, len(content), 512):
            esapi.nv_write(handle, content[offset : offset + 512], offset, auth_handle=ESYS_TR.OWNER)
