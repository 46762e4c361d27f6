"""IMA lists from a real TPM by the real agent: the kernel extends PCR 10 as it measures, also while the agent quotes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.collect import sources_for
from agent.collect.linux import IMA_LOG
from agent.connection import connect
from agent.esapi import open_tpm
from agent.held import Options
from agent.join_token import JoinToken
from agent.service import Agent, Surroundings, run
from agent.session import Done, Goal, Session
from agent.state import StateFile
from agent.wire.messages import Verdict
from tests import swtpm
from tests.harness import Here, running, settings_for
from tests.ima_guest import POLICY, KnownPrograms, known_content
from tests.ima_kernel import ImaKernel
from tests.real_systemd import RealTpm
from verifier.ports import Scope
from verifier.tcg.algorithms import HashAlg

pytestmark = [
    pytest.mark.swtpm,
    pytest.mark.skipif(
        not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or tpm2-pytss is missing"
    ),
]


class TpmKernel(ImaKernel):
    """An IMA that extends a TPM through whatever connection is open, and keeps its list as a file."""

    def __init__(self, tpm: RealTpm, where: Path) -> None:
        self.extend: Callable[[int, dict[HashAlg, bytes]], None] = tpm.extend
        self.where = where
        where.parent.mkdir(parents=True, exist_ok=True)
        zero = {"sha1": dict.fromkeys(range(10), bytes(20)), "sha256": dict.fromkeys(range(10), bytes(32))}
        super().__init__(boot=zero)

    def _extend(self, bank: str, pcr: int, hashed: bytes, *, violation: bool) -> None:
        alg = HashAlg[bank.upper()]
        self.where.write_bytes(self.list)  # before the PCR, as the kernel does
        self.extend(pcr, {alg: b"\xff" * alg.size if violation else alg.digest(hashed)})
        super()._extend(bank, pcr, hashed, violation=violation)

    def run(self, path: str) -> None:
        self.measure(path, known_content(path))


class BusyTpm:
    """The agent's TPM, on a machine that starts programs before and after each quote."""

    def __init__(self, real: Any, kernel: TpmKernel | None) -> None:
        self._real, self._kernel = real, kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def quote(self, *arguments: Any) -> Any:
        kernel = self._kernel
        if kernel is None:
            return self._real.quote(*arguments)
        before, kernel.extend = kernel.extend, self._extend
        try:
            kernel.run(f"/usr/bin/before-{len(kernel.offsets)}")
            result = self._real.quote(*arguments)
            kernel.run(f"/usr/bin/after-{len(kernel.offsets)}")
        finally:
            kernel.extend = before
        return result

    def _extend(self, pcr: int, digests: dict[HashAlg, bytes]) -> None:
        """Over the connection that the agent holds: swtpm has one at a time."""
        from tpm2_pytss import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA
        from tpm2_pytss.constants import ESYS_TR

        values = [
            TPMT_HA(hashAlg=alg.tpm_id, digest=TPMU_HA(**{alg.label: digest}))
            for alg, digest in digests.items()
        ]
        self._real._esys.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES(values))


class RealGuest:
    """A machine with a real TPM and the agent in it."""

    def __init__(self, tpm: swtpm.Swtpm, folder: Path, url: str, token: str) -> None:
        self.tpm, self.root, self.url, self.token = tpm, folder / "root", url, token
        self.store = StateFile(folder / "state")
        self.busy = False
        self.boot("boot-1")

    def boot(self, boot_id: str) -> None:
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot_id)
        self.kernel = TpmKernel(RealTpm(self.tpm), self.root / IMA_LOG)
        for number in range(5):
            self.kernel.run(f"/usr/bin/p{number}")

    def attest(self) -> Verdict:
        state = self.store.load()
        session = Session(
            goal=Goal.VERDICT,
            attester_id=state.attester_id,
            may_reenroll=True,
            patience=0.0,
            random=lambda: 0.0,
        )
        surroundings = Surroundings(
            open_tpm=lambda: BusyTpm(open_tpm(self.tpm.tcti), self.kernel if self.busy else None),
            connect=lambda: connect(self.url, JoinToken.parse(self.token), None, self.store),
            sources=sources_for(self.root),
            store=self.store,
            say=lambda _: None,
        )
        agent = Agent(surroundings, Options(join_token=self.token))
        done = run(session, agent, lambda _: None, lambda _: None)
        assert isinstance(done, Done), done
        assert done.reply is not None
        return done.reply.verdict


@pytest.fixture
async def guest(tmp_path):
    made = swtpm.manufacture(tmp_path / "tpm", tmp_path / "ca")
    anchor = tmp_path / "tpm-root.pem"
    anchor.write_bytes(made.root_pem + made.issuer_pem)
    settings = settings_for(tmp_path, DEFAULT_POLICY="measured", TRUST_ANCHORS=str(anchor))
    policy = POLICY.replace("  - id: secure-boot\n    severity: contraindicated\n", RULE)
    (tmp_path / "policies" / "measured.yaml").write_text(
        policy.replace("    claim: configuration\n    secure_boot: enabled\n", "")
    )
    async with running(settings, None, Here(), references=KnownPrograms()) as verifier:
        with swtpm.Swtpm(made.state) as tpm:
            yield RealGuest(tpm, tmp_path, verifier.secure_url, await verifier.token(Scope.JOIN))


RULE = "  - id: bank\n    severity: contraindicated\n    claim: configuration\n    cel: '0 in quote.pcrs'\n"


GOOD = {"ima-list-replays", "ima-files-known"}


def codes(verdict: Verdict) -> set[str]:
    """What is said of the list; not that it replays where something else is."""
    said = {one.code for one in verdict.findings if one.code.startswith("ima")}
    return said if said == GOOD else said - {"ima-list-replays"}


async def test_a_real_tpm_s_list_is_followed_over_growth_races_and_reboots(guest):
    first = await asyncio.to_thread(guest.attest)
    assert codes(first) == GOOD
    guest.kernel.run("/usr/bin/new")
    guest.busy = True
    for _ in range(3):
        busy = await asyncio.to_thread(guest.attest)
        assert codes(busy) == GOOD
    guest.busy = False
    guest.kernel.measure("/usr/bin/p0", b"something else")
    changed = await asyncio.to_thread(guest.attest)
    assert (changed.status, codes(changed)) == ("contraindicated", {"ima-file-changed"})
    guest.kernel.violation("/var/log/wtmp")
    later = await asyncio.to_thread(guest.attest)
    assert codes(later) == {"ima-file-changed", "ima-violation"}
    guest.tpm.reboot()
    guest.boot("boot-2")
    again = await asyncio.to_thread(guest.attest)
    assert codes(again) == GOOD


async def test_a_list_that_a_real_tpm_does_not_bear_out_is_told(guest):
    await asyncio.to_thread(guest.attest)
    guest.kernel.run("/tmp/dropped")
    hidden = guest.kernel.list.replace(b"/tmp/dropped\0", b"/usr/bin/ok0\0")
    guest.kernel.where.write_bytes(hidden)
    told = await asyncio.to_thread(guest.attest)
    assert (told.status, codes(told)) == ("contraindicated", {"ima-list-mismatch"})
