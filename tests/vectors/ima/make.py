"""Make the vectors of IMA lists: `python -m tests.vectors.ima.make [--check]`.

Lists and PCRs come from `tests.ima_kernel`, which packs and hashes by hand as the kernel's sources do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ima_kernel import TEMPLATES, ImaKernel

FILE = Path(__file__).with_name("lists.json")
BANKS = ("sha1", "sha256", "sha384")


def filled(**options: Any) -> ImaKernel:
    kernel = ImaKernel(banks=BANKS, **options)
    kernel.measure("/usr/bin/bash", "bash", sig=b"\x03\x02\x04\x00\x01\x02\x03\x00\x02ab", modsig=b"\x30\x00")
    kernel.measure("/tmp/näme \udcff", "odd")
    kernel.violation("/var/log/journal")
    kernel.buffer("kexec-cmdline", b"quiet ro")
    return kernel


def kernels() -> Iterator[tuple[str, ImaKernel]]:
    """Name and machine of every vector."""
    for template in (*(name for name in TEMPLATES if name != "ima-buf"), "d-ng|n-ng|imode"):
        for order, word in (("<", "little"), (">", "big")):
            yield f"{template} {word}-endian", filled(template=template, order=order)
    yield "before Linux 5.8: padded SHA-1", filled(padded=True)
    yield "per-algorithm list", filled(digest="sha256", template="ima-sig")
    yield "SHA-512 file digests", filled(algorithm="sha512")
    yield "PCR 11", filled(pcr=11)
    two = filled()
    two.measure("/usr/bin/second", "second", pcr=12)
    yield "two PCRs", two
    kexec = filled()
    kexec.aggregate()
    yield "kexec", kexec


def document() -> str:
    """The file's text."""
    vectors = [
        {
            "name": name,
            "padded": kernel.padded,
            "byte_order": "little" if kernel.order == "<" else "big",
            "list": kernel.list.hex(),
            "ascii": kernel.ascii.hex(),
            "offsets": kernel.offsets,
            "pcrs": {
                bank: {str(pcr): value.hex() for pcr, value in pcrs.items() if pcr > 9}
                for bank, pcrs in kernel.pcrs.items()
            },
        }
        for name, kernel in kernels()
    ]
    return json.dumps(vectors, indent=1) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        return int(FILE.read_text() != document())
    FILE.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main())
