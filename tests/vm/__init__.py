"""Guests that really boot: Debian under QEMU, OVMF and swtpm, judged by a real verifier. See docs/vm-tests.md."""
