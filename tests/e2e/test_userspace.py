"""What systemd measures from userspace, end to end: a real TPM, the agent's own commands, the verifier's judgement.

The TPM boots as a captured guest did; then its PCRs and NV indices are extended, and the log written, as systemd does.
"""

from __future__ import annotations

import pytest

from tests import swtpm
from tests.conftest import ROOT
from tests.harness import Guest, b64, running, settings_for, unb64
from tests.real_systemd import Machine
from tests.swtpm import replay_boot_log
from tests.userspace import HARDWARE, MACHINE_ID, PRODUCT, Systemd
from tests.userspace import ROOT as ROOT_FS
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.policy.catalogue import CATALOGUE, View
from verifier.ports import Scope
from verifier.service.rejudge import rejudge
from verifier.tcg.algorithms import HashAlg

CAPTURE = ROOT / "policies" / "evidence" / "uki-sb-on"
SHA256 = HashAlg.SHA256
SECRET = b"a secret that only this machine has"
needs_swtpm = pytest.mark.skipif(
    not swtpm.available(), reason="SKIPPED FOR WANT OF A TPM: swtpm or its tools are not installed"
)


def read(machine: Machine, *names: str) -> list[object]:
    """Claims of what the agent collects from this machine now."""
    view = View(prove(read_bundle(machine.collected())), SHA256)
    return [CATALOGUE[name].read(view) for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> swtpm.Manufactured:
    folder = tmp_path_factory.mktemp("swtpm")
    return swtpm.manufacture(folder / "tpm", folder / "ca")


@pytest.fixture
def machine(made, tmp_path):
    with swtpm.Swtpm(made.copy(tmp_path / "tpm").state) as tpm:
        yield Machine(tpm, tmp_path)


@pytest.mark.swtpm
@needs_swtpm
@pytest.mark.parametrize("secret", [None, SECRET], ids=["systemd 262", "systemd 259"])
def test_a_real_tpm_proves_what_systemd_measured(machine, secret):
    machine.systemd.boot(secret=secret)
    assert read(machine, "boot.unexplained_pcrs") == [[]]
    assert read(machine, "boot.machine_id", "boot.file_systems", "boot.volume_keys") == [
        MACHINE_ID,
        [ROOT_FS],
        [],
    ]
    assert read(machine, "boot.phases", "boot.product_id", "boot.nvpcr_texts") == [
        ["enter-initrd", "leave-initrd", "sysinit", "ready"],
        PRODUCT.removeprefix("product-id:"),
        {"hardware": [PRODUCT], "cryptsetup": []},
    ]


@pytest.mark.swtpm
@needs_swtpm
def test_a_reboot_starts_nvpcrs_anew_and_the_log_of_before_proves_nothing(machine):
    machine.systemd.boot()
    before = machine.systemd.log
    assert read(machine, "boot.product_id") != [None]
    machine.swtpm.reboot()
    replay_boot_log(
        machine.swtpm.tcti, (machine.root / "sys/kernel/security/tpm0/binary_bios_measurements").read_bytes()
    )
    machine.systemd = Systemd(machine.tpm, records=[before])
    # clear_stclear: the index is there and holds nothing, so that nobody can certify it.
    assert read(machine, "boot.machine_id", "boot.nvpcrs") == [None, {}]


@pytest.mark.swtpm
@needs_swtpm
@pytest.mark.parametrize("secret", [None, SECRET], ids=["systemd 262", "systemd 259"])
def test_an_index_that_root_made_anew_is_not_the_nvpcr_that_was_measured(machine, secret):
    machine.systemd.boot(secret=secret)
    machine.tpm.nv_undefine(HARDWARE)
    machine.tpm.nv_define_extend(HARDWARE, 0x00060044 if secret is None else 0x08060044)
    machine.tpm.nv_extend(HARDWARE, bytes(32))
    machine.systemd.nvpcr_extend(HARDWARE, "product-id:" + "0" * 32)
    values = read(machine, "boot.product_id", "boot.nvpcrs", "boot.machine_id")
    assert values[0] is None
    assert "hardware" not in values[1]
    assert values[2] == MACHINE_ID


@pytest.mark.swtpm
@needs_swtpm
def test_what_was_extended_without_a_record_leaves_the_pcr_unexplained(machine):
    machine.systemd.boot()
    machine.tpm.extend(15, {SHA256: SHA256.digest(b"not logged")})
    assert read(machine, "boot.unexplained_pcrs", "boot.machine_id", "boot.product_id") == [
        [15],
        None,
        PRODUCT.removeprefix("product-id:"),
    ]


# --- the service, over HTTP

POLICY = f"""\
schema: vtpm-attest/policy/1
id: secure-boot
description: which machine this is
validity: 10m
quote:
  bank: sha256
  pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15]
boot_log: required
rules:
  - id: machine-id
    severity: contraindicated
    claim: instance-identity
    cel: boot.machine_id == '{MACHINE_ID}'
  - id: product
    severity: contraindicated
    claim: instance-identity
    cel: boot.product_id == '{PRODUCT.removeprefix("product-id:")}'
unjudged:
  - pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15]
    why: a policy for tests of the service, not of machines
"""


@pytest.fixture
async def verifier(tmp_path, clock):
    settings = settings_for(tmp_path)
    (tmp_path / "policies" / "secure-boot.yaml").write_text(POLICY)
    async with running(settings, clock) as harness:
        yield harness


class Measured:
    """A guest of the harness whose systemd measured."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.systemd = Systemd(guest.tpm).boot()

    def body(self, challenge, **changes):
        nonce = unb64(challenge["nonce"])
        index = self.guest.tpm.nv_index(HARDWARE)
        quote = self.guest.evidence(challenge)  # before the certificate
        attest, signature = self.guest.tpm.nv_certify(nonce, HARDWARE)
        certificate = {"public": b64(index.public), "attest": b64(attest), "signature": b64(signature)}
        log = {"content": b64(self.systemd.log)}
        return quote | {"userspace_log": log, "nvpcrs": [certificate]} | changes

    async def attest(self, challenge=None, **changes):
        challenge = challenge or await self.guest.challenge()
        return await self.guest.harness.post("/v1/attestations", self.body(challenge, **changes))


async def test_the_service_proves_it_keeps_it_and_takes_it_by_digest_afterwards(verifier):
    machine = Measured(await verifier.guest())
    first = await machine.attest()
    assert first.json["verdict"]["status"] == "affirming", first.content
    challenge = first.json["challenge"]
    assert challenge["want_userspace_log"] is True
    rows = verifier.rows()["blob"]
    second = await machine.attest(challenge, userspace_log={"sha256": challenge["userspace_log_sha256"]})
    assert second.json["verdict"]["status"] == "affirming", second.content
    assert verifier.rows()["blob"] == rows + 1, "the quote; the logs are there"
    # From the store, as another replica or a later process reads it.
    again = await machine.guest.challenge()
    assert again["userspace_log_sha256"] == challenge["userspace_log_sha256"]


async def test_a_log_that_is_not_held_is_asked_for_and_nothing_is_stored(verifier):
    machine, other = Measured(await verifier.guest(1)), Measured(await verifier.guest(2))
    other.systemd.phase("shutdown")
    held = (await other.attest()).json["challenge"]["userspace_log_sha256"]
    rows = verifier.rows()
    refused = await machine.attest(userspace_log={"sha256": held})
    assert (refused.status, refused.code) == (409, "boot-log-missing")
    assert verifier.rows() == rows


async def test_without_the_log_the_rules_on_it_are_not_evaluated(verifier):
    machine = Measured(await verifier.guest())
    plain = await machine.attest(userspace_log=None, nvpcrs=[])
    assert plain.json["verdict"]["status"] == "none"
    assert "claim-unproven" in {finding["code"] for finding in plain.json["verdict"]["findings"]}


async def test_a_broken_log_is_refused_with_its_place_and_nothing_is_stored(verifier):
    machine = Measured(await verifier.guest())
    rows = verifier.rows()
    broken = machine.systemd.log + b'\x1e{"pcr":99}\n'
    answer = await machine.attest(userspace_log={"content": b64(broken)})
    assert (answer.status, answer.code) == (400, "malformed-structure")
    assert answer.json["structure"] == "userspace measurement log"
    assert answer.json["offset"] == len(machine.systemd.log) + 1
    assert verifier.rows() == rows


@pytest.mark.parametrize(
    "changes",
    [
        {"userspace_log": {"content": b64(b"x" * (1024 * 1024 + 1))}},
        {"userspace_log": {}},
        {"userspace_log": {"content": "", "offset": 3}},
        {"nvpcrs": [{"public": "", "attest": "", "signature": ""}] * 9},
        {"nvpcrs": [{"public": b64(bytes(257)), "attest": "", "signature": ""}]},
        {"nvpcrs": [{"attest": "", "signature": ""}]},
    ],
    ids=["too long", "empty", "a tail", "too many", "public too long", "no public"],
)
async def test_limits_hold_before_anything_is_read(verifier, changes):
    machine = Measured(await verifier.guest())
    answer = await machine.attest(**changes)
    assert 400 <= answer.status < 500
    assert answer.code in {"malformed-request", "body-too-large"}


async def test_stored_evidence_is_judged_again_with_its_logs_and_certificates(verifier):
    machine = Measured(await verifier.guest())
    verdict = (await machine.attest()).json["verdict"]
    from tests.e2e.test_rejudging import policy_of, stored

    case, logs = await stored(verifier, machine.guest)
    assert len(logs) == 2
    again = rejudge(case, logs, await policy_of(verifier, case.verdict), None)
    assert again.tier.label == verdict["status"] == "affirming"
    path = f"/v1/attesters/{machine.guest.attester_id}/evidence"
    bundle = (await verifier.get(path, scope=Scope.AUDITOR)).json
    shown = await verifier.service.services.boots.boot(case.verdict)
    assert shown.problem is None
    assert f"machine-id:{MACHINE_ID}" in {event.fact.text for event in shown.events}
    assert shown.facts.details.userspace.product_id == PRODUCT.removeprefix("product-id:")
    assert unb64(bundle["userspace_log"]) == machine.systemd.log
    assert len(bundle["nvpcrs"]) == 1


async def test_a_dry_run_judges_the_stored_log_again_too(verifier):
    machine = Measured(await verifier.guest())
    await machine.attest()
    answer = await verifier.call("POST", "/v1/policies/secure-boot/dry-run", scope=Scope.OPERATOR)
    assert answer.json["counts"]["unchanged"] == 1, answer.content
    assert answer.json["unjudged"] == []
