"""`attestctl audit proof | checkpoint`: what an auditor takes along from a verifier's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.markup import escape

from verifier.cli import log_keys, log_remote, output
from verifier.cli.audit_verify import EXIT_TAMPERED
from verifier.cli.fleet import Where
from verifier.cli.log_keys import Keys
from verifier.cli.output import InputError
from verifier.cli.remote import Remote
from verifier.errors import VtpmAttestError
from verifier.keys.files import PUBLIC, write_file
from verifier.transparency.bundle import Bundle
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.errors import LogError
from verifier.transparency.notes import VerifierKey


def proof(
    attester_id: str | None = None,
    *,
    sequence: int | None = None,
    decision: int | None = None,
    checkpoint: Path | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    key: Keys = (),
    where: Where | None = None,
) -> int:
    """Fetch the proof that a verdict or a decision is in the log, checked before it is written.

    Examples:
        attestctl audit proof att-k4zdsmjqgizdgmbrgaytembr --key log.vkey --out proof.json
        attestctl audit proof --decision 17 --key log.vkey --out proof.json

    Args:
        attester_id: whose verdict.
        sequence: number of the verdict, as `attestctl history` lists them; the newest one that is in the log by default.
        decision: number of a decision, as `attestctl audit` lists them, instead of a verdict.
        checkpoint: one kept from before (`attestctl audit checkpoint`): the log must have grown out of it, or it of that.
        out: file for the proof; stdout by default.
    """
    at = where or Where()
    try:
        if (attester_id is None) == (decision is None):
            raise InputError("name either an attester or, with --decision, a decision")
        keys = log_keys.log_keys(key)
        kept = log_keys.kept_checkpoint(checkpoint, keys)
        query = {"attester": attester_id, "sequence": sequence, "audit": decision}
        bundle, state = at.ask(lambda remote: _proven(remote, query, keys, kept))
    except LogError as error:
        _say_tampered(f"the verifier's proof does not hold: {error}")
        return EXIT_TAMPERED
    except VtpmAttestError as error:
        output.fail(error)
    content = _pretty(bundle)
    if out is None:
        output.print_text(content)
        return 0
    output.write(out, content.encode())
    if at.json:
        output.print_json({"out": str(out), "index": bundle.index, "size": state.size})
    else:
        output.out.print(
            f"{escape(str(out))}: leaf {bundle.index} of {state.size:,}; attestctl audit verify {escape(str(out))}"
        )
    return 0


def _proven(
    remote: Remote,
    query: Mapping[str, object | None],
    keys: Sequence[VerifierKey],
    kept: Checkpoint | None,
) -> tuple[Bundle, Checkpoint]:
    """A proof, and the state of the log that it is for; believed, and held against the kept one."""
    bundle = log_remote.fetch_bundle(remote, query)
    state = bundle.proven(keys).state.checkpoint
    if kept is not None:
        older, newer = sorted((kept, state), key=lambda each: each.size)
        log_remote.prove_growth(remote, older, newer)
    return bundle, state


def checkpoint(
    *,
    keep: Path | None = None,
    key: Keys = (),
    where: Where | None = None,
) -> int:
    """Fetch the newest checkpoint, prove that it grew out of the one kept, and keep it instead.

    Keep the file where whoever runs the verifier cannot write: it is what later shows that the log was rewritten.
    Exit code: 0 it grew, 2 it did not (the file is left as it is).

    Example:
        attestctl audit checkpoint --key log.vkey --keep checkpoint.txt

    Args:
        keep: file of the checkpoint; made at first.
    """
    at = where or Where()
    try:
        keys = log_keys.log_keys(key)
        kept = log_keys.kept_checkpoint(keep if keep is not None and keep.exists() else None, keys)

        def ask(remote: Remote) -> Any:  # noqa: ANN401 - the checkpoint, believed
            found = log_remote.fetch_checkpoint(remote, keys)
            if kept is not None:
                log_remote.prove_growth(remote, kept, found.checkpoint)
            return found

        found = at.ask(ask)
        if keep is not None:
            write_file(keep, found.note.encode().encode(), PUBLIC)
    except LogError as error:
        _say_tampered(str(error))
        return EXIT_TAMPERED
    except VtpmAttestError as error:
        output.fail(error)
    state = found.checkpoint
    before = None if kept is None else kept.size
    if at.json:
        document = {"origin": state.origin, "size": state.size, "root": state.root.hex(), "kept": before}
        output.print_json(document)
    elif keep is None:
        output.print_text(found.note.encode())
    else:
        grown = "the first one kept" if before is None else f"grown out of the {before:,} leaves kept before"
        output.out.print(f"{escape(state.origin)}: {state.size:,} leaves, {grown}")
    return 0


def _pretty(bundle: Bundle) -> str:
    return msgspec.json.format(bundle.encode(), indent=2).decode() + "\n"


def _say_tampered(text: str) -> None:
    output.err.print(f"[bold red]{escape(text)}[/]", soft_wrap=True)
    output.remark(
        "next: keep the checkpoint you have, and ask whoever runs the verifier; docs/transparency.md says what this proves"
    )
