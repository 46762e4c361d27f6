"""Which claims a policy can reach: proven ones, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from msgspec import structs

from tests.conftest import ROOT
from tests.unit.policy.test_evaluate import BOOT, CLAIMS, QUOTE, SHA256, digest, event
from verifier.claims import Binding, EndorsementFacts, ProvenClaims, WindowsFacts, WindowsModule
from verifier.cli.bundle import read_bundle
from verifier.cli.proof import prove
from verifier.policy.catalogue import CATALOGUE, Kind, View
from verifier.policy.cel import compile_program, run, unfit
from verifier.tcg.algorithms import HashAlg


def read(name: str, claims: ProvenClaims = CLAIMS, bank: HashAlg = SHA256):
    return CATALOGUE[name].read(View(claims, bank))


def with_boot(**changes) -> ProvenClaims:
    return structs.replace(CLAIMS, boot=replace(BOOT, **changes))


@cache
def captured(name: str) -> ProvenClaims:
    return prove(read_bundle(ROOT / "policies" / "evidence" / name))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_claim_is_named_explained_and_usable_in_an_expression(name: str) -> None:
    entry = CATALOGUE[name]
    assert entry.name == name
    assert "." in name, "a macro's variable could hide a name without a dot"
    assert entry.about.endswith(".")
    assert compile_program(f"{name} == {name}").references == (name,)


NOT_MEASURED = {
    "uki-sb-on": {"boot.shim.sbat_level", "boot.shim.mok_list_trusted"},
    "uki-sb-off": {
        "boot.shim.sbat_level",
        "boot.shim.mok_list_trusted",
    },
    "grub-sb-on": set(),
}
"""OVMF of these captures measures neither its version, nor the mode variables, nor the name of BootOrder."""
NEVER_MEASURED = {
    "boot.machine_id",
    "boot.product_id",
    "boot.firmware.version",
    "boot.order",
    "boot.secure_boot.setup_mode",
    "boot.secure_boot.audit_mode",
    "boot.secure_boot.deployed_mode",
}


@pytest.mark.parametrize("scenario", NOT_MEASURED)
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_claim_of_a_captured_boot_has_the_type_it_says(scenario: str, name: str) -> None:
    value = read(name, captured(scenario))
    elsewhere = name.startswith(("identity.", "runtime.", "boot.windows.")) or name in NEVER_MEASURED
    assert (value is None) == (elsewhere or name in NOT_MEASURED[scenario])
    if value is None:
        return
    assert not unfit(value)
    outcome, problem = run(compile_program(f"{name} == {name}"), {name: value})
    assert outcome.name == "HOLDS", problem


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.reads_log])
def test_without_a_log_in_the_policys_bank_nothing_is_proven_of_the_boot(name: str) -> None:
    assert read(name, structs.replace(CLAIMS, boot=None)) is None
    assert read(name, bank=HashAlg.SHA384) is None


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.pcrs])
def test_a_claim_is_unproven_where_the_log_explains_none_of_its_pcrs(name: str) -> None:
    claims = captured("uki-sb-on")
    assert claims.boot is not None
    unexplained = replace(claims.boot, unlogged_pcrs=tuple(sorted(CATALOGUE[name].pcrs)))
    assert read(name, structs.replace(claims, boot=unexplained)) is None
    unquoted = {
        pcr: value for pcr, value in claims.quote.pcrs[SHA256].items() if pcr not in CATALOGUE[name].pcrs
    }
    assert read(name, structs.replace(claims, quote=claims.quote._replace(pcrs={SHA256: unquoted}))) is None


def test_identity_is_known_only_of_an_enrolled_machine() -> None:
    names = [name for name in CATALOGUE if name.startswith("identity.")]
    assert all(read(name) is None for name in names)
    facts = EndorsementFacts(endorsed_by="certificate", manufacturer="VMware", virtual=True)
    known = structs.replace(CLAIMS, endorsement=facts)
    assert read("identity.endorsed_by", known) == "certificate"
    assert read("identity.ek.virtual", known) is True
    assert read("identity.ek.model", known) is None


def test_sections_are_the_content_of_the_unified_kernel_image() -> None:
    sections = read("boot.uki.sections", captured("uki-sb-on"))
    assert list(sections) == [".linux", ".osrel", ".cmdline", ".initrd"]
    assert all(len(value) == 64 for value in sections.values())
    assert read("boot.uki.sections", captured("grub-sb-on")) == {}


def test_a_bound_event_that_is_named_like_a_section_is_none() -> None:
    """A running system can extend PCR 11 with a UEFI variable that it calls `.linux`."""
    forged = event(9, 11, "forged", name=".linux")
    real = event(1, 11, "kernel", name=".linux", bound=False)
    quote = QUOTE._replace(pcrs={SHA256: {11: bytes(32)}})
    claims = structs.replace(with_boot(events=(forged, real, forged)), quote=quote)
    assert read("boot.uki.sections", claims) == {".linux": digest("kernel").hex()}


def test_relabelling_an_event_cannot_take_an_image_off_the_list() -> None:
    loader = event(0, 4, "loader", bound=False)
    relabelled = loader._replace(type_name="EV_EFI_ACTION", event_type=0x80000007)
    action = event(1, 4, "Calling EFI Application")
    for first in (loader, relabelled):
        assert read("boot.images", with_boot(events=(first, action))) == [digest("loader").hex()]


def test_digests_are_listed_per_explained_pcr_and_in_order() -> None:
    assert read("boot.digests", with_boot(unlogged_pcrs=(8,))) == {
        4: [digest("loader").hex(), digest("kernel").hex()],
        7: [],
    }


def test_arguments_are_the_words_of_the_proven_line() -> None:
    assert read("boot.kernel_arguments") == ["root=/dev/vda2", "quiet"]
    assert read("boot.kernel_arguments", with_boot(kernel_command_line=None)) is None


def test_phases_need_an_explained_pcr_11() -> None:
    claims = with_boot(boot_phases=("enter-initrd",))
    assert read("boot.phases", claims) is None
    quoted = structs.replace(claims, quote=QUOTE._replace(pcrs={SHA256: {11: bytes(32)}}))
    assert read("boot.phases", quoted) == ["enter-initrd"]


def test_every_kind_of_claim_is_used() -> None:
    assert {entry.kind for entry in CATALOGUE.values()} == set(Kind)


def test_events_without_proven_digests_are_not_read() -> None:
    """As of a PCR that was not quoted."""
    unproven = event(0, 4, "loader", bound=False)._replace(digests={}, binding=Binding.UNBOUND)
    assert read("boot.images", with_boot(events=(unproven,))) == []


def test_databases_and_authorities_are_those_of_the_firmware() -> None:
    claims = captured("grub-sb-on")
    trusted = read("boot.secure_boot.db.certificates", claims)
    used = read("boot.secure_boot.authorities", claims)
    assert len(trusted) == 2
    assert used[0] in trusted, "shim was let in by db"
    assert used[1] not in trusted, "GRUB by the vendor certificate that shim brings"
    assert read("boot.secure_boot.dbx.entries", claims) == 1
    assert read("boot.shim.sbat_level", claims)["shim"] == "4"


def test_windows_speaks_of_itself(windows: ProvenClaims) -> None:
    assert read("boot.windows.code_integrity", windows) is True
    assert read("boot.windows.test_signing", windows) is False
    assert read("boot.windows.parameters", windows)["codeintegrity"] == 1
    assert read("boot.windows.bitlocker_unlock", windows) == ["tpm"]
    assert read("boot.windows.modules", windows) == ["ab" * 32]


def test_a_number_beyond_cels_own_is_left_out(windows: ProvenClaims) -> None:
    assert "huge" not in read("boot.windows.parameters", windows)


@pytest.fixture
def windows() -> ProvenClaims:
    facts = WindowsFacts(
        parameters={"codeintegrity": 1, "testsigning": 0, "huge": 2**64 - 1},
        contradictions=frozenset(),
        bitlocker_unlock=frozenset({"tpm"}),
        elam_drivers=("WdBoot",),
        modules=(WindowsModule("winload.efi", "sha256", bytes.fromhex("ab" * 32)),),
        policies=(),
        transfers=(),
    )
    boot = captured("uki-sb-on").boot
    assert boot is not None
    details = boot.details
    assert details is not None
    changed = replace(boot, decode=lambda: replace(details, windows=facts))
    return structs.replace(captured("uki-sb-on"), boot=changed)
