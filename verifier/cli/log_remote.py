"""A verifier's log, asked over the network; nothing of the answers is believed without its proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from verifier.cli import log_keys
from verifier.cli.remote import Remote
from verifier.transparency.bundle import Bundle, Consistency
from verifier.transparency.checkpoint import Checkpoint, Opened
from verifier.transparency.errors import ProofError
from verifier.transparency.merkle import verify_consistency
from verifier.transparency.notes import VerifierKey


def fetch_checkpoint(remote: Remote, keys: Sequence[VerifierKey]) -> Opened:
    """The newest checkpoint.

    Raises:
        RemoteError: the verifier cannot be asked.
        InputError: what it answers is not signed by the log.
    """
    note = remote.get("/v1/log/checkpoint", accept="text/plain")
    return log_keys.opened(str(note), keys, f"{remote.server} answered")


def prove_growth(remote: Remote, old: Checkpoint, new: Checkpoint) -> None:
    """Believe that a state of the log grew out of an older one.

    Raises:
        RemoteError: the verifier cannot be asked.
        ProofError: it did not: leaves were changed or dropped.
        BundleError: the answer is no proof.
    """
    if old.origin != new.origin:
        raise ProofError(f"the log is {new.origin!r} now; the one kept is {old.origin!r}")
    if old.size > new.size:
        raise ProofError(
            f"the log has shrunk, from {old.size} leaves to {new.size}: its database was rolled back, or another log is"
            " shown"
        )
    if old.size in {0, new.size}:
        verify_consistency(old.size, old.root, new.size, new.root, ())
        return
    reply = remote.get("/v1/log/proof/consistency", {"from": old.size, "to": new.size})
    Consistency.parse(msgspec.json.encode(reply)).prove(old, new)


def fetch_bundle(remote: Remote, query: Mapping[str, object | None]) -> Bundle:
    """The proof of an entry.

    Raises:
        RemoteError: the verifier cannot be asked.
        BundleError: the answer is no proof.
    """
    return Bundle.parse(msgspec.json.encode(remote.get("/v1/log/proof/inclusion", query)))
