"""Bundles of machines whose systemd measured, as real TPMs signed them, and what the commands make of them."""

from __future__ import annotations

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.cli.test_attestctl import Run, run
from tests.userspace import HARDWARE, MACHINE_ID, PRODUCT
from tests.userspace import ROOT as ROOT_FS
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.policy.catalogue import CATALOGUE, View
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log

__all__ = ["run"]

VECTORS = ROOT / "tests" / "vectors" / "userspace"
NAMES = sorted(path.stem for path in VECTORS.glob("*.json"))
UUID = PRODUCT.removeprefix("product-id:")
POLICY = f"""\
schema: vtpm-attest/policy/1
id: this-machine
description: which machine this is, and how it came up
quote: {{bank: sha256, pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]}}
boot_log: required
rules:
  - {{id: machine-id, claim: instance-identity, cel: boot.machine_id == '{MACHINE_ID}'}}
  - {{id: product, claim: hardware, cel: boot.product_id == '{UUID}'}}
  - {{id: phases, claim: executables, cel: 'boot.phases.all(word, word in ["enter-initrd", "leave-initrd", "sysinit", "ready"])'}}
unjudged:
  - {{pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15], why: not what this test is about}}
"""


def bundle_path(name: str) -> Path:
    return VECTORS / f"{name}.json"


def document(name: str) -> dict[str, Any]:
    return json.loads(bundle_path(name).read_text())


def records(name: str) -> list[dict[str, Any]]:
    log = b64decode(document(name)["userspace_log"])
    return [json.loads(one) for one in log.split(b"\x1e")[1:]]


def claim(name: str, wanted: str) -> object:
    return CATALOGUE[wanted].read(View(prove(read_bundle(bundle_path(name))), HashAlg.SHA256))


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pcr", [9, 11, 15])
def test_both_logs_lead_to_the_registers_by_hashlib_alone(name: str, pcr: int) -> None:
    found = document(name)
    boot_log = parse_event_log(b64decode(found["boot_log"]))
    column = boot_log.algorithms.index(HashAlg.SHA256)
    value = bytes(32)
    for event in boot_log.events:
        if event.pcr == pcr and event.event_type != 3:
            value = sha256(value + event.digests[column]).digest()
    for record in records(name):
        if record.get("pcr") == pcr:
            digest = next(one["digest"] for one in record["digests"] if one["hashAlg"] == "sha256")
            value = sha256(value + bytes.fromhex(digest)).digest()
    assert value.hex() == found["pcrs"]["sha256"][str(pcr)]


@pytest.mark.parametrize("name", NAMES)
def test_the_certified_content_of_an_nvpcr_follows_from_its_start_and_its_log(name: str) -> None:
    start = next(r for r in records(name) if "nvpcr-init:hardware:" in r["content"].get("string", ""))
    rest = start["content"]["string"].split(":", 3)[3]
    anchored = rest.startswith("sha256:")
    value = bytes.fromhex(rest.removeprefix("sha256:")) if anchored else sha256(bytes(64)).digest()
    for record in records(name):
        if record.get("nv_index") == HARDWARE:
            value = sha256(value + bytes.fromhex(record["digests"][0]["digest"])).digest()
    assert anchored is name.startswith("systemd-259")
    assert any(value in b64decode(one["attest"]) for one in document(name)["nvpcrs"])
    assert claim(name, "boot.nvpcrs")["hardware"] == value.hex()  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "machine_id", "file_systems", "keys"),
    [
        ("systemd-262", MACHINE_ID, [ROOT_FS], 0),
        ("systemd-262-other-machine", "0" * 31 + "1", [ROOT_FS], 0),
        ("systemd-262-encrypted", None, None, 1),
        ("systemd-259", MACHINE_ID, [ROOT_FS], 0),
    ],
)
def test_what_is_proven_of_each(name: str, machine_id: object, file_systems: object, keys: int) -> None:
    assert claim(name, "boot.machine_id") == machine_id
    assert claim(name, "boot.file_systems") == file_systems
    assert len(claim(name, "boot.volume_keys")) == keys  # type: ignore[arg-type]
    assert claim(name, "boot.product_id") == UUID
    assert claim(name, "boot.phases") == ["enter-initrd", "leave-initrd", "sysinit", "ready"]
    assert claim(name, "boot.unexplained_pcrs") == []
    assert claim(name, "boot.kernel_command_line") is not None


