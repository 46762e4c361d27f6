"""Prediction against real firmware: what OVMF, shim, GRUB, systemd-boot, systemd-stub and Linux measured.

`tests/vectors/predict/README.md` says how each boot was made. Nothing here was computed by the code under test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.simulator import SoftwareTpm
from tests.unit.predict.conftest import unpacked, vectors
from verifier.appraisal.appraise import appraise
from verifier.appraisal.evidence import Evidence, Expectation, History
from verifier.cli.output import utcnow
from verifier.policy.parse import parse_policy
from verifier.policy.writing import PolicyHead
from verifier.predict.authenticode import BootImage, read_image
from verifier.predict.boot import Boot, predict_boot
from verifier.predict.errors import PredictionError
from verifier.predict.model import Prediction
from verifier.predict.proposal import propose
from verifier.predict.secure_boot import authority_events, firmware_authority
from verifier.predict.variables import SecureBootVariables, from_efivars
from verifier.reasons import Tier
from verifier.tcg.algorithms import HashAlg

BANKS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384)
BOOTS = [boot["name"] for boot in vectors("boots")["boots"]]
LOGGED = [boot["name"] for boot in vectors("boots")["boots"] if boot["log"]]
NONCE = bytes(32)


def firmware(part: str) -> tuple[SecureBootVariables, list[BootImage], list[Mapping[str, Any]]]:
    record = vectors("firmware")[part]
    variables = from_efivars({name: bytes.fromhex(value) for name, value in record["variables"].items()})
    images = [read_image(name, unpacked(text)) for name, text in record["images"].items()]
    return variables, images, record["measured"]


def measured(events: list[Mapping[str, Any]], pcr: int, bank: HashAlg) -> list[str]:
    return [event["digests"][bank.label] for event in events if event["pcr"] == pcr]


@pytest.mark.parametrize("bank", BANKS)
def test_firmware_measures_the_authenticode_digest_of_every_shape_of_image(bank):
    """Holes, bytes behind the sections, odd lengths, few directories, sections in any order: in three banks."""
    _, images, events = firmware("unsigned")
    seen = measured(events, 4, bank)
    assert [image.digest(bank).hex() for image in images] == seen[: len(images)]


@pytest.mark.parametrize("bank", BANKS)
def test_firmware_measures_the_entry_of_db_that_we_say_lets_the_image_run(bank):
    variables, images, events = firmware("signed")
    authorities, ran = [], []
    for image in images:
        try:
            authorities.append(firmware_authority(image, variables))
        except PredictionError:
            assert image.name == "unsigned, not in db"
        else:
            ran.append(image.digest(bank).hex())
    predicted = [event.digest.hex() for event in authority_events(authorities, bank)]
    assert predicted == measured(events, 7, bank)
    assert ran == measured(events, 4, bank)[: len(ran)]
    assert len(ran) == len(images) - 1


def boot_of(
    recorded: Mapping[str, Any], name: str, bank: HashAlg = HashAlg.SHA256
) -> tuple[Boot, Mapping[str, Any]]:
    (record,) = [boot for boot in recorded["boots"] if boot["name"] == name]
    listed = recorded["variables"][record["variables"]]
    variables = from_efivars({key: bytes.fromhex(value) for key, value in listed.items()})
    images = tuple(
        read_image(label, unpacked(recorded["skeletons"][key])) for label, key in record["images"].items()
    )
    return Boot(images=images, secure_boot=variables.enabled, variables=variables, bank=bank), record


def whens(prediction: Prediction, pcr: int, value: str) -> list[str]:
    return [each.when for each in prediction.pcrs[pcr].values if each.value.hex() == value]


@pytest.mark.parametrize("name", BOOTS)
def test_every_predicted_pcr_is_what_the_tpm_held_after_the_boot(recorded, name):
    for bank in BANKS:
        boot, record = boot_of(recorded, name, bank)
        prediction = predict_boot(boot)
        for pcr in prediction.pcrs:
            actual = record["pcrs"][bank.label][str(pcr)]
            assert whens(prediction, pcr, actual), f"PCR {pcr} is {actual} in {bank.label}"
        assert {4, 7} <= prediction.pcrs.keys()
        if prediction.command_line is not None:
            assert prediction.command_line.strip() == record["command_line"].strip()


def test_only_grub_is_not_foreseen_to_the_last_event(recorded):
    """How often GRUB has a kernel measured; everything else is one value."""
    for name in BOOTS:
        boot, record = boot_of(recorded, name)
        prediction = predict_boot(boot)
        for pcr, predicted in prediction.pcrs.items():
            (when,) = whens(prediction, pcr, record["pcrs"]["sha256"][str(pcr)])
            assert when == "" or "GRUB" in name, f"{name}: PCR {pcr} {when}"
            assert len(predicted.values) == 1 or pcr == 11 or "GRUB" in name


@pytest.mark.parametrize("name", LOGGED)
def test_a_guest_that_boots_the_files_is_affirming_under_the_predicted_policy_and_another_is_not(
    recorded, name
):
    boot, record = boot_of(recorded, name)
    head = PolicyHead(id="predicted", description="", bank=HashAlg.SHA256)
    policy = parse_policy(propose(predict_boot(boot), head).source)
    log = unpacked(record["log"])
    tpm = SoftwareTpm(7)
    tpm.replay_log(log)
    assert judged(tpm, log, record["command_line"], policy) is Tier.AFFIRMING
    if 11 in policy.quote.pcrs:
        tpm.extend(11, {bank: bank.digest(b"sysinit") for bank in BANKS})  # the phase that no log has
        assert judged(tpm, log, record["command_line"], policy) is Tier.AFFIRMING
    tpm.extend(4, {bank: bank.digest(b"another loader") for bank in BANKS})
    assert judged(tpm, log, record["command_line"], policy) is not Tier.AFFIRMING


def judged(tpm: SoftwareTpm, log: bytes, command_line: str, policy) -> Tier:
    bank = HashAlg.SHA256
    attest, signature = tpm.quote(NONCE, {bank: sorted(policy.quote.pcrs)})
    values = tpm.pcrs(bank)
    evidence = Evidence(
        attest=attest,
        signature=signature,
        pcrs={bank: {pcr: values[pcr] for pcr in policy.quote.pcrs}},
        boot_log=log,
        kernel_command_line=command_line,
    )
    expectation = Expectation(ak_public=tpm.ak_public, ak_activated=True, nonce=NONCE, request=())
    return appraise(evidence, expectation, policy, History(), utcnow()).tier
