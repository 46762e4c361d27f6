"""What the collectors read, what they leave out, and what they say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.collect import sources_for
from agent.collect.ima import read_ima_list
from agent.collect.linux import IMA_LOG, LinuxSources
from agent.collect.windows import WindowsSources
from agent.errors import SourceError
from agent.wire.limits import MAX_BOOT_LOG
from tests.conftest import shared_path

LOG = "sys/kernel/security/tpm0/binary_bios_measurements"


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def collect(root: Path, **options):
    return LinuxSources(root).collect(agent_version="1", **options)


def test_a_whole_guest(tmp_path):
    root = write(
        tmp_path,
        {
            LOG: b"log",
            "sys/kernel/security/ima/binary_runtime_measurements": b"ima",
            "sys/class/dmi/id/product_uuid": "4C4C4544-ABCD\n",
            "proc/cmdline": "root=/dev/vda  ro quiet \n",
            "proc/sys/kernel/random/boot_id": "b-1\n",
            "proc/sys/kernel/hostname": "live\n",
            "proc/sys/kernel/osrelease": "6.1.0-21-amd64\n",
            "etc/hostname": "configured\n",
            "etc/machine-id": "m-1\n",
            "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        },
    )
    found = collect(root)
    assert (found.boot_log, found.boot_id) == (b"log", "b-1")
    assert LinuxSources(root).ima_list().content == b"ima"
    assert found.kernel_command_line == "root=/dev/vda  ro quiet ", (
        "exactly what was measured, but for the newline"
    )
    identity = found.identity
    assert (identity.smbios_uuid, identity.hostname, identity.machine_id) == ("4c4c4544-abcd", "live", "m-1")
    assert (identity.os, identity.os_release) == ("Debian GNU/Linux 12 (bookworm)", "6.1.0-21-amd64")
    assert found.notes == ()


def ima(root: Path, content: bytes) -> LinuxSources:
    return LinuxSources(write(root, {IMA_LOG: content}))


@pytest.mark.parametrize(
    ("offset", "tail"), [(0, b"first second"), (6, b"second"), (1, b"irst second"), (12, b"")]
)
def test_the_ima_list_is_read_from_where_the_verifier_knows_it(tmp_path, offset, tail):
    found = ima(tmp_path, b"first second").ima_list(offset)
    assert (found.content, found.offset, found.note) == (tail, offset, None)


def test_an_ima_list_shorter_than_the_verifier_knows_is_sent_whole(tmp_path):
    """A byte past its end is no empty tail: that would say that nothing happened."""
    found = ima(tmp_path, b"first").ima_list(6)
    assert (found.content, found.offset) == (b"first", 0)
    assert "shorter than the 6 bytes" in (found.note or "")


def test_an_ima_list_too_long_for_the_wire_is_not_sent_but_a_short_tail_of_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.collect.linux.MAX_IMA_LOG", 8)
    sources = ima(tmp_path, b"123456789")
    whole = sources.ima_list()
    assert whole.content is None
    assert "more than 8 bytes" in (whole.note or "")
    assert sources.ima_list(1).content == b"23456789"


def test_without_an_ima_list_that_is_said(tmp_path):
    found = LinuxSources(tmp_path).ima_list(7)
    assert (found.content, found.offset) == (None, 0)
    assert "ima_policy=tcb" in (found.note or "")


def test_a_kernel_file_is_read_from_an_offset_as_a_plain_one_is():
    """Files the kernel makes up as they are read have no size, and give a page at a time."""
    where = Path("/proc/self/maps")
    if not where.exists():
        pytest.skip("no /proc on this machine: the IMA list's kind of file cannot be tried")
    whole = read_ima_list(where, 0, 1 << 20).content or b""
    assert len(whole) > 4096
    tail = read_ima_list(where, 4000, 1 << 20)
    assert (tail.offset, (tail.content or b"")[:200]) == (4000, whole[4000:4200])
    beyond = read_ima_list(where, len(whole) + 100_000, 1 << 20)
    assert (beyond.offset, (beyond.content or b"")[:200]) == (0, whole[:200])


def test_an_empty_root_gives_nothing_and_explains_the_boot_log(tmp_path):
    found = collect(tmp_path)
    assert (found.boot_log, found.kernel_command_line, found.boot_id, found.identity.hostname) == (None,) * 4
    assert "linuxefi" in found.notes[0]


def test_a_second_tpm_s_log_and_an_image_s_hostname_are_found(tmp_path):
    root = write(tmp_path, {LOG.replace("tpm0", "tpm1"): b"log", "etc/hostname": "image\n"})
    found = collect(root)
    assert (found.boot_log, found.identity.hostname) == (b"log", "image")


def test_a_file_that_cannot_be_read_is_a_note(tmp_path):
    (tmp_path / LOG).mkdir(parents=True)
    assert any("cannot be read" in note for note in collect(tmp_path).notes)


def test_a_log_too_long_for_the_wire_is_refused_here(tmp_path):
    root = write(tmp_path, {LOG: bytes(MAX_BOOT_LOG + 1)})
    with pytest.raises(SourceError, match="longer than"):
        collect(root)
    write(tmp_path, {LOG: bytes(MAX_BOOT_LOG)})
    assert len(collect(root).boot_log) == MAX_BOOT_LOG


def test_a_command_line_that_is_no_text_is_not_guessed(tmp_path):
    found = collect(write(tmp_path, {LOG: b"log", "proc/cmdline": b"root=\xff\n"}))
    assert found.kernel_command_line is None
    assert found.notes == ("/proc/cmdline is not UTF-8; not sent",)


def test_this_machine_s_own_files_can_be_read():
    found = sources_for(None).collect(agent_version="1")
    assert found.kernel_command_line
    assert found.identity.os_release
    assert found.boot_id


def test_windows_reads_the_log_that_the_pcrs_came_from_which_is_that_of_the_last_resume(tmp_path):
    """A resume from hibernation starts the TPM anew and measures into it what it does."""
    folder = "Windows/Logs/MeasuredBoot/"
    root = write(
        tmp_path,
        {
            folder + "0000000009-0000000000.log": b"older boot",
            folder + "0000000010-0000000000.log": b"this boot",
            folder + "0000000010-0000000002.log": b"resumed",
            folder + "0000000010-0000000001.log": b"resumed before",
            folder + "notes.log": b"other",
        },
    )
    sources = sources_for(root, "win32")
    assert isinstance(sources, WindowsSources)
    found = sources.collect(agent_version="1")
    assert (found.boot_log, found.identity.os) == (b"resumed", "Windows")


def test_windows_without_logs_says_so(tmp_path):
    assert "cannot be read" in sources_for(tmp_path, "win32").collect(agent_version="1").notes[0]
    (tmp_path / "Windows/Logs/MeasuredBoot").mkdir(parents=True)
    assert "no boot log" in sources_for(tmp_path, "win32").collect(agent_version="1").notes[0]


def test_windows_on_a_real_log(tmp_path):
    logs = [
        path for path in shared_path("corpus").rglob("*") if path.is_file() and "windows" in path.name.lower()
    ]
    if not logs:
        pytest.skip("SKIPPED FOR WANT OF DATA: no Windows log in ../shared/corpus, so this check did not run")
    content = logs[0].read_bytes()
    root = write(tmp_path, {"Windows/Logs/MeasuredBoot/0000000001-0000000000.log": content})
    assert sources_for(root, "win32").collect(agent_version="1").boot_log == content


def test_a_log_that_is_there_and_empty_is_sent_as_what_it_is(tmp_path):
    """Firmware of some clouds hands none over; that is another finding than a log that was not read."""
    log = tmp_path / "sys/kernel/security/tpm0/binary_bios_measurements"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"")
    found = collect(tmp_path)
    assert found.boot_log == b""
    assert any("is empty" in note for note in found.notes)
    second = tmp_path / "sys/kernel/security/tpm1/binary_bios_measurements"
    second.parent.mkdir(parents=True)
    second.write_bytes(b"log")
    assert collect(tmp_path).boot_log == b"log"
