"""Claims of PCRs 9, 12 and 13 and of Windows: on real logs, and against whoever edits a log."""

from __future__ import annotations

import struct

import pytest

from tests.event_logs import CORPUS
from tests.logs import EV_IPL, Written, agile_log, separators
from tests.unit.appraisal.test_boot_details import boundary, closed, tagged
from tests.unit.policy.test_catalogue import captured
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.eventlog_report import explain_log
from verifier.claims import ProvenClaims
from verifier.policy.catalogue import CATALOGUE, View
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log, replay
from verifier.tcg.windows import Sipa

SHA256 = HashAlg.SHA256
PASSED_ON = {"boot.credentials": 12, "boot.extensions": 13, "boot.files": 9}


def claims_of(data: bytes, bank: HashAlg = SHA256) -> ProvenClaims:
    """A log, taken as if a quote had said what it replays to (and that all its other PCRs are untouched)."""
    log = parse_event_log(data)
    values = dict.fromkeys(range(16), bytes(bank.size)) | replay(log, bank)
    facts = bind_log(data, log, {bank: values}, None).facts
    return ProvenClaims(captured("uki-sb-on").quote._replace(pcrs={bank: values}), facts)


def read(name: str, claims: ProvenClaims, bank: HashAlg = SHA256):
    return CATALOGUE[name].read(View(claims, bank))


def linux(*events: Written) -> ProvenClaims:
    return claims_of(agile_log([*separators(), *events]))


def text(pcr: int, line: str) -> Written:
    """As systemd-stub measures a command line: UTF-16."""
    return Written(pcr, EV_IPL, line.encode("utf-16-le") + b"\0\0")


def archive(pcr: int, label: str, content: bytes) -> Written:
    """As systemd-stub measures what it packs for the initrd: the label covers nothing."""
    return Written(pcr, EV_IPL, label.encode("utf-16-le") + b"\0\0", content)


CPIO = b"070701\0\0credentials"


def test_nothing_passed_on_is_proven_as_such_and_is_not_the_same_as_unproven() -> None:
    for name in PASSED_ON:
        assert read(name, linux()) == []
    quote = captured("uki-sb-on").quote
    facts = linux().boot
    only_seven = ProvenClaims(quote._replace(pcrs={SHA256: {7: bytes(32)}}), facts)
    assert [read(name, only_seven) for name in PASSED_ON] == [None] * 3


def test_credentials_and_extensions_are_listed_by_digest_beside_command_lines() -> None:
    claims = linux(
        text(12, "quiet debug"),
        archive(12, "Credentials initrd", CPIO),
        archive(13, "System extension initrd", b"sysext"),
    )
    assert read("boot.credentials", claims) == [SHA256.digest(CPIO).hex()]
    assert read("boot.extensions", claims) == [SHA256.digest(b"sysext").hex()]
    assert read("boot.loader.lines", claims) is None, "with an archive there, the lines may not be all"


@pytest.mark.parametrize("pcr", [12, 13, 9])
def test_no_edit_of_the_log_takes_an_archive_off_the_list(pcr: int) -> None:
    name = next(name for name, index in PASSED_ON.items() if index == pcr)
    for data in (CPIO, b"grub_cmd: " + CPIO, CPIO + b"\0", b"nvpcr-init:" + CPIO):
        for kind in (EV_IPL, 0x6, 0x4, 0x80000007, 0xD):
            claims = linux(Written(pcr, kind, data, CPIO))
            assert read(name, claims) == [SHA256.digest(CPIO).hex()], (kind, data)


def test_a_file_of_one_line_is_not_hidden_by_its_own_text() -> None:
    """A one-line grub.cfg put into the log as text is still on the list of files."""
    config = b"configfile (hd1)/evil.cfg"
    claims = linux(Written(9, EV_IPL, b"grub_cmd: " + config, config))
    assert read("boot.files", claims) == [SHA256.digest(config).hex()]


def test_the_files_of_captured_boots_are_all_of_pcr_9_but_the_command_line() -> None:
    grub, uki = captured("grub-sb-on"), captured("uki-sb-on")
    assert len(read("boot.files", grub)) == 3, "grub.cfg, kernel, initrd"
    assert grub.boot is not None
    assert uki.boot is not None
    line = [
        e.digests[SHA256].hex()
        for e in uki.boot.events
        if e.pcr == 9 and e.text == uki.boot.kernel_command_line
    ]
    assert len(line) == 1
    everything = [e.digests[SHA256].hex() for e in uki.boot.events if e.pcr == 9]
    assert read("boot.files", uki) == [digest for digest in everything if digest not in line]


