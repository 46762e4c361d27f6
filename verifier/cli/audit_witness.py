"""`attestctl audit witness`: somebody else who remembers what the log was, and signs that it only grows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclopts import Parameter
from rich.markup import escape

from verifier.cli import log_keys, log_remote, output
from verifier.cli.audit_verify import EXIT_TAMPERED
from verifier.cli.fleet import Where
from verifier.cli.log_keys import Keys
from verifier.cli.output import InputError
from verifier.cli.remote import Remote, UnreachableError
from verifier.durations import Duration
from verifier.errors import VtpmAttestError
from verifier.keys.files import PUBLIC, locked, write_file
from verifier.transparency import cosignature
from verifier.transparency.errors import LogError
from verifier.transparency.notes import Algorithm, KeySigner, Note, VerifierKey


@dataclass(frozen=True, slots=True)
class _Witness:
    keys: tuple[VerifierKey, ...]
    signer: KeySigner
    state: Path

    def look(self, remote: Remote) -> Mapping[str, Any]:
        """Fetch, check against what was seen before, remember, sign, send: in this order.

        Raises:
            LogError: the log did not grow out of what was seen; nothing is remembered or signed.
        """
        found = log_remote.fetch_checkpoint(remote, self.keys)
        with locked(self.state.parent):
            seen = self.state if self.state.exists() else None
            before = log_keys.kept_checkpoint(seen, self.keys)
            if before is not None:
                log_remote.prove_growth(remote, before, found.checkpoint)
            signature = cosignature.cosign(found.note.text, self.signer, int(time.time()))
            own = [each for key in found.signed_by for each in found.note.of(key)]
            note = Note(found.note.text, (*own, signature)).encode()
            # Before anybody has the signature: whoever forgets could be made to sign another past.
            write_file(self.state, note.encode(), PUBLIC)
        remote.upload("/v1/log/cosignatures", note.encode(), "text/plain")
        return {
            "origin": found.checkpoint.origin,
            "size": found.checkpoint.size,
            "before": None if before is None else before.size,
            "cosigned_by": f"{signature.name}+{signature.key_id.hex()}",
        }


def witness(
    *,
    witness_key: Path,
    state: Path,
    key: Keys = (),
    every: str | None = None,
    where: Where | None = None,
) -> int:
    """Sign that the log grew out of all that was seen of it before, and send that to the verifier.

    Run it on a machine of somebody else than who runs the verifier. A log that was rewritten, or has shrunk, is never
    signed: exit code 2, and the state stays as it was, so that it is never signed later either.

    Example:
        attestctl audit witness --key log.vkey --witness-key witness.key --state seen.txt --every 1m

    Args:
        witness_key: file of `attestctl audit witness-key`.
        state: file with the last checkpoint that was signed; made at first, when whatever the log is then is believed.
        every: go on, with this (30s, 5m, 1h) between two looks; otherwise look once.
    """
    at = where or Where()
    try:
        signer = KeySigner.parse(log_keys.read_text(witness_key), Algorithm.COSIGNATURE_V1)
        one = _Witness(log_keys.log_keys(key), signer, state)
        pause = None if every is None else _pause(every)
        while True:
            _look(at, one, goes_on=pause is not None)
            if pause is None:
                return 0
            time.sleep(pause)
    except LogError as error:
        output.err.print(f"[bold red]not signed: {escape(str(error))}[/]", soft_wrap=True)
        output.remark(f"next: keep {state}, which proves what the log was, and ask whoever runs the verifier")
        return EXIT_TAMPERED
    except VtpmAttestError as error:
        output.fail(error)


def _pause(text: str) -> float:
    try:
        return Duration.parse(text).total_seconds()
    except ValueError as error:
        raise InputError(f"--every: {error}") from error


def _look(at: Where, one: _Witness, *, goes_on: bool) -> None:
    try:
        done = one.look(Remote.from_options(at.server, at.token, at.ca))
    except UnreachableError as error:
        if not goes_on:
            raise
        output.remark(str(error))
        return
    if at.json:
        (output.print_line if goes_on else output.print_json)(done)
        return
    before = "the first one seen" if done["before"] is None else f"before: {done['before']:,}"
    output.out.print(f"cosigned {escape(done['origin'])}: {done['size']:,} leaves ({before})")


def witness_key(
    name: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Make the key of a witness. Prints its public part, for the verifier's setting and for auditors.

    Example:
        attestctl audit witness-key witness.example/vtpm --out witness.key

    Args:
        name: of the witness, as it stands in its signatures: best a name of yours in the DNS, and a path.
        out: file of the private key, which must not exist yet.
        as_json: print one JSON document.
    """
    try:
        if out.exists():
            raise InputError(f"{out} exists; a key is never written over: name another file")
        signer = KeySigner(name, Ed25519PrivateKey.generate(), Algorithm.COSIGNATURE_V1)
        write_file(out, f"{signer.encode()}\n".encode())
    except VtpmAttestError as error:
        output.fail(error)
    if as_json:
        output.print_json({"out": str(out), "key": signer.key.encode()})
    else:
        output.out.print(signer.key.encode(), markup=False, soft_wrap=True)
    return 0