@pytest.mark.parametrize(
    ("name", "code", "wrong"),
    [
        ("systemd-262", 0, set()),
        ("systemd-259", 0, set()),
        ("systemd-262-other-machine", 2, {"machine-id"}),
        ("systemd-262-encrypted", 3, {"machine-id"}),
    ],
)
def test_appraise_judges_them(run: Run, policy: str, name: str, code: int, wrong: set[str]) -> None:
    # The AK is taken on one's word, which is a warning: exit codes are about the rules.
    status, out, _ = run("appraise", str(bundle_path(name)), "--policy", policy, "--ak-trusted", "--json")
    found = json.loads(out)
    broken = {f["rule"] for f in found["findings"] if f.get("rule") and f["status"] != "passed"}
    assert broken == wrong
    assert (status == 2) is (code == 2)
    assert (status == 3) is (code == 3)
    codes = {finding["code"] for finding in found["findings"]}
    assert {"userspace-log-replays", "nv-index-certified"} <= codes


def test_a_folder_holds_the_same_in_files(run: Run, policy: str, tmp_path: Path) -> None:
    found, folder = document("systemd-262"), tmp_path / "machine"
    folder.mkdir()
    for name, content in {
        "binary_bios_measurements": found["boot_log"],
        "tpm2-measure.log": found["userspace_log"],
        "ak_ecc.pub": found["ak_public"],
        "quote_ecc.msg": found["quote"]["attest"],
        "quote_ecc.sig": found["quote"]["signature"],
    }.items():
        (folder / name).write_bytes(b64decode(content))
    (folder / "pcrs.json").write_text(json.dumps(found["pcrs"]))
    (folder / "nvpcrs.json").write_text(json.dumps({"ecc": found["nvpcrs"]}))
    meta = {"nonce": found["nonce"], "cmdline": found["kernel_command_line"]}
    (folder / "meta.json").write_text(json.dumps(meta))
    _, out, _ = run("appraise", str(folder), "--policy", policy, "--ak-trusted", "--json")
    broken = {f["rule"] for f in json.loads(out)["findings"] if f.get("rule") and f["status"] != "passed"}
    assert broken == set()
    (folder / "nvpcrs.json").write_text('{"ecc": [7]}')
    status, _, err = run("appraise", str(folder), "--policy", policy)
    assert status == 65
    assert "nvpcrs.json" in err


def test_a_diff_of_two_machines_names_the_measurement_that_differs(run: Run) -> None:
    _, out, _ = run(
        "policy",
        "diff",
        str(bundle_path("systemd-262")),
        str(bundle_path("systemd-262-other-machine")),
        "--json",
    )
    changes = {change["pcr"]: change for change in json.loads(out)["changes"]}
    assert set(changes) == {15}
    assert changes[15]["where"] == "PCR 15 machine-id"
    assert changes[15]["before_says"] == f"machine-id:{MACHINE_ID}"


def test_explain_shows_every_event_of_systemd_and_which_rule_read_it(run: Run, policy: str) -> None:
    _, out, _ = run("policy", "explain", str(bundle_path("systemd-262")), "--policy", policy, "--json")
    events = {event["text"]: event for event in json.loads(out)["events"] if event["text"]}
    assert "machine-id" in events[f"machine-id:{MACHINE_ID}"]["rules"]
    assert events["nvpcr-separator"]["binding"] == "bound"


def test_a_policy_learned_of_one_machine_takes_another_of_its_image(run: Run, tmp_path: Path) -> None:
    learned = tmp_path / "learned.yaml"
    status, _, err = run("policy", "learn", str(bundle_path("systemd-262")), "--out", str(learned))
    assert status == 0, err
    assert MACHINE_ID not in learned.read_text()
    status, out, _ = run(
        "appraise",
        str(bundle_path("systemd-262-other-machine")),
        "--policy",
        str(learned),
        "--ak-trusted",
        "--json",
    )
    broken = {f["code"] for f in json.loads(out)["findings"] if f.get("rule") and f["status"] != "passed"}
    assert broken == set()
    assert status in (0, 1)
