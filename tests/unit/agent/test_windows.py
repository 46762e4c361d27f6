"""Windows without Windows: ctypes calls against a compiled stand-in, SMBIOS tables, registry values, real logs."""

from __future__ import annotations

import ctypes
import uuid

import pytest

from agent.collect.smbios import system_uuid, uuid_of_windows_table
from agent.collect.windows import WindowsSources
from agent.errors import AgentError, NoTpmError, SourceError, TpmBusyError, TpmError, TpmPermissionError
from agent.tpm import find_tcti
from agent.windows.system import Windows, firmware_table
from agent.windows.tbs import Code, Log, Tbs, load_library
from agent.wire.limits import MAX_BOOT_LOG
from tests.conftest import shared_path
from tests.windows import Registry, compiled

GUEST = uuid.UUID("4c4c4544-0042-3510-8054-b7c04f4d3132")
VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"


@pytest.fixture
def library(tmp_path):
    return compiled(tmp_path)


def structure(kind: int, body: bytes, *strings: bytes) -> bytes:
    texts = b"".join(text + b"\0" for text in strings) or b"\0"
    return bytes((kind, 4 + len(body), 0, 0)) + body + texts + b"\0"


def smbios_table(value: bytes) -> bytes:
    """BIOS information, system information with its strings, end: the order that firmware writes."""
    firmware = structure(0, bytes(20), b"VMware, Inc.", b"VMW201.00V")
    system = structure(
        1,
        bytes((1, 2, 3, 4)) + value + bytes((6, 0, 0)),
        b"VMware, Inc.",
        b"VMware20,1",
        b"None",
        b"VMware-42",
    )
    return firmware + system + structure(127, b"")


def windows_table(table: bytes, version: tuple[int, int] = (2, 7)) -> bytes:
    return bytes((0, *version, 0)) + len(table).to_bytes(4, "little") + table


def test_the_uuid_is_written_as_linux_and_vsphere_write_it():
    assert uuid_of_windows_table(windows_table(smbios_table(GUEST.bytes_le))) == str(GUEST)


def test_before_smbios_2_6_the_uuid_is_big_endian():
    assert uuid_of_windows_table(windows_table(smbios_table(GUEST.bytes), (2, 5))) == str(GUEST)


@pytest.mark.parametrize("none", [bytes(16), b"\xff" * 16], ids=["unset", "not present"])
def test_a_uuid_that_is_not_set_is_none(none):
    assert uuid_of_windows_table(windows_table(smbios_table(none))) is None


def test_a_cut_table_gives_no_uuid_rather_than_a_wrong_one():
    table = smbios_table(GUEST.bytes_le)
    whole = windows_table(table)
    answers = {uuid_of_windows_table(whole[:length]) for length in range(len(whole))}
    assert answers <= {None, str(GUEST)}
    assert system_uuid(table[:20], (2, 7)) is None


def test_the_firmware_table_is_asked_of_the_provider_windows_documents(library):
    raw = windows_table(smbios_table(GUEST.bytes_le))
    library.test_set_firmware(raw, len(raw))
    assert firmware_table(library, int.from_bytes(b"RSMB"), 0) == raw
    assert firmware_table(library, int.from_bytes(b"ACPI"), 0) == b""


def test_identity_of_a_server(tmp_path):
    machine = Registry(
        {
            f"{VERSION}\\ProductName": "Windows Server 2022 Standard",
            f"{VERSION}\\CurrentBuildNumber": "20348",
            f"{VERSION}\\CurrentMajorVersionNumber": 10,
            f"{VERSION}\\CurrentMinorVersionNumber": 0,
            f"{VERSION}\\UBR": 2402,
            "SOFTWARE\\Microsoft\\Cryptography\\MachineGuid": "7A1B39C8-0D9E-4B62-9D0F-5C1E2F3A4B5C",
        },
        smbios=windows_table(smbios_table(GUEST.bytes_le)),
        log=b"log",
    )
    identity = WindowsSources(tmp_path, machine).collect(agent_version="1").identity
    assert identity.os == "Windows Server 2022 Standard"
    assert identity.os_release == "10.0.20348.2402"
    assert identity.smbios_uuid == str(GUEST)
    assert identity.machine_id == "7a1b39c8-0d9e-4b62-9d0f-5c1e2f3a4b5c"
    assert identity.hostname == "WIN-GUEST"


