"""PURE: the append-only log of verdicts and decisions. Merkle trees, tiles, signed checkpoints, entries, proofs.

Bytes in, bytes and typed structures out. Nothing here reads a database, a file or a clock: tiles come through a
reader that is passed in, times are arguments.
"""
