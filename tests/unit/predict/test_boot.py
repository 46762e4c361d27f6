"""Whole boots of small images: which events, in which PCR, and what is left out and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests import pe
from tests.unit.predict import loaders
from verifier.errors import UnsupportedError
from verifier.predict.authenticode import read_image
from verifier.predict.boot import CALLING, Boot, Presence, predict_boot, predict_parts
from verifier.predict.errors import PredictionError
from verifier.predict.model import Prediction
from verifier.predict.pe import parse_pe
from verifier.predict.uki import from_parts
from verifier.predict.variables import SecureBootVariables
from verifier.tcg.algorithms import HashAlg

SHA256 = HashAlg.SHA256
OFF = SecureBootVariables(enabled=False)


def boot(chain: dict[str, bytes], variables: SecureBootVariables | None, **options) -> Boot:
    enabled = options.pop("secure_boot", variables is not None and variables.enabled)
    images = tuple(read_image(name, data) for name, data in chain.items())
    return Boot(
        images=images, secure_boot=enabled, variables=variables, bank=options.pop("bank", SHA256), **options
    )


def labels(prediction: Prediction, pcr: int) -> list[str]:
    return [event.label + ("?" if event.optional else "") for event in prediction.pcrs[pcr].events]


def test_a_signed_unified_kernel_image_decides_every_pcr_it_touches(pki, variables):
    image = pe.sign(loaders.uki(), pki.db.signer())
    prediction = predict_boot(boot({"uki.efi": image}, variables))
    assert sorted(prediction.pcrs) == [4, 7, 8, 9, 11, 12, 13]
    assert labels(prediction, 4) == [CALLING, "00000000", "uki.efi"]
    assert labels(prediction, 7) == ["SecureBoot", "PK", "KEK", "db", "dbx", "00000000", "db: CN=db"]
    assert labels(prediction, 9) == ["LOADED_IMAGE::LoadOptions", "Linux initrd"]
    for untouched in (8, 12, 13):
        assert [each.value for each in prediction.pcrs[untouched].values] == [bytes(32)]
    assert (prediction.unpredicted, prediction.command_line) == ({}, "root=/dev/vda2 quiet")
    assert len(prediction.events) == sum(len(pcr.events) for pcr in prediction.pcrs.values())


@pytest.mark.parametrize(("version", "measured"), [(252, True), (257, True), (258, False)])
def test_without_secure_boot_firmware_measures_the_inner_kernel_unless_the_stub_starts_it_itself(
    version, measured
):
    prediction = predict_boot(boot({"uki.efi": loaders.uki(version)}, OFF))
    assert ("kernel inside the image" in labels(prediction, 4)) is measured
    assert labels(prediction, 7)[-1] == "00000000"
    if measured:
        inner = prediction.pcrs[4].events[-1]
        assert inner.digest == pe.reference_digest(loaders.kernel())


def test_without_variables_pcr_7_is_not_predicted_and_the_rest_is(pki):
    image = pe.sign(loaders.uki(), pki.db.signer())
    prediction = predict_boot(boot({"uki.efi": image}, None, secure_boot=True))
    assert "variables were not given" in prediction.unpredicted[7]
    assert 7 not in prediction.pcrs
    assert 4 in prediction.pcrs


def test_shim_and_grub_measure_the_kernel_once_or_twice(pki, variables):
    chain = {
        "shim": pe.sign(loaders.shim(pki.stranger.der), pki.db.signer()),
        "grub": pe.sign(loaders.grub(), pki.stranger.signer()),
        "vmlinuz": pe.sign(loaders.kernel(), pki.stranger.signer()),
    }
    prediction = predict_boot(boot(chain, variables))
    assert labels(prediction, 4)[2:] == ["shim", "grub", "vmlinuz", "vmlinuz (verified again)?"]
    assert labels(prediction, 7)[6:] == [
        "db: CN=db",
        "SbatLevel: sbat,1,2025021800",
        "MokListRT: CN=stranger",
    ]
    assert labels(prediction, 14) == ["MokList", "MokListX", "MokListTrusted"]
    assert [each.when for each in prediction.pcrs[4].values] == ["", "without vmlinuz (verified again)"]
    assert set(prediction.unpredicted) == {8, 9}
    off = predict_boot(boot(chain, OFF))
    assert labels(off, 4)[2:] == ["shim", "grub", "vmlinuz?", "vmlinuz (verified again)?"]
    assert labels(off, 7)[6:] == ["SbatLevel: sbat,1,2021030218"]


def test_firmware_and_shim_each_measure_an_authority_once(pki, variables):
    """Seen on OVMF (`shim signed by us, stub 252`): one entry of db, measured by both."""
    ours = pki.db.signer()
    chain = {"shim": pe.sign(loaders.shim(b""), ours), "next": pe.sign(loaders.grub(), ours)}
    chain["uki.efi"] = pe.sign(loaders.uki(), ours)
    authorities = labels(predict_boot(boot(chain, variables)), 7)[6:]
    assert authorities == ["db: CN=db", "SbatLevel: sbat,1,2025021800", "db: CN=db"]


def test_without_shim_firmware_verifies_every_image(pki, variables):
    chain = {
        "loader": pe.sign(loaders.CODE_IMAGE, pki.leaf.signer()),
        "uki.efi": pe.sign(loaders.uki(), pki.db.signer()),
    }
    assert labels(predict_boot(boot(chain, variables)), 7)[6:] == ["db: CN=ca", "db: CN=db"]


def test_a_kernel_started_by_firmware_itself_leaves_its_command_line_open(pki, variables):
    prediction = predict_boot(boot({"vmlinuz.efi": pe.sign(loaders.kernel(), pki.db.signer())}, variables))
    assert labels(prediction, 4)[2:] == ["vmlinuz.efi"]
    assert set(prediction.unpredicted) == {9, 12}


@pytest.mark.parametrize(
    ("calling", "expected", "values"),
    [
        (Presence.ALWAYS, [CALLING, "00000000"], 1),
        (Presence.SOMETIMES, [CALLING + "?", "00000000"], 2),
        (Presence.NEVER, ["00000000"], 1),
    ],
)
def test_firmware_that_leaves_the_first_action_out_is_allowed_for(calling, expected, values):
    prediction = predict_boot(boot({"uki.efi": loaders.uki(258)}, OFF, calling=calling))
    assert labels(prediction, 4)[: len(expected)] == expected
    assert len(prediction.pcrs[4].values) == values


@pytest.mark.parametrize(
    ("image", "pcr", "why"),
    [
        (
            loaders.uki(258, code=pe.NOTHING + "LoaderBootSecret".encode("utf-16-le")),
            9,
            "secret of the machine",
        ),
        (loaders.uki(252, kernel_image=loaders.kernel("5.10.0-1")), 9, "kernels from 6.1 on"),
        (loaders.uki(252, parts=[pe.Part(".initrd", b"i")]), 9, "leaves the command line"),
        (loaders.uki(252, parts=[pe.Part(".initrd", b"i")]), 12, "leaves the command line"),
    ],
)
def test_what_does_not_follow_from_the_files_is_left_out_with_the_reason(image, pcr, why):
    prediction = predict_boot(boot({"uki.efi": image}, OFF))
    assert why in prediction.unpredicted[pcr]
    assert pcr not in prediction.pcrs


@pytest.mark.parametrize("bank", [HashAlg.SHA1, HashAlg.SHA384])
def test_other_banks(bank):
    prediction = predict_boot(boot({"uki.efi": loaders.uki()}, OFF, bank=bank))
    assert {len(event.digest) for event in prediction.events} == {bank.size}


def test_inputs_that_contradict_each_other_are_refused(variables):
    with pytest.raises(PredictionError, match="no image to boot"):
        predict_boot(boot({}, OFF))
    with pytest.raises(PredictionError, match="say otherwise about Secure Boot"):
        predict_boot(boot({"uki.efi": loaders.uki()}, replace(variables, enabled=False), secure_boot=True))
    with pytest.raises(PredictionError, match="not signed"):
        predict_boot(boot({"uki.efi": loaders.uki()}, variables))


def test_a_bank_this_build_cannot_hash_is_refused(monkeypatch):
    monkeypatch.setattr(HashAlg.SHA3_512, "new", None)
    image = read_image("uki.efi", loaders.uki())
    with pytest.raises(UnsupportedError, match="no sha3_512"):
        image.digest(HashAlg.SHA3_512)


def test_the_parts_of_an_image_decide_all_but_the_image_itself():
    stub = parse_pe(pe.build(pe.Shape(parts=loaders.stub(254))))
    contents = {".linux": loaders.kernel(), ".osrel": b"ID=lab\n", ".cmdline": b"root=/dev/vda2 quiet"}
    contents |= {".uname": b"6.1", ".initrd": b"initrd!"}
    prediction = predict_parts(from_parts(stub, contents), SHA256)
    built = predict_boot(boot({"uki.efi": loaders.uki(254)}, OFF))
    for pcr in (8, 9, 11, 12, 13):
        assert prediction.pcrs[pcr] == built.pcrs[pcr]
    assert set(prediction.unpredicted) == {4, 7}
    assert prediction.secure_boot is None
