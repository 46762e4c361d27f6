"""Prediction against boots that others captured: policies/evidence, ../shared/evidence, ../shared/corpus."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.conftest import ROOT, shared_path
from tests.unit.predict.conftest import unpacked
from verifier.errors import EvidenceError
from verifier.predict.authenticode import read_image
from verifier.predict.boot import CALLING, Boot, predict_boot
from verifier.predict.kernel import kernel_events
from verifier.predict.model import PredictedEvent, predicted_pcr
from verifier.predict.secure_boot import (
    Authority,
    Database,
    authority_events,
    configuration_events,
    separator,
    variable_data,
)
from verifier.predict.uki import PHASES, events_of_sections
from verifier.predict.variables import SecureBootVariables, from_efivars
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.eventlog import ParsedEventLog, parse_event_log
from verifier.tcg.uefi import IMAGE_SECURITY_DATABASE, parse_variable

EVIDENCE = ROOT / "policies" / "evidence"
BANKS = (HashAlg.SHA1, HashAlg.SHA256)
OSREL = b'ID=debian\nVERSION_ID=12\nPRETTY_NAME="vmlab guest"\n'
"""../shared/vm/mkuki.sh"""
KERNEL = "98cd6f847b56873cdefb57ca3ffd9ca7fbe30d7d574602661a3170f1aea9a20f"
"""SHA-256 of vmlinuz-6.1.0-55-cloud-amd64 of Debian's package 6.1.192-1."""


def folder(name: str) -> Path:
    return EVIDENCE / name if (EVIDENCE / name).exists() else shared_path(f"evidence/{name}")


def variables_of(meta: dict[str, Any]) -> SecureBootVariables:
    return from_efivars({name: b64decode(text) for name, text in meta["efivars"].items() if text})


def captured(name: str) -> tuple[dict[str, Any], dict[str, Any], ParsedEventLog | None]:
    path = folder(name)
    log = path / "binary_bios_measurements"
    return (
        json.loads((path / "meta.json").read_text()),
        json.loads((path / "pcrs.json").read_text()),
        parse_event_log(log.read_bytes()) if log.exists() else None,
    )


def entry(variables: SecureBootVariables, certificate: str) -> Authority:
    der = x509.load_pem_x509_certificate((EVIDENCE / "ca" / certificate).read_bytes()).public_bytes(
        Encoding.DER
    )
    (found,) = [
        each for each in Database(IMAGE_SECURITY_DATABASE, "db", variables.db).entries() if each.data == der
    ]
    return Authority(IMAGE_SECURITY_DATABASE, "db", found.owner + found.data, certificate)


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize(
    ("name", "signer"),
    [
        ("uki-sb-on", "db.crt"),
        ("uki-sb-on-extra-db-key", "db.crt"),
        ("uki-sb-on-signed-by-second-key", "db2.crt"),
        ("uki-sb-off", None),
    ],
)
def test_pcr_7_of_the_captured_unified_kernel_images_follows_from_variables_and_signer(name, signer, bank):
    meta, pcrs, _ = captured(name)
    variables = variables_of(meta)
    authorities = [entry(variables, signer)] if signer else []
    events = (*configuration_events(variables, bank), *authority_events(authorities, bank))
    (value,) = predicted_pcr(7, events, bank).values
    assert value.value.hex() == pcrs[bank.label]["7"]


def sections_of(log: ParsedEventLog, meta: dict[str, Any], bank: HashAlg) -> dict[str, bytes]:
    """Computed, but for the initrd (which was not kept) and, in SHA-1, the kernel."""
    column = log.algorithms.index(bank)
    logged = [event.digests[column] for event in log.events if event.pcr == 11]
    kernel = bytes.fromhex(KERNEL) if bank is HashAlg.SHA256 else logged[1]
    return {
        ".linux": kernel,
        ".osrel": bank.digest(OSREL),
        ".cmdline": bank.digest(meta["cmdline"].encode()),
        ".initrd": logged[7],
    }


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("uki-sb-on", ""),
        ("uki-sb-off", ""),
        ("uki-sb-on-reboot-1", ""),
        ("uki-sb-on-initrd-modified", ""),
        ("uki-sb-on-systemd", "after sysinit, ready"),
        ("uki-sb-on-systemd-min", ""),
    ],
)
def test_pcr_11_follows_from_the_sections_and_the_phases_that_no_log_has(name, when, bank):
    meta, pcrs, log = captured(name)
    events = events_of_sections(sections_of(log, meta, bank), bank)
    values = predicted_pcr(11, events, bank, PHASES).values
    assert [each.when for each in values if each.value.hex() == pcrs[bank.label]["11"]] == [when]


@pytest.mark.parametrize("name", ["uki-sb-on", "uki-sb-off", "uki-sb-on-cmdline-tampered"])
def test_pcr_9_is_the_command_line_and_the_initrd(name):
    meta, pcrs, log = captured(name)
    initrd = next(event.digests[1] for event in reversed(log.events) if event.pcr == 9)
    options = kernel_events(meta["cmdline"], None, HashAlg.SHA256)
    loaded = PredictedEvent(pcr=9, event_type=EventType.EV_EVENT_TAG, label="Linux initrd", digest=initrd)
    (value,) = predicted_pcr(9, (*options, loaded), HashAlg.SHA256).values
    assert value.value.hex() == pcrs["sha256"]["9"]


