"""Size limits of the wire, in bytes unless named otherwise. The verifier enforces them before parsing."""

from __future__ import annotations

from typing import Final

NONCE_SIZE: Final = 32
MAX_BODY: Final = 64 * 1024 * 1024
"""An expanded request body; a first IMA list of a long-lived guest is the largest honest one."""
MAX_JSON_BODY: Final = 8 * 1024 * 1024
"""Of an agent: base64 takes ten times as long to decode as MessagePack, and holds up others meanwhile."""
MAX_COMPRESSED_BODY: Final = 16 * 1024 * 1024
MAX_SMALL_BODY: Final = 256 * 1024
"""Every request but an attestation."""
MAX_BOOT_LOG: Final = 4 * 1024 * 1024
MAX_USERSPACE_LOG: Final = 1024 * 1024
"""What systemd logs of its own measurements; a boot writes about 5 KB."""
MAX_NV_PUBLIC: Final = 256
MAX_NVPCRS: Final = 8
"""NV indices certified beside a quote; systemd has five, and each costs a signature."""
MAX_IMA_LOG: Final = 48 * 1024 * 1024
MAX_ATTEST: Final = 4096
MAX_SIGNATURE: Final = 2048
MAX_PUBLIC: Final = 4096
MAX_CERTIFICATE: Final = 16 * 1024
MAX_CERTIFICATES: Final = 16
MAX_TEXT: Final = 1024
MAX_COMMAND_LINE: Final = 16 * 1024
MAX_SECRET: Final = 64 * 1024
"""What is released at once: keys and passwords, not files."""