def test_windows_11_which_calls_itself_10_is_called_11(tmp_path):
    machine = Registry(
        {f"{VERSION}\\ProductName": "Windows 10 Pro", f"{VERSION}\\CurrentBuildNumber": "22631"}
    )
    found = WindowsSources(tmp_path, machine).collect(agent_version="1")
    assert found.identity.os == "Windows 11 Pro"
    assert found.identity.smbios_uuid is None
    assert "firmware tells no SMBIOS UUID" in found.notes


def test_the_log_of_tbs_goes_before_the_file(tmp_path):
    folder = tmp_path / "Windows/Logs/MeasuredBoot"
    folder.mkdir(parents=True)
    (folder / "0000000001-0000000000.log").write_bytes(b"file")
    assert WindowsSources(tmp_path, Registry({}, log=b"tbs")).collect(agent_version="1").boot_log == b"tbs"
    without = WindowsSources(tmp_path, Registry({})).collect(agent_version="1")
    assert without.boot_log == b"file"
    assert any("have no log" in note for note in without.notes)


def test_a_tbs_that_fails_is_a_note_and_the_file_is_sent(tmp_path):
    class Broken(Registry):
        def boot_log(self):
            raise TpmBusyError("TPM Base Services are not ready", "try again")

    folder = tmp_path / "Windows/Logs/MeasuredBoot"
    folder.mkdir(parents=True)
    (folder / "0000000001-0000000000.log").write_bytes(b"file")
    found = WindowsSources(tmp_path, Broken({})).collect(agent_version="1")
    assert found.boot_log == b"file"
    assert any("not ready" in note for note in found.notes)


def test_a_log_beyond_the_wire_is_refused_by_name(tmp_path):
    with pytest.raises(SourceError, match="TBS"):
        WindowsSources(tmp_path, Registry({}, log=bytes(MAX_BOOT_LOG + 1))).collect(agent_version="1")


def test_a_real_log_passes_through_tbs_unchanged(library):
    logs = sorted(
        path for path in shared_path("corpus").rglob("*") if path.is_file() and "windows" in path.name.lower()
    )
    if not logs:
        pytest.skip("SKIPPED FOR WANT OF DATA: no Windows log in ../shared/corpus, so this check did not run")
    for path in logs:
        content = path.read_bytes()
        library.test_set_log(content, len(content))
        assert Tbs(library).log(Log.SRTM_CURRENT) == content


def test_a_log_that_grows_between_size_and_content_is_asked_for_again(library):
    content = bytes(range(256)) * 40
    library.test_set_log(content, len(content))
    library.test_grow_log(100)
    assert Tbs(library).log(Log.SRTM_CURRENT) == content


@pytest.mark.parametrize("code", [Code.NO_EVENT_LOG, Code.INTERNAL_ERROR])
def test_firmware_without_a_log_is_none(library, code):
    library.test_fail_next(ctypes.c_uint32(code))
    assert Tbs(library).log(Log.SRTM_CURRENT) is None


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.TPM_NOT_FOUND, NoTpmError),
        (Code.ACCESS_DENIED, TpmPermissionError),
        (Code.SERVICE_NOT_RUNNING, TpmBusyError),
        (Code.TOO_MANY_CONTEXTS, TpmBusyError),
        (Code.SERVICE_DISABLED, TpmError),
        (0x80284002, TpmError),
    ],
    ids=["no TPM", "denied", "not running", "contexts", "disabled", "unknown"],
)
def test_failures_of_tbs_are_typed_and_say_what_to_do(library, code, error):
    library.test_fail_next(ctypes.c_uint32(code))
    with pytest.raises(AgentError) as caught:
        Tbs(library).open()
    assert type(caught.value) is error
    assert caught.value.remedy
    assert caught.value.rc == code


def test_on_windows_tbs_is_the_tpm_unless_another_is_named():
    assert find_tcti(None, {}, platform="win32") == "tbs"
    assert find_tcti("swtpm:port=2321", {}, platform="win32") == "swtpm:port=2321"


def test_elsewhere_tbs_is_refused_with_what_to_name_instead():
    with pytest.raises(NoTpmError, match="part of Windows"):
        load_library()
    with pytest.raises(SourceError):
        Windows().smbios()
