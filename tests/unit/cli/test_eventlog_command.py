"""`attestctl eventlog`: one JSON document for programs, a table for people, errors with an offset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.event_logs import CAPTURES
from tests.logs import Written, agile_log, secure_boot, separators, sha1_log, variable
from tests.unit.appraisal.test_userspace import Guest
from tests.userspace import MACHINE_ID, PRODUCT
from verifier.cli import attestctl
from verifier.cli.output import EXIT_DATA
from verifier.tcg.algorithms import HashAlg

UKI = CAPTURES / "uki-sb-on" / "binary_bios_measurements"
GRUB = CAPTURES / "grub-sb-on" / "binary_bios_measurements"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        attestctl.main(["eventlog", *arguments])
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def explained(log: Path | bytes) -> dict[str, Any]:
        path = log if isinstance(log, Path) else tmp_path / "log"
        if isinstance(log, bytes):
            path.write_bytes(log)
        assert run(str(path), "--json") == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return json.loads(printed.out)

    return explained


def by_variable(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(event for event in document["events"] if event["data"].get("variable") == name)


def test_the_document_has_the_promised_parts(explain: Any) -> None:
    document = explain(UKI)
    assert document["format"] == "crypto-agile"
    assert document["digest_algorithms"] == ["sha1", "sha256"]
    true = json.loads((UKI.parent / "pcrs.json").read_text())
    for bank in ("sha1", "sha256"):
        assert document["pcrs"][bank].items() <= true[bank].items()
    assert [event["index"] for event in document["events"]] == list(range(37))
    for event in document["events"]:
        assert {"index", "pcr", "type", "digests", "bound", "data"} <= event.keys()
        assert isinstance(event["bound"], bool)
    assert document["claims"]["secure_boot"]["enabled"] is True


def test_the_document_says_that_nothing_is_proven_without_a_quote(explain: Any) -> None:
    finding = explain(UKI)["findings"][0]
    assert finding["status"] == "not-evaluated"
    assert "replayed, not compared" in finding["message"]


def test_bound_says_whether_the_digest_covers_the_data(explain: Any) -> None:
    document = explain(GRUB)
    bound = {event["type"]: event["bound"] for event in document["events"]}
    assert bound["EV_EFI_VARIABLE_DRIVER_CONFIG"]
    assert not bound["EV_EFI_BOOT_SERVICES_APPLICATION"]
    assert not bound["EV_NO_ACTION"]
    assert document["claims"]["kernel_command_line"].startswith("/vmlinuz console=ttyS0")


def test_event_data_is_decoded_for_people(explain: Any) -> None:
    document = explain(GRUB)
    database = by_variable(document, "db")["data"]
    assert database["entries"] == 2
    assert any("Microsoft" in entry.get("subject", "") for entry in database["signatures"])
    assert by_variable(document, "BootOrder")["data"]["order"] == ["Boot0001", "Boot0000", "Boot0002"]
    assert by_variable(document, "BootOrder")["data"]["labels"] == ["variable", "vendor"]
    entry = by_variable(document, "Boot0001")["data"]
    assert entry["device_path"] == "PciRoot(0x0)/Pci(0x1,0x0)"
    loaded = [event["data"] for event in document["events"] if event["type"].endswith("SERVICES_APPLICATION")]
    assert loaded[0]["device_path"].endswith("\\EFI\\BOOT\\BOOTX64.EFI")
    (table,) = [event["data"] for event in document["events"] if event["type"] == "EV_EFI_GPT_EVENT"]
    assert len(table["partitions"]) == 2
    authority = next(event for event in document["events"] if event["type"] == "EV_EFI_VARIABLE_AUTHORITY")
    assert "Microsoft" in authority["data"]["authority"]["subject"]


def test_a_lie_in_the_text_is_shown_as_unbound_and_claims_nothing(explain: Any) -> None:
    document = explain(agile_log([secure_boot(on=True, measured_on=False), *separators()]))
    assert by_variable(document, "SecureBoot")["bound"] is False
    assert document["claims"]["secure_boot"]["enabled"] is None


def test_a_sha1_log_is_explained_with_its_weakness_named(explain: Any) -> None:
    document = explain(sha1_log([secure_boot(on=True), *separators()]))
    assert (document["format"], document["digest_algorithms"]) == ("sha1", ["sha1"])
    assert document["claims"]["secure_boot"]["enabled"] is True
    assert any("SHA-1" in finding["message"] for finding in document["findings"])


def test_data_that_does_not_decode_is_shown_with_its_problem(explain: Any) -> None:
    document = explain(
        agile_log(
            [
                Written(7, 0x80000001, b"odd"),
                Written(7, 0x80000001, variable("db", b"no signature list at all, too short")),
                Written(4, 0x80000003, b"\xff" * 40),
                Written(1, 0x80000002, variable("BootOrder", b"\0")),
                Written(7, 0x800000E0, variable("db", b"short")),
                Written(7, 0x800000E0, b"odd"),
                Written(6, 0xC, b"\x80" * 200),
            ]
        )
    )
    problems = [event["data"].get("problem") for event in document["events"]]
    assert [bool(problem) for problem in problems] == [False, True, True, True, True, True, True, False]
    assert document["events"][-1]["data"] == {"hex": "80" * 64, "size": 200, "cut": True}


def test_quirks_and_unreplayable_banks_are_findings(explain: Any) -> None:
    padded = explain(agile_log(separators()) + b"\xff" * 100)
    assert "padded" in [finding["code"] for finding in padded["findings"]]
    partial = explain(shared_path("corpus/tpm2-software_tpm2-tools/event-uefiaction.bin"))
    assert set(partial["pcrs"]) == {"sha1", "sha256", "sha384", "sha512"}


def test_a_bank_this_build_cannot_hash_is_a_finding(explain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from verifier.tcg.algorithms import HashAlg

    log = agile_log(separators(), (HashAlg.SHA384,))
    monkeypatch.setattr(HashAlg.SHA384, "new", None)
    document = explain(log)
    assert document["pcrs"] == {}
    assert "boot-log-bank-missing" in [finding["code"] for finding in document["findings"]]
    assert not any(event["bound"] for event in document["events"])


@pytest.mark.parametrize("log", [UKI, GRUB], ids=["uki", "grub"])
def test_people_get_a_table_of_events_pcrs_and_claims(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(log)) == 0
    printed = capsys.readouterr().out
    for expected in ("SecureBoot = 1", "BOOTX64.EFI", "bound", "label", "replayed sha256", "enabled on"):
        assert expected in printed.replace("\n", "") or expected in printed


def test_windows_and_confidential_logs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("kgoldman_ibmtss/dell1.log", "confidential-containers_trustee/CCEL_data_csv"):
        assert run(str(shared_path(f"corpus/{name}"))) == 0
        assert "events" in capsys.readouterr().out


def test_a_windows_log_is_explained_record_by_record(
    explain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_path("corpus/immune-gmbh_guard-oss/tpm12_windows_lenovo_x1carbonv3")
    document = explain(path)
    windows = document["claims"]["windows"]
    assert windows["parameters"]["vsm_launch_type"] == 1
    assert windows["bitlocker_unlock"] == ["cached", "tpm"]
    (boundary,) = document["events"][26]["data"]["records"]
    assert boundary["record"] == "trustboundary"
    assert {"record": "codeintegrity", "value": 1} in boundary["parts"]
    assert run(str(path)) == 0
    printed = capsys.readouterr().out
    assert "BitLocker unlocked by cached tpm" in printed
    assert "antimalware Windows Defender" in printed


def test_what_is_not_a_boot_log_is_refused_with_its_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(UKI.read_bytes()[:-1] + b"\xee" * 40)
    assert run(str(path), "--json") == EXIT_DATA
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "TCG event log at byte" in printed.err
    path.write_bytes(b"\x01" * (4 * 1024 * 1024 + 1))
    assert run(str(path)) == EXIT_DATA
    assert "not a boot log" in capsys.readouterr().err.replace("\n", " ")
    assert run(str(tmp_path / "absent")) != 0


def test_systemds_own_log_is_shown_behind_the_boot_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = Guest.booted(encrypted=True)
    boot_log, userspace = tmp_path / "boot.log", tmp_path / "tpm2-measure.log"
    boot_log.write_bytes(guest.log)
    userspace.write_bytes(guest.systemd.log)
    assert run(str(boot_log), "--userspace", str(userspace), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    true = guest.tpm.pcrs(HashAlg.SHA256)
    for pcr in ("9", "11", "15"):
        assert document["pcrs"]["sha256"][pcr] == true[int(pcr)].hex()
    texts = {event.get("text") for event in document["events"] if event["type"] == "SYSTEMD_USERSPACE"}
    assert {f"machine-id:{MACHINE_ID}", "ready", "nvpcr-separator"} <= texts
    key = next(event for event in document["events"] if "cryptsetup:root" in event["data"].get("text", ""))
    assert (key["bound"], key.get("text")) == (False, None)
    product = next(event for event in document["nv_events"] if event["label"] == "hardware")
    assert (product["nv_index"], product["bound"], product["text"]) == ("0x01d10200", True, PRODUCT)
    assert document["claims"]["userspace"]["identity_texts"][0] == f"machine-id:{MACHINE_ID}"
    assert document["claims"]["userspace"]["nvpcrs"] == {}, "nothing is certified here"
    assert run(str(boot_log), "--userspace", str(userspace)) == 0
    table = capsys.readouterr().out
    assert "cryptsetup-keyslot:root" in table
    assert "nvpcr-init: nvpcr-init" not in table


def test_systemds_log_alone_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "tpm2-measure.log"
    log.write_bytes(Guest.booted().systemd.log)
    assert run(str(log)) == 65
    assert "--userspace" in capsys.readouterr().err
    assert run(str(UKI), "--userspace", str(UKI)) == 65
    assert "userspace measurement log" in capsys.readouterr().err


# --- confidential guests

CC_LOGS = [
    "confidential-containers_trustee/CCEL_AAEL_alibabacloud",
    "confidential-containers_trustee/CCEL_data_csv",
    "confidential-containers_trustee/CCEL_data_gcp",
    "confidential-containers_trustee/CCEL_data_grub",
    "confidential-containers_trustee/CCEL_data_grub_gke",
    "confidential-containers_trustee/CCEL_data_ovmf",
    "cc-api_cc-trusted-api/ccel_data.bin",
    "intel_trustauthority-client-for-go/CCEL.data.bin",
]


@pytest.mark.parametrize("name", CC_LOGS)
def test_a_log_of_a_confidential_guest_is_explained_by_register(explain: Any, name: str) -> None:
    document = explain(shared_path(f"corpus/{name}"))
    assert document["registers"]["1"] == "RTMR0"
    assert {event["pcr"] for event in document["events"] if event["binding"] != "unmeasured"} <= {1, 2, 3, 4}
    said = by_variable(document, "SecureBoot")["data"]["value"]
    on = said == 1
    assert document["claims"]["secure_boot"]["enabled"] is on
    images = [e["index"] for e in document["events"] if e["type"] == "EV_EFI_BOOT_SERVICES_APPLICATION"]
    assert images
    assert set(images) <= {image["event_index"] for image in document["claims"]["images"]}
    assert any("confidential guest" in finding["message"] for finding in document["findings"])


def test_what_a_confidential_guests_log_says_is_read_off_as_of_a_pc(explain: Any) -> None:
    gke = explain(shared_path("corpus/confidential-containers_trustee/CCEL_data_grub_gke"))["claims"]
    assert list(gke["uki_sections"]) == [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"]
    assert gke["databases"]["dbx"]["entries"] == 186
    grub = explain(shared_path("corpus/cc-api_cc-trusted-api/ccel_data.bin"))["claims"]
    assert grub["kernel_command_line"].endswith("ima_hash=sha384 xxx")
    assert "insmod gzio" in grub["grub_commands"]


def test_a_td_shims_log_is_explained_by_register_too(explain: Any) -> None:
    document = explain(shared_path("corpus/confidential-containers_trustee/CCEL_data"))
    assert document["registers"]["2"] == "RTMR1"
    named = {event["data"].get("description") for event in document["events"]}
    assert {"td_hob", "td_payload", "td_payload_info"} <= named
    info = next(e for e in document["events"] if e["data"].get("description") == "td_payload_info")
    assert info["data"]["content"]["text"].startswith("root=/dev/vda1")
    assert not info["bound"]


def test_a_pcs_log_is_not_taken_for_a_confidential_guests(explain: Any) -> None:
    for log in (UKI, GRUB, agile_log([secure_boot(on=True), *separators()])):
        assert explain(log)["registers"] is None


def test_registers_are_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(shared_path("corpus/confidential-containers_trustee/CCEL_AAEL_alibabacloud"))) == 0
    shown = capsys.readouterr().out
    rows = [line.split()[:3] for line in shown.splitlines()]
    assert ["1", "RTMR0", "EFI_HANDOFF_TABLES2"] in rows
    assert "attestation agent of the guest (AAEL): " in shown


# --- which certificate let which image run


def test_images_are_shown_with_the_certificate_that_was_measured_before_them(explain: Any) -> None:
    claims = explain(GRUB)["claims"]
    shown = {
        image["image_event"]: [(one["variable"], one["event"]) for one in image["authorities"]]
        for image in claims["let_run"]
    }
    assert shown == {24: [("db", 22)], 30: [("MokListRT", 29)], 42: [], 43: []}
    assert not any(image["proven"] for image in claims["let_run"])
    assert set(shown) == {image["event_index"] for image in claims["images"]}


def test_with_secure_boot_off_no_certificate_is_named(explain: Any) -> None:
    claims = explain(CAPTURES / "uki-sb-off" / "binary_bios_measurements")["claims"]
    assert [image["authorities"] for image in claims["let_run"]] == [[], []]


# --- labels of loaders


@pytest.mark.parametrize(
    ("kind", "data", "shown"),
    [
        (6, b"\x2a\x58\xbc\xf5\x18\0\0\0" + "loader.conf\0".encode("utf-16-le"), "systemd-boot: loader.conf"),
        (6, b"\xec\x22\x3b\x8f\x0d\0\0\0Linux initrd\0", "Linux EFI stub: initrd"),
        (0xD, b"MokList\0\xaf", "MokList"),
        (0xD, b"grub_linuxefi Kernel\0l", "grub_linuxefi Kernel"),
    ],
)
def test_labels_of_loaders_are_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: int, data: bytes, shown: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(agile_log([Written(5, kind, data, b"something that is not in the log")]))
    assert run(str(path)) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("1 ")]
    assert "label" in row
    assert shown in row
