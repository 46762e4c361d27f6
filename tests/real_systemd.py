"""The captured guest on a real TPM whose systemd measures, with a file system for the agent to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agent.cli import main
from agent.collect.linux import USERSPACE_LOG
from tests import swtpm
from tests.conftest import ROOT
from tests.swtpm import replay_boot_log
from tests.userspace import Systemd
from verifier.tcg.algorithms import HashAlg

CAPTURE = ROOT / "policies" / "evidence" / "uki-sb-on"


class RealTpm:
    """`tests.userspace.Measures` on a TPM that answers at a TCTI."""

    def __init__(self, machine: swtpm.Swtpm) -> None:
        self._machine = machine

    def extend(self, pcr: int, digests: Mapping[HashAlg, bytes]) -> None:
        from tpm2_pytss import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA
        from tpm2_pytss.constants import ESYS_TR

        values = [
            TPMT_HA(hashAlg=alg.tpm_id, digest=TPMU_HA(**{alg.label: digest}))
            for alg, digest in digests.items()
        ]
        with self._machine.esapi() as esapi:
            esapi.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES(values))

    def nv_define_extend(self, handle: int, attributes: int) -> None:
        from tpm2_pytss import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC
        from tpm2_pytss.constants import TPM2_ALG, TPMA_NV

        public = TPMS_NV_PUBLIC(
            nvIndex=handle, nameAlg=TPM2_ALG.SHA256, attributes=TPMA_NV(attributes), dataSize=32
        )
        with self._machine.esapi() as esapi:
            esapi.nv_define_space(None, TPM2B_NV_PUBLIC(nvPublic=public))

    def nv_extend(self, handle: int, data: bytes) -> None:
        with self._machine.esapi() as esapi:
            esapi.nv_extend(esapi.tr_from_tpmpublic(handle), data)

    def nv_name(self, handle: int) -> bytes:
        with self._machine.esapi() as esapi:
            return bytes(esapi.nv_read_public(esapi.tr_from_tpmpublic(handle))[1])

    def nv_undefine(self, handle: int) -> None:
        with self._machine.esapi() as esapi:
            esapi.nv_undefine_space(esapi.tr_from_tpmpublic(handle))


class Machine:
    """The captured guest on a real TPM, with a file system for the agent to read."""

    def __init__(self, running_tpm: swtpm.Swtpm, folder: Path) -> None:
        self.swtpm, self.folder, self.root = running_tpm, folder, folder / "root"
        self.tpm = RealTpm(running_tpm)
        self.systemd = Systemd(self.tpm)
        boot_log = (CAPTURE / "binary_bios_measurements").read_bytes()
        replay_boot_log(running_tpm.tcti, boot_log)
        self.write("sys/kernel/security/tpm0/binary_bios_measurements", boot_log)
        line = json.loads((CAPTURE / "meta.json").read_text())["cmdline"]
        self.write("proc/cmdline", line.encode() + b"\n")

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)

    def collected(self) -> Path:
        self.write(USERSPACE_LOG, self.systemd.log)
        out = self.folder / "bundle.json"
        options = ["--tcti", self.swtpm.tcti, "--root", str(self.root), "--state-dir", str(self.folder)]
        assert main(["collect", "--out", str(out), *options]) == 0
        return out
