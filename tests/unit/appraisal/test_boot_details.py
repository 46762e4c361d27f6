"""Details read off bound events: what they are on real logs, and what no relabelling can hide or invent."""

from __future__ import annotations

import json
import struct

import pytest

from tests.conftest import shared_path
from tests.event_logs import boot, pcrs_of
from tests.logs import (
    EV_EFI_ACTION,
    EV_EFI_BOOT_SERVICES_APPLICATION,
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_IPL,
    EV_SEPARATOR,
    Written,
    agile_log,
    secure_boot,
    separators,
    variable,
)
from tests.unit.appraisal.test_boot_facts import bind, bound_boot, config, facts, grub_boot, quoted, uki_boot
from verifier.claims import BootDetails
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.event_types import EventType
from verifier.tcg.guid import guid_bytes
from verifier.tcg.sbat import parse_sbat
from verifier.tcg.uefi import IMAGE_SECURITY_DATABASE, SHIM_LOCK
from verifier.tcg.windows import Sipa

SHA256 = HashAlg.SHA256
AUTHORITY = int(EventType.EV_EFI_VARIABLE_AUTHORITY)
BOOT_VARIABLE = int(EventType.EV_EFI_VARIABLE_BOOT)
EV_TAG = 6
X509 = guid_bytes("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
SHA256_LIST = guid_bytes("c1c41626-504c-4092-aca9-41f936934328")
CERTIFICATE = b"\x30\x82\x00\x04cert"


def details(*events: Written) -> BootDetails:
    read = facts(agile_log(events)).details
    assert read is not None
    return read


def signature_list(kind: bytes, *entries: bytes) -> bytes:
    body = b"".join(bytes(16) + entry for entry in entries)
    return kind + struct.pack("<III", 28 + len(body), 0, 16 + len(entries[0])) + body


def database(name: str, value: bytes) -> Written:
    return config(name, value, vendor=IMAGE_SECURITY_DATABASE)


def authority(name: str, value: bytes, vendor: bytes = IMAGE_SECURITY_DATABASE) -> Written:
    return Written(7, AUTHORITY, variable(name, value, vendor))


DB = database("db", signature_list(X509, CERTIFICATE) + signature_list(SHA256_LIST, b"a" * 32))
DBX = database("dbx", signature_list(SHA256_LIST, b"x" * 32, b"y" * 32))
LOADER = authority("db", bytes(16) + CERTIFICATE)
SBAT = authority("SbatLevel", b"sbat,1,2025021800\nshim,4\ngrub,5\n", SHIM_LOCK)


# --- real boots


def test_a_shim_and_grub_guest_in_detail() -> None:
    read = bound_boot(boot("grub-sb-on"), SHA256, HashAlg.SHA1).details
    assert read is not None
    assert {name: (len(db.certificates), db.entries) for name, db in read.databases.items()} == {
        "PK": (1, 1),
        "KEK": (2, 2),
        "db": (2, 2),
        "dbx": (0, 1),
    }
    assert read.authorities is not None
    assert [(who.variable, who.after_separator) for who in read.authorities] == [
        ("db", True),
        ("MokListRT", True),
    ]
    assert read.authorities[0].entry_sha256 in read.databases["db"].certificates
    assert read.sbat_level == {"sbat": "1,2025021800", "shim": "4", "grub": "5"}
    assert read.mok_list_trusted is True
    assert len(read.images) == 4
    assert read.grub_commands is not None
    assert read.grub_commands[-1] == "boot"
    assert [entry.description for entry in read.boot_entries] == [
        "UEFI Misc Device",
        "UiApp",
        "EFI Internal Shell",
    ]
    assert [part.guid for part in read.partitions] == [
        f"{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "12"
    ]
    assert (read.windows, read.loader_lines, read.uki_sections) == (None, (), {})


def test_a_uki_guest_in_detail() -> None:
    captured = boot("uki-sb-on")
    read = bound_boot(captured).details
    assert read is not None
    assert list(read.uki_sections) == [".linux", ".osrel", ".cmdline", ".initrd"]
    assert read.uki_sections[".cmdline"] == {SHA256: SHA256.digest(captured.command_line.encode())}
    assert (read.grub_commands, read.loader_lines) == ((), ())
    assert read.sbat_level is None
    other = bound_boot(boot("uki-sb-on-extra-db-key")).details
    assert other is not None
    assert len(other.databases["db"].certificates) == len(read.databases["db"].certificates) + 1


def test_details_are_decoded_once() -> None:
    read = bound_boot(boot("uki-sb-on"))
    assert read.details is read.details


WINDOWS = {
    "t480s": (set(), 0, 75),
    "r340": (set(), 0, 69),
}


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_a_windows_machine_of_the_corpus_in_detail(name: str) -> None:
    unlocked, vsm, modules = WINDOWS[name]
    folder = shared_path("corpus/immune-gmbh_guard-oss/evidence")
    document = json.loads((folder / f"{name}.min.json").read_text())
    pcrs = {SHA256: {pcr: v for pcr, v in pcrs_of(document["pcrs"])[SHA256].items() if pcr < 16}}
    read = facts((folder / f"{name}.eventlog.bin").read_bytes(), pcrs).details
    assert read is not None
    assert read.windows is not None
    assert read.windows.flag("codeintegrity") is True
    for parameter in ("testsigning", "bootdebugging", "oskerneldebug", "safemode", "winpe"):
        assert read.windows.flag(parameter) is False
    assert read.windows.parameters["vsm_launch_type"] == vsm
    assert read.windows.bitlocker_unlock == unlocked
    assert read.windows.elam_drivers == ("Windows Defender",)
    assert read.windows.transfers == {1}
    assert len(read.windows.modules) == modules
    assert all(len(module.digest) == 32 for module in read.windows.modules if module.algorithm == "sha256")
    assert read.windows.modules[0].path.lower().endswith("winload.efi")
    assert read.windows.flag("vbs_hvci_policy") is None


# --- PCR 7


def test_databases_hold_certificates_and_digests() -> None:
    read = details(secure_boot(on=True), DB, DBX, *separators())
    assert read.databases["db"].certificates == (SHA256.digest(CERTIFICATE),)
    assert read.databases["db"].digests == {"sha256": frozenset({b"a" * 32})}
    dbx = read.databases["dbx"]
    assert (dbx.event_index, dbx.entries) == (3, 2)
    assert dbx.lacks(frozenset({b"x" * 32, b"z" * 32})) == {b"z" * 32}
    assert dbx.lacks(frozenset({b"c" * 32}), "x509-sha256") == {b"c" * 32}


def test_a_database_measured_late_twice_or_damaged_is_not_proven() -> None:
    assert details(*separators(), DB).databases == {}
    assert details(DB, DB, *separators()).databases == {}
    assert details(database("db", b"damaged"), *separators()).databases == {}
    assert details(DB).databases == {}
    foreign = config("db", signature_list(SHA256_LIST, b"a" * 32), vendor=bytes(16))
    assert details(foreign, *separators()).databases == {}


def test_authorities_say_by_what_an_image_was_let_run() -> None:
    shim = Written(
        7,
        AUTHORITY,
        variable("Shim", CERTIFICATE, SHIM_LOCK) + bytes(6),
        variable("Shim", CERTIFICATE, SHIM_LOCK) + bytes(5),
    )
    alone = Written(7, AUTHORITY, variable("db", bytes(16) + b"h" * 32), bytes(16) + b"h" * 32)
    read = details(secure_boot(on=True), DB, LOADER, *separators(), LOADER, shim, alone, SBAT)
    assert read.authorities is not None
    assert [(who.variable, who.after_separator) for who in read.authorities] == [
        ("db", False),
        ("db", True),
        ("Shim", True),
        (None, True),
    ]
    digests = [who.entry_sha256 for who in read.authorities]
    assert digests == [SHA256.digest(CERTIFICATE)] * 3 + [SHA256.digest(b"h" * 32)]


HIDDEN = {
    "under a type that leaves it unbound": Written(7, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", LOADER.data),
    "by edited data": Written(7, AUTHORITY, b"edited", LOADER.data),
    "as text": Written(7, EV_EFI_ACTION, CERTIFICATE + b"\x80\x01"),
    "as a second configuration": Written(7, EV_EFI_VARIABLE_DRIVER_CONFIG, DB.data),
}


@pytest.mark.parametrize("how", sorted(HIDDEN))
def test_an_authority_cannot_be_hidden(how: str) -> None:
    read = details(secure_boot(on=True), DB, HIDDEN[how], *separators())
    assert (read.authorities, read.firmware_actions, read.shim_states) == (None, None, None)


def test_an_authority_behind_the_separator_is_one_under_every_label_that_binds_it() -> None:
    for label in (EV_EFI_ACTION, EV_EFI_VARIABLE_DRIVER_CONFIG, EV_TAG, BOOT_VARIABLE):
        read = details(secure_boot(on=True), *separators(), Written(7, label, LOADER.data))
        assert read.authorities is None or len(read.authorities) == 1


def test_an_authority_wrapped_in_another_is_not_read_as_something_else() -> None:
    """Some firmware measures the value alone; then the measured bytes could be a whole structure in disguise."""
    for inner in (LOADER.data, LOADER.data + bytes(5)):
        wrapped = Written(7, AUTHORITY, variable("db", inner), inner)
        assert details(secure_boot(on=True), *separators(), wrapped).authorities is None


def test_firmwares_actions_are_complete() -> None:
    action = Written(7, EV_EFI_ACTION, b"DMA Protection Disabled")
    assert details(secure_boot(on=True), action, *separators()).firmware_actions == (
        "DMA Protection Disabled",
    )
    for label in (EV_SEPARATOR, EV_IPL, EV_TAG):
        assert (
            details(secure_boot(on=True), Written(7, label, action.data), *separators()).firmware_actions
            is None
        )
    edited = Written(7, EV_EFI_ACTION, b"All is well", b"DMA Protection Disabled")
    assert details(secure_boot(on=True), edited, *separators()).firmware_actions is None
    assert details(secure_boot(on=True)).firmware_actions is None


def test_shims_switches_are_read_from_pcr_7() -> None:
    off = authority("MokSBState", b"\x01", SHIM_LOCK)
    read = details(secure_boot(on=True), *separators(), off)
    assert (read.shim_states, read.authorities) == ({"MokSBState": 1}, ())
    on = authority("MokSBState", b"\0", SHIM_LOCK)
    assert details(secure_boot(on=True), *separators(), off, on).shim_states is None


def test_the_sbat_level_is_the_one_that_leaves_no_doubt() -> None:
    before = [secure_boot(on=True), *separators()]
    assert details(*before, SBAT).sbat_level == {"sbat": "1,2025021800", "shim": "4", "grub": "5"}
    assert details(*before).sbat_level is None
    newer = authority("SbatLevel", b"sbat,1,2030010100\n", SHIM_LOCK)
    assert details(*before, SBAT, newer).sbat_level is None
    hidden = Written(7, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", SBAT.data)
    assert details(*before, hidden, newer).sbat_level is None
    disguised = Written(7, EV_EFI_ACTION, SBAT.data)
    assert details(*before, disguised, newer).sbat_level is None


def test_sbat_text_is_read_line_by_line() -> None:
    assert parse_sbat("sbat,1,2024\r\nshim,4\n\nno comma\nshim,9\n\0") == {"sbat": "1,2024", "shim": "4"}


# --- the other PCRs


def test_images_are_all_that_no_readable_text_explains() -> None:
    image = Written(4, EV_EFI_BOOT_SERVICES_APPLICATION, b"path", b"authenticode")
    action = Written(4, EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    rom = Written(2, int(EventType.EV_EFI_BOOT_SERVICES_DRIVER), b"path", b"option rom")
    read = details(rom, action, *separators(), image)
    assert [(loaded.pcr, loaded.digests[SHA256], loaded.after_separator) for loaded in read.images] == [
        (2, SHA256.digest(b"option rom"), False),
        (4, SHA256.digest(b"authenticode"), True),
    ]


@pytest.mark.parametrize(
    "label", [EV_EFI_ACTION, EV_SEPARATOR, EV_TAG, EV_IPL, EV_EFI_VARIABLE_DRIVER_CONFIG, 0x8, 0x80000006]
)
def test_an_image_cannot_hide_behind_its_own_file_in_the_log(label: int) -> None:
    """The preimage of an Authenticode digest is the file, which whoever runs it has."""
    file = b"MZ\x90\x00\x03" + bytes(200)
    assert len(details(*separators(), Written(4, label, file)).images) == 1


def load_option(description: str) -> bytes:
    return struct.pack("<IH", 1, 4) + description.encode("utf-16-le") + b"\0\0" + b"\x7f\xff\x04\0"


def test_boot_entries_are_what_firmware_measured_and_named_only_where_it_measured_the_name() -> None:
    value = load_option("debian")
    unnamed = Written(1, BOOT_VARIABLE, variable("Boot0001", value), value)
    named = Written(1, BOOT_VARIABLE, variable("Boot0002", load_option("other")))
    order = Written(1, BOOT_VARIABLE, variable("BootOrder", b"\x02\0\x01\0"))
    read = details(
        unnamed, named, order, *separators(), Written(1, BOOT_VARIABLE, variable("Boot0003", value), value)
    )
    assert [(entry.name, entry.description) for entry in read.boot_entries] == [
        (None, "debian"),
        ("Boot0002", "other"),
    ]
    assert read.boot_order == ("Boot0002", "Boot0001")
    assert details(*separators()).boot_order is None


def partition_table(name: str) -> bytes:
    header = b"EFI PART" + bytes(76) + struct.pack("<II", 128, 0)
    entry = bytes(56) + name.encode("utf-16-le").ljust(72, b"\0")
    return header + struct.pack("<Q", 1) + entry


def test_the_partition_table_is_the_first_and_cannot_be_replaced() -> None:
    true, forged = (
        Written(5, 0x80000006, partition_table("root")),
        Written(5, 0x80000006, partition_table("evil")),
    )
    assert [part.name for part in details(*separators(), true, forged).partitions] == ["root"]
    entry = Written(5, BOOT_VARIABLE, variable("Boot0001", load_option("x")), load_option("x"))
    assert [part.name for part in details(entry, *separators(), true).partitions] == ["root"]
    wrapped = Written(5, BOOT_VARIABLE, variable("x", true.data), true.data)
    for hidden in (
        wrapped,
        *(Written(5, label, true.data) for label in (EV_EFI_ACTION, EV_TAG, EV_IPL, 0x80000003)),
    ):
        assert details(*separators(), hidden, forged).partitions == ()
    assert details(*separators(), Written(5, 0x80000006, b"no table")).disk_guid is None


def test_the_firmware_version_is_the_firmwares() -> None:
    version = Written(0, 0x8, "1.2\0".encode("utf-16-le"))
    assert details(version, *separators()).firmware_version == "1.2"
    assert details(*separators(), version).firmware_version is None


def test_what_grub_did_is_complete_or_not_proven() -> None:
    assert details(*grub_boot()).grub_commands == (
        "set timeout=0",
        "linux /vmlinuz root=/dev/vda2 quiet",
        "/vmlinuz root=/dev/vda2 quiet",
        "initrd /initrd.img",
    )
    hidden = Written(8, EV_IPL, b"grub_cmd: harmless\0", b"insmod evil")
    assert details(*grub_boot(), hidden).grub_commands is None
    log = agile_log(grub_boot())
    pcrs = quoted(log)
    del pcrs[SHA256][8]
    read = bind(log, pcrs).facts
    assert read is not None
    assert read.details is not None
    assert read.details.grub_commands is None


def test_passed_command_lines_are_complete_or_not_proven() -> None:
    assert details(*uki_boot(passed="init=/bin/sh")).loader_lines == ("init=/bin/sh",)
    addon = Written(12, EV_TAG, struct.pack("<II", 0x49DFFE0F, 4) + b"name", b"initrd addon")
    assert details(*uki_boot(), addon).loader_lines is None


def test_shims_mok_list_is_trusted_when_that_was_measured() -> None:
    listed = Written(14, EV_IPL, b"MokList\0", b"list")
    assert details(*separators(), listed).mok_list_trusted is False
    assert (
        details(*separators(), listed, Written(14, EV_IPL, b"anything\0", b"\x01")).mok_list_trusted is True
    )
    assert details(*separators()).mok_list_trusted is None


# --- Windows


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def boundary(*records: tuple[int, bytes]) -> bytes:
    return record(Sipa.TRUSTBOUNDARY, b"".join(record(kind, content) for kind, content in records))


def module(path: str, digest: bytes, algorithm: int | None = 0x800C) -> tuple[int, bytes]:
    parts = record(Sipa.FILEPATH, path.encode("utf-16-le") + b"\0\0") + record(Sipa.AUTHENTICODEHASH, digest)
    if algorithm is not None:
        parts += record(Sipa.HASHALGORITHMID, struct.pack("<I", algorithm))
    return Sipa.LOADEDMODULE_AGGREGATION, parts


def si_policy(name: str) -> tuple[int, bytes]:
    encoded = name.encode("utf-16-le") + b"\0\0"
    return Sipa.SI_POLICY, struct.pack("<QHHI", 1, len(encoded), 0x800C, 0) + encoded


def tagged(pcr: int, data: bytes) -> Written:
    return Written(pcr, EV_TAG, data)


def closed(pcr: int) -> Written:
    return Written(pcr, EV_SEPARATOR, b"WBCL")


FLAGS = ((Sipa.TESTSIGNING, b"\0"), (Sipa.CODEINTEGRITY, b"\x01"), (Sipa.BITLOCKER_UNLOCK, b"\x04\0\0\0"))
DRIVERS = (
    module("\\winload.efi", b"w" * 32),
    module("\\hal.dll", b"h" * 20, 0x8004),
    module("\\x", b"x", 0x000B),
)


def windows_boot(*flags: tuple[int, bytes]) -> list[Written]:
    return [
        *separators(),
        tagged(
            12, boundary(*(flags or FLAGS), (Sipa.ELAM_AGGREGATION, record(Sipa.ELAM_KEYNAME, b"W\0D\0\0\0")))
        ),
        tagged(13, boundary(*FLAGS, *DRIVERS, si_policy("{policy}"), (Sipa.SI_POLICY, b"damaged"))),
        closed(12),
        closed(13),
    ]


def test_windows_is_read_from_its_closed_registers() -> None:
    read = details(*windows_boot()).windows
    assert read is not None
    assert read.parameters == {"testsigning": 0, "codeintegrity": 1}
    assert (read.flag("testsigning"), read.flag("codeintegrity"), read.flag("winpe")) == (False, True, None)
    assert read.bitlocker_unlock == {"tpm"}
    assert read.elam_drivers == ("WD",)
    assert [(loaded.path, loaded.algorithm) for loaded in read.modules] == [
        ("\\winload.efi", "sha256"),
        ("\\hal.dll", "sha1"),
        ("\\x", "sha256"),
    ]
    assert read.policies == ("{policy}",)
    assert details(*windows_boot()).loader_lines is None


def test_a_module_of_unknown_algorithm_or_without_a_digest_invents_nothing() -> None:
    odd = (module("\\odd", b"o", 0x9999), module("\\none", b"n", None), (Sipa.LOADEDMODULE_AGGREGATION, b""))
    events = [*separators(), tagged(12, boundary(*FLAGS)), tagged(13, boundary(*odd)), closed(12), closed(13)]
    read = details(*events).windows
    assert read is not None
    assert [(loaded.path, loaded.algorithm) for loaded in read.modules] == [
        ("\\odd", "0x9999"),
        ("\\none", "0x0"),
    ]


def test_windows_that_contradicts_itself_says_so() -> None:
    read = details(*windows_boot((Sipa.TESTSIGNING, b"\x01"), (Sipa.BITLOCKER_UNLOCK, b"\x40\0\0\0"))).windows
    assert read is not None
    assert read.contradictions == {"testsigning"}
    assert read.flag("testsigning") is None
    assert read.bitlocker_unlock == {"tpm", "recovery"}


def hiding(label: int, data: bytes, measured: bytes | None = None) -> list[Written]:
    true, *rest = windows_boot((Sipa.TESTSIGNING, b"\x01"))[8:]
    assert true.pcr == 12
    forged = Written(12, label, data, true.data if measured is None else measured)
    return [*separators(), forged, tagged(12, boundary(*FLAGS)), *rest]


def test_what_windows_measured_cannot_be_hidden_or_appended() -> None:
    true = windows_boot((Sipa.TESTSIGNING, b"\x01"))[8].data
    wrapped = (
        struct.pack("<II", Sipa.INFORMATION, 40 + len(true) - 8)
        + bytes(8)
        + struct.pack("<QQ", 4, len(true))
        + bytes(8)
        + true
    )
    assert details(*hiding(EV_TAG, boundary(*FLAGS))).windows is None
    assert details(*hiding(EV_EFI_BOOT_SERVICES_APPLICATION, b"path")).windows is None
    assert details(*hiding(EV_EFI_ACTION, true)).windows is None
    assert details(*hiding(BOOT_VARIABLE, wrapped)).windows is None
    appended = [*separators(), closed(12), closed(13), tagged(12, boundary(*FLAGS))]
    assert details(*appended).windows is None
    assert details(*windows_boot()[:-2]).windows is None
    assert details(*separators(), tagged(12, b"damaged"), closed(12), closed(13)).windows is None
