"""As many descriptors as there may be connections."""

from __future__ import annotations

import subprocess
import sys

_TOLD_OF_FEW = """
import resource
from verifier.serving.sockets import take_descriptors
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 5000)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
take_descriptors()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_a_process_that_was_given_few_descriptors_takes_what_it_may_have():
    done = subprocess.run([sys.executable, "-c", _TOLD_OF_FEW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
