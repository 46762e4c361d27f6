"""IMA measurement lists of the Linux kernel: bytes to entries, and the rules by which entries become PCR values."""