# --- Windows

P51 = "kgoldman_ibmtss/p511.log"
X1 = "immune-gmbh_guard-oss/tpm12_windows_lenovo_x1carbonv3"
WINDOWS = {
    P51: {
        "hypervisor": True,
        "vsm": True,
        "hvci": None,
        "credential_guard": None,
        "boot_counter": 155,
        "event_counter": None,
        "resumed": False,
        "hibernation_disabled": False,
        "bitlocker_unlock": ["cached", "tpm"],
        "elam_drivers": ["Windows Defender"],
        "test_signing": False,
        "code_integrity": True,
        "boot_debugging": False,
        "kernel_debugging": False,
        "hypervisor_debugging": False,
    },
    "immune-gmbh_guard-oss/evidence/r340.eventlog.bin": {
        "hypervisor": False,
        "vsm": False,
        "hvci": False,
        "credential_guard": False,
        "boot_counter": 85,
        "event_counter": 1536,
        "resumed": False,
        "bitlocker_unlock": [],
    },
    "immune-gmbh_guard-oss/dell-notebook-5eventlogs-WBCL.log": {
        "vsm": False,
        "boot_counter": 177,
        "event_counter": 10240,
        "bitlocker_unlock": ["cached"],
    },
}
needs_corpus = pytest.mark.skipif(not (CORPUS / P51).is_file(), reason="the shared corpus is not here")


@needs_corpus
@pytest.mark.parametrize("name", WINDOWS)
def test_what_real_machines_with_windows_say_of_themselves(name: str) -> None:
    claims = claims_of((CORPUS / name).read_bytes())
    assert {claim: read(f"boot.windows.{claim}", claims) for claim in WINDOWS[name]} == WINDOWS[name]
    assert [read(claim, claims) for claim in ("boot.credentials", "boot.extensions")] == [None, None]


@needs_corpus
def test_a_log_of_sha1_alone_is_shown_and_not_believed() -> None:
    """Virtual secure mode and Credential Guard were on in this machine; nothing strong says so."""
    data = (CORPUS / X1).read_bytes()
    shown = explain_log(data)["claims"]
    assert shown["windows"]["parameters"]["lsaiso_config"] == 2  # type: ignore[index]
    claims = claims_of(data, HashAlg.SHA1)
    assert claims.boot is not None
    for name in CATALOGUE:
        if name.startswith("boot.windows."):
            assert read(name, claims, HashAlg.SHA1) is None, name
    assert read("boot.secure_boot.enabled", claims, HashAlg.SHA1) is None


def windows(**parameters: bytes) -> ProvenClaims:
    records = [(Sipa[name.upper()], content) for name, content in parameters.items()]
    flags = boundary((Sipa.CODEINTEGRITY, b"\1"), *records)
    return claims_of(agile_log([*separators(), tagged(12, flags), tagged(13, flags), closed(12), closed(13)]))


ON, OFF = struct.pack("<Q", 1), bytes(8)


@pytest.mark.parametrize(
    ("parameters", "hvci", "guard"),
    [
        ({"vsm_launch_type": ON, "vbs_hvci_policy": ON, "lsaiso_config": b"\2\0\0\0"}, True, True),
        ({"vsm_launch_type": ON, "vbs_hvci_policy": OFF, "lsaiso_config": bytes(4)}, False, False),
        ({"vsm_launch_type": OFF, "vbs_hvci_policy": ON, "lsaiso_config": b"\1\0\0\0"}, False, False),
        ({"vsm_launch_type": ON}, None, None),
        ({"vbs_hvci_policy": ON, "lsaiso_config": b"\1\0\0\0"}, None, None),
    ],
)
def test_what_needs_virtual_secure_mode_is_not_on_without_it(parameters, hvci, guard) -> None:
    claims = windows(**parameters)
    assert (read("boot.windows.hvci", claims), read("boot.windows.credential_guard", claims)) == (hvci, guard)


@pytest.mark.parametrize(("target", "resumed"), [(1, False), (2, True), (5, False)])
def test_a_resume_from_hibernation_is_told_from_a_boot(target: int, resumed: bool) -> None:
    claims = windows(transfer_control=struct.pack("<I", target))
    assert read("boot.windows.resumed", claims) is resumed


def test_a_counter_that_cel_cannot_hold_is_not_proven() -> None:
    assert read("boot.windows.boot_counter", windows(bootcounter=b"\xff" * 8)) is None
    assert read("boot.windows.boot_counter", windows(bootcounter=struct.pack("<Q", 71))) == 71
