"""Secrets of the service, as files in the state directory: EAR signing keys, the nonce key, the TLS CA.

Only the composition root imports this package. Every file is written whole (temporary file, then rename) with
mode 0600, and creation is serialised by a lock, so that two processes that start together agree.
"""