def grub_boot(recorded: dict[str, Any], name: str, bank: HashAlg) -> tuple[Boot, dict[str, Any]]:
    """The captured guests ran the files of the vector `shim, GRUB 2.06`."""
    (record,) = [boot for boot in recorded["boots"] if boot["name"] == "shim, GRUB 2.06 on ms"]
    images = tuple(
        read_image(label, unpacked(recorded["skeletons"][key])) for label, key in record["images"].items()
    )
    meta, pcrs, _ = captured(name)
    variables = variables_of(meta)
    return Boot(images=images, secure_boot=variables.enabled, variables=variables, bank=bank), pcrs


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("grub-sb-on", ""),
        ("grub-sb-on-cmdline-tampered", ""),
        ("grub-sb-on-smm-4M", ""),
        ("grub-sb-on-systemd", ""),
        ("grub-sb-off", "without vmlinuz, vmlinuz (verified again)"),
    ],
)
def test_pcrs_4_7_and_14_of_the_captured_grub_guests_follow_from_the_files_and_variables(
    recorded, name, when, bank
):
    boot, pcrs = grub_boot(recorded, name, bank)
    prediction = predict_boot(boot)
    for pcr, expected in ((4, when), (7, ""), (14, "")):
        actual = pcrs[bank.label][str(pcr)]
        assert [each.when for each in prediction.pcrs[pcr].values if each.value.hex() == actual] == [
            expected
        ], pcr


def test_another_kernel_moves_pcr_4_alone(recorded):
    boot, pcrs = grub_boot(recorded, "grub-sb-on-kernel-6.12", HashAlg.SHA256)
    prediction = predict_boot(boot)
    assert pcrs["sha256"]["4"] not in {each.value.hex() for each in prediction.pcrs[4].values}
    assert prediction.pcrs[7].values[0].value.hex() == pcrs["sha256"]["7"]


def test_another_project_computes_the_same_values_from_the_same_events():
    """trusted-execution-clusters/compute-pcrs: PCRs 4, 7 and 14 of Fedora CoreOS and RHEL."""
    fixtures = sorted(shared_path("corpus/trusted-execution-clusters_compute-pcrs").rglob("pcr*.json"))
    assert len(fixtures) >= 10
    for fixture in fixtures:
        content = json.loads(fixture.read_text())
        events = [
            PredictedEvent(
                pcr=content["id"],
                event_type=EventType[event["name"]],
                label=event["id"],
                digest=bytes.fromhex(event["hash"]),
            )
            for event in content["events"]
        ]
        (value,) = predicted_pcr(content["id"], events, HashAlg.SHA256).values
        assert value.value.hex() == content["value"], fixture
        if content["id"] == 4:
            assert events[0].digest == HashAlg.SHA256.digest(CALLING.encode())
            assert events[1].digest == separator(4, HashAlg.SHA256).digest


def test_another_project_foresees_the_same_pcr_7_with_secure_boot_off(recorded):
    """Fedora's shim resets SbatLevel as Debian's does, so that the whole PCR is the same."""
    path = "corpus/trusted-execution-clusters_compute-pcrs/qemu-ovmf/fedora-42/fedora-42.20250929.3.0/pcr7-sb-disabled.json"
    expected = json.loads(shared_path(path).read_text())["value"]
    (record,) = [boot for boot in recorded["boots"] if boot["name"] == "shim, GRUB 2.06 on off"]
    images = tuple(
        read_image(label, unpacked(recorded["skeletons"][key])) for label, key in record["images"].items()
    )
    boot = Boot(
        images=images, secure_boot=False, variables=SecureBootVariables(enabled=False), bank=HashAlg.SHA256
    )
    assert predict_boot(boot).pcrs[7].values[0].value.hex() == expected


def test_every_log_of_the_corpus_measures_its_variables_as_predicted():
    """Firmware of many makers: UEFI_VARIABLE_DATA, whole, in every bank, and absent variables without a value."""
    checked = 0
    for path in sorted(shared_path("corpus").rglob("*")):
        log = _log(path)
        if log is None:
            continue
        config = [
            (event, parse_variable(event.data))
            for event in log.events
            if event.pcr == 7 and event.event_type == EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
        ]
        values = {variable.name: variable.value for _, variable in config if variable is not None}
        if not {"SecureBoot", "PK", "KEK", "db", "dbx"} <= values.keys():
            continue
        variables = SecureBootVariables(
            enabled=values["SecureBoot"] == b"\1",
            pk=values["PK"],
            kek=values["KEK"],
            db=values["db"],
            dbx=values["dbx"],
        )
        for column, bank in enumerate(log.algorithms):
            predicted = [event.digest for event in configuration_events(variables, bank)[:5]]
            logged = [
                event.digests[column] for event, variable in config if variable and variable.name in values
            ][:5]
            if b"" not in logged and values["SecureBoot"] in (b"\0", b"\1"):
                assert predicted == logged, path
                checked += 1
    assert checked >= 60


def _log(path: Path) -> ParsedEventLog | None:
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return None
    try:
        return parse_event_log(path.read_bytes())
    except EvidenceError:
        return None


def test_authorities_are_measured_like_variables():
    """The captured entry of db, byte for byte."""
    meta, _, log = captured("uki-sb-on")
    authority = entry(variables_of(meta), "db.crt")
    (event,) = [each for each in log.events if each.event_type == EventType.EV_EFI_VARIABLE_AUTHORITY]
    assert variable_data(authority.vendor, authority.variable, authority.value) == event.data
