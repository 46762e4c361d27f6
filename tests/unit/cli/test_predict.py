"""attestctl policy predict: files in, PCR values and a policy out, and what it says when it cannot."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests import pe
from tests.unit.predict import loaders
from tests.unit.predict.conftest import Pki, issue, unpacked, vectors
from verifier.cli.attestctl import main
from verifier.policy.parse import parse_policy
from verifier.policy_files import read_policy_source

Run = Callable[..., tuple[int, str, str]]
OWNER = "77777777-7777-7777-7777-777777777777"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"


@pytest.fixture(scope="module")
def pki() -> Pki:
    db = issue("db")
    return Pki(db=db, ca=db, leaf=db, stranger=db, modules=db)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    from rich.console import Console

    from verifier.cli import output

    monkeypatch.setattr(output, "out", Console(highlight=False, width=220))
    monkeypatch.setattr(output, "err", Console(stderr=True, highlight=False, width=220))

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(("policy", "predict", *(str(each) for each in arguments)))
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def files(tmp_path: Path, pki: Pki) -> Path:
    (tmp_path / "uki.efi").write_bytes(pe.sign(loaders.uki(), pki.db.signer()))
    (tmp_path / "shim.efi").write_bytes(pe.sign(loaders.shim(pki.db.der), pki.db.signer()))
    (tmp_path / "grub.efi").write_bytes(pe.sign(loaders.grub(), pki.db.signer()))
    (tmp_path / "vmlinuz").write_bytes(pe.sign(loaders.kernel(), pki.db.signer()))
    (tmp_path / "db.pem").write_bytes(pki.db.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "db.esl").write_bytes(pki.db.entry)
    (tmp_path / "stub.efi").write_bytes(pe.build(pe.Shape(parts=loaders.stub(254))))
    (tmp_path / "initrd.img").write_bytes(b"initrd!")
    (tmp_path / "os-release").write_bytes(b"ID=lab\n")
    efivars = tmp_path / "efivars"
    efivars.mkdir()
    (efivars / f"SecureBoot-{GLOBAL}").write_bytes(b"\6\0\0\0\1")
    (efivars / f"db-{DATABASE}").write_bytes(b"\x27\0\0\0" + pki.db.entry)
    (efivars / "unreadable-name").write_bytes(b"ignored")
    return tmp_path


def document(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)


def test_one_document_tells_every_value_and_event_and_what_was_not_predicted(run: Run, files: Path) -> None:
    told = document(run("--uki", files / "uki.efi", "--efivars", files / "efivars", "--json"))
    assert set(told) == {"bank", "secure_boot", "command_line", "pcrs", "events", "unpredicted", "policy"}
    assert (told["bank"], told["secure_boot"], told["policy"]) == ("sha256", True, None)
    assert set(told["pcrs"]) == {"4", "7", "8", "9", "11", "12", "13"}
    assert told["pcrs"]["12"] == [{"value": "00" * 32, "when": ""}]
    event = next(each for each in told["events"] if each["label"] == "uki.efi")
    assert event == {
        "pcr": 4,
        "type": "EV_EFI_BOOT_SERVICES_APPLICATION",
        "label": "uki.efi",
        "digest": pe.reference_digest((files / "uki.efi").read_bytes()).hex(),
        "optional": False,
    }


def test_variables_read_alike_from_efivars_a_captured_machine_and_single_files(run: Run, files: Path) -> None:
    variables = {
        path.name: base64.b64encode(path.read_bytes()).decode() for path in (files / "efivars").iterdir()
    }
    meta = files / "meta.json"
    meta.write_text(json.dumps({"efivars": variables | {"Broken-x": None}}))
    image = ("--uki", files / "uki.efi", "--json")
    expected = document(run(*image, "--efivars", files / "efivars"))
    assert document(run(*image, "--efivars", meta)) == expected
    assert document(run(*image, "--db", files / "db.esl")) == expected
    assert (
        document(run(*image, "--db", files / "db.pem", "--owner", OWNER, "--secure-boot", "on")) == expected
    )


def test_a_variable_store_of_ovmf_will_do(run: Run, files: Path) -> None:
    store = files / "OVMF_VARS.fd"
    store.write_bytes(unpacked(vectors("boots")["stores"]["off"]))
    told = document(run("--uki", files / "uki.efi", "--efivars", store, "--json"))
    assert told["secure_boot"] is False
    assert told == document(run("--uki", files / "uki.efi", "--secure-boot", "off", "--json"))


def test_a_chain_of_loaders(run: Run, files: Path) -> None:
    chain = ("--chain", files / "shim.efi", files / "grub.efi", files / "vmlinuz")
    told = document(run(*chain, "--efivars", files / "efivars", "--json"))
    assert set(told["pcrs"]) == {"4", "7", "14"}
    assert set(told["unpredicted"]) == {"8", "9"}
    assert [each["when"] for each in told["pcrs"]["4"]] == ["", "without vmlinuz (verified again)"]
    after = ("--chain", files / "shim.efi", "--uki", files / "uki.efi")
    assert set(document(run(*after, "--efivars", files / "efivars", "--json"))["pcrs"]) >= {
        "4",
        "7",
        "11",
        "14",
    }


def test_parts_before_the_image_is_built(run: Run, files: Path) -> None:
    parts = (
        "--kernel",
        files / "vmlinuz",
        "--initrd",
        files / "initrd.img",
        "--cmdline",
        "root=/dev/vda2 quiet",
    )
    told = document(run(*parts, "--osrel", files / "os-release", "--stub", files / "stub.efi", "--json"))
    assert set(told["pcrs"]) == {"8", "9", "11", "12", "13"}
    assert set(told["unpredicted"]) == {"4", "7"}
    assert told["command_line"] == "root=/dev/vda2 quiet"


@pytest.mark.parametrize("form", ["folder", "folder/policy.yaml", "one.yaml"])
def test_the_policy_is_written_where_learn_writes_its_own(run: Run, files: Path, form: str) -> None:
    image = ("--uki", files / "uki.efi", "--efivars", files / "efivars")
    told = document(run(*image, "--out", files / form, "--json"))
    written = Path(told["policy"])
    policy = parse_policy(read_policy_source(written.parent if written.name == "policy.yaml" else written))
    assert policy.id == ("folder" if form.startswith("folder") else "one")
    assert policy.quote.pcrs == {4, 7, 8, 9, 11, 12, 13}


def test_people_see_values_events_and_what_is_missing(run: Run, files: Path) -> None:
    chain = ("--chain", files / "shim.efi", files / "grub.efi", files / "vmlinuz", "--out", files / "grub")
    code, out, _ = run(*chain, "--efivars", files / "efivars", "--id", "lab")
    assert code == 0
    for part in (
        "not predicted",
        "learn it from a good boot",
        "SbatLevel: sbat,1,2025021800",
        "(not on every machine)",
        "wrote",
    ):
        assert part in out


def test_other_banks(run: Run, files: Path) -> None:
    told = document(run("--uki", files / "uki.efi", "--secure-boot", "off", "--bank", "sha384", "--json"))
    assert {len(event["digest"]) for event in told["events"]} == {96}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to predict"),
        (["--uki", "uki.efi"], "say --secure-boot on or off"),
        (["--uki", "missing.efi", "--secure-boot", "on"], "No such file"),
        (["--uki", "os-release", "--secure-boot", "on"], "does not begin with MZ"),
        (["--uki", "uki.efi", "--kernel", "vmlinuz"], "either built images"),
        (["--kernel", "vmlinuz"], "--kernel needs --stub"),
        (["--uki", "uki.efi", "--efivars", "efivars", "--secure-boot", "off"], "they have Secure Boot on"),
        (["--uki", "uki.efi", "--efivars", "efivars", "--db", "db.esl"], "either --efivars or"),
        (["--uki", "uki.efi", "--efivars", "os-release"], "neither a variable store nor JSON"),
        (["--uki", "uki.efi", "--db", "db.pem"], "--owner"),
        (["--uki", "uki.efi", "--db", "db.pem", "--owner", "me"], "is not a GUID"),
        (["--uki", "uki.efi", "--pk", "db.esl", "--secure-boot", "on"], "db does not let it run"),
        (["--uki", "uki.efi", "--secure-boot", "off", "--out", "os-release/x"], "Not a directory"),
        (["--uki", "uki.efi", "--secure-boot", "off", "--out", "A Policy"], "id"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_reason_and_nothing_is_written(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    code, out, err = run(*arguments)
    assert code == 65
    assert out == ""
    assert message in err
    assert not (files / "A Policy" / "policy.yaml").exists()
