"""Whoever starts a program without stdin, stdout or stderr, as some service managers do, gets the program all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
_OPEN = "import os; from verifier.cli import output; print(*sorted(map(int, os.listdir('/proc/self/fd')))[:3], file=open({!r}, 'w'))"


@pytest.mark.parametrize("program", ["attestctl", "attest-verifier"])
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_program_without_standard_streams_does_what_it_is_asked(program, closed):
    done = subprocess.run(["sh", "-c", f'"$0" --version {closed}', BIN / program], check=False)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="SKIPPED: no /proc to see open files in")
def test_no_file_gets_the_number_of_a_stream_that_was_closed(tmp_path):
    found = tmp_path / "found"
    program = _OPEN.format(os.fspath(found))
    subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], check=True)
    assert found.read_text().split() == ["0", "1", "2"]


def test_the_programs_it_starts_have_all_three(tmp_path):
    found = tmp_path / "found"
    listing = f"import os; open({os.fspath(found)!r}, 'w').write(' '.join(sorted(os.listdir('/dev/fd'))))"
    program = f"import subprocess, sys; from verifier.cli import output; subprocess.run([sys.executable, '-c', {listing!r}], check=True)"
    subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], check=True)
    assert found.read_text().split()[:3] == ["0", "1", "2"]
