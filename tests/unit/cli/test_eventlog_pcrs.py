"""`attestctl eventlog --pcrs`: a log held against values, the quirk named for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import shared_path
from tests.deviant import Case, Deviants
from tests.event_logs import CAPTURES, Pcrs
from tests.userspace import MACHINE_ID
from verifier.cli import attestctl
from verifier.cli.output import EXIT_DATA
from verifier.quirks import Quirk
from verifier.tcg.algorithms import HashAlg

BOOT = CAPTURES / "grub-sb-on"
LOG = BOOT / "binary_bios_measurements"
TRUE = json.loads((BOOT / "pcrs.json").read_text())
SHA256 = HashAlg.SHA256


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        attestctl.main(["eventlog", *map(str, arguments)])
    assert isinstance(raised.value.code, int)
    return raised.value.code


def as_json(pcrs: Pcrs) -> str:
    return json.dumps(
        {
            bank.label: {str(pcr): value.hex() for pcr, value in values.items()}
            for bank, values in pcrs.items()
        }
    )


def as_printed(pcrs: dict[str, dict[str, str]]) -> str:
    """As tpm2_pcrread prints: aligned, upper case, a bank that is off without values."""
    lines = ["  sha1:"] if "sha1" not in pcrs else []
    for bank, values in pcrs.items():
        lines += [f"  {bank}:", *(f"    {pcr:<3}: 0x{value.upper()}" for pcr, value in values.items())]
    return "\n".join([*lines, "  sha512:"]) + "\n"


@pytest.fixture
def hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def held(case: Case, *options: str) -> tuple[int, str]:
        (tmp_path / "log").write_bytes(case.log)
        (tmp_path / "pcrs").write_text(as_json(case.quoted))
        code = run(tmp_path / "log", "--pcrs", tmp_path / "pcrs", *options)
        printed = capsys.readouterr()
        assert printed.err == ""
        return code, printed.out

    return held


CASES = {case.name: case for case in Deviants(LOG.read_bytes()).all()}


@pytest.mark.parametrize("name", CASES)
def test_the_document_names_quirk_pcr_and_event(hold: Any, name: str) -> None:
    case = CASES[name]
    code, printed = hold(case, "--json")
    document = json.loads(printed)
    told = {finding["pcr"]: finding for finding in document["findings"] if "pcr" in finding}
    assert {pcr: finding["quirk"] for pcr, finding in told.items()} == dict.fromkeys(case.pcrs, case.quirk)
    for pcr, after in case.pcrs.items():
        assert told[pcr].get("event_index") == after
        assert told[pcr]["expected"] == case.quoted[SHA256][pcr].hex()
        assert told[pcr]["remedy"] == case.quirk.entry.remedy
    first = document["first_divergence"]
    if case.pcrs:
        assert code == 1
        assert (first["pcr"] in case.pcrs, first["quirk"]) == (True, case.quirk)
    if case.quirk is Quirk.TRUNCATED_LOG:
        assert "boot-log-cut" in {finding["code"] for finding in document["findings"]}
    believed = {event["pcr"] for event in document["events"] if event["bound"]}
    assert not believed & case.pcrs.keys()


def test_people_read_which_pcr_diverges_first_and_what_to_do(hold: Any) -> None:
    case = next(case for case in CASES.values() if case.quirk is Quirk.EXIT_BOOT_SERVICES_UNLOGGED)
    code, printed = hold(case)
    text = " ".join(printed.split())
    assert code == 1
    assert f"first to diverge: PCR 5 (sha256), after event {case.pcrs[5]} (EV_EFI_GPT_EVENT)" in text
    assert "exit-boot-services-unlogged" in text
    assert "next: Update kernel or firmware" in text


def test_people_read_where_nothing_can_be_told(hold: Any) -> None:
    case = next(case for case in CASES.values() if case.quirk is Quirk.FIRMWARE_PCR0)
    text = " ".join(hold(case)[1].split())
    assert "PCR 0 (sha256) diverges; after which event cannot be told from its value: firmware-pcr0" in text


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(TRUE),
        json.dumps({"pcrs": TRUE, "format": "x"}),
        as_printed(TRUE),
        as_printed({"sha256": TRUE["sha256"]}),
    ],
    ids=["banks", "bundle", "tpm2_pcrread", "one bank"],
)
def test_values_are_read_however_they_were_written(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pcrs").write_text(content)
    assert run(LOG, "--pcrs", tmp_path / "pcrs", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["first_divergence"] is None
    assert document["findings"][0]["status"] == "passed"
    assert document["claims"]["secure_boot"]["enabled"] is True


def test_an_evidence_folder_is_a_source_of_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(LOG, "--pcrs", BOOT) == 0
    assert "the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "has no PCR values"),
        ("{", "is not JSON"),
        ("{}", "has no PCR values"),
        ('{"pcrs": []}', "not an object of banks"),
        ('{"sha256": {"0": "aa"}}', "sha256 PCR 0 has 1 bytes, not 32"),
        ('{"sha256": {"0": 5}}', "is not hexadecimal"),
        ('{"sha256": {"x": "aa"}}', "is not hexadecimal"),
        ("sha256:\n  0 : 0xAA\n", "has 1 bytes"),
    ],
)
def test_values_that_are_none_are_refused(
    content: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pcrs").write_text(content)
    assert run(LOG, "--pcrs", tmp_path / "pcrs") == EXIT_DATA
    assert what in " ".join(capsys.readouterr().err.split())


def test_a_bank_that_the_log_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pcrs").write_text(json.dumps({"sha384": {"0": "00" * 48}}))
    run(LOG, "--pcrs", tmp_path / "pcrs", "--json")
    codes = {finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert "boot-log-bank-missing" in codes
    assert "boot-log-replays" not in codes


@pytest.mark.parametrize("log", [b"", bytes(4096), b"\xff" * 64])
def test_an_empty_log_is_named(log: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_bytes(log)
    assert run(tmp_path / "log", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert Quirk.ZERO_LENGTH_LOG in {finding.get("quirk") for finding in document["findings"]}


def test_a_real_log_without_its_exit_events(capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_path("corpus/google_go-attestation/ebs_event_missing_eventlog")
    assert run(path, "--pcrs", f"{path}.expected.json", "--json") == 1
    first = json.loads(capsys.readouterr().out)["first_divergence"]
    assert (first["pcr"], first["after_event"], first["quirk"]) == (5, 36, "exit-boot-services-unlogged")


def test_systemds_log_leads_on_to_the_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.unit.appraisal.test_userspace import Guest

    guest = Guest.booted()
    (tmp_path / "log").write_bytes(guest.log)
    (tmp_path / "systemd.log").write_bytes(guest.systemd.log)
    (tmp_path / "pcrs").write_text(as_json({SHA256: guest.tpm.pcrs(SHA256)}))
    code = run(
        tmp_path / "log", "--userspace", tmp_path / "systemd.log", "--pcrs", tmp_path / "pcrs", "--json"
    )
    document = json.loads(capsys.readouterr().out)
    assert (code, document["claims"]["userspace"]["machine_id"]) == (0, MACHINE_ID)


def test_registers_of_a_confidential_guest_are_held_against_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_path("corpus/confidential-containers_trustee/CCEL_data_grub")
    stated = json.loads((path.parent / "CCEL.expected.json").read_text())["sha384"]["CCEL_data_grub"]
    values = {str(int(name.removeprefix("rtmr")) + 1): value for name, value in stated.items()}
    (tmp_path / "pcrs").write_text(json.dumps({"sha384": values}))
    assert run(path, "--pcrs", tmp_path / "pcrs", "--json") == 0
    claims = json.loads(capsys.readouterr().out)["claims"]
    alone = run(path, "--json"), json.loads(capsys.readouterr().out)["claims"]
    assert claims["secure_boot"] == alone[1]["secure_boot"]
    assert claims["secure_boot"]["enabled"] is not None
    wrong = {**values, "1": f"{int(values['1'], 16) ^ 1:096x}"}
    (tmp_path / "pcrs").write_text(json.dumps({"sha384": wrong}))
    assert run(path, "--pcrs", tmp_path / "pcrs", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["first_divergence"]["pcr"] == 1
    assert document["claims"]["secure_boot"]["enabled"] is None
