"""`attestctl audit verify`: a database or a proof, checked without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from verifier.auditing.findings import Report, Tampering, Trust, moment
from verifier.cli import log_keys, output
from verifier.cli.log_keys import Keys
from verifier.cli.output import InputError
from verifier.errors import VtpmAttestError
from verifier.transparency import cosignature
from verifier.transparency.bundle import MAX_BUNDLE, Bundle, Proven
from verifier.transparency.checkpoint import Checkpoint
from verifier.transparency.errors import BundleError, LogError
from verifier.transparency.notes import VerifierKey

EXIT_TAMPERED: Final = 2
_SHOWN: Final = 20

Witnesses = Annotated[
    tuple[str, ...],
    Parameter(name="--witness", negative="", help="Verifier key of a witness, or a file with some."),
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]


def verify(
    *proofs: Path,
    database: str | None = None,
    key: Keys = (),
    checkpoint: Path | None = None,
    witness: Witnesses = (),
    quorum: int | None = None,
    kept_since: datetime | None = None,
    as_json: Json = False,
) -> int:
    """Prove that nothing was changed: of a whole database, or of what single proofs show. Asks nobody.

    Exit code: 0 all is as it was logged, 2 something is not; the first tampered row is named first.

    Examples:
        attestctl audit verify proof.json --key log.vkey
        attestctl audit verify --database sqlite:////var/lib/vtpm-attest/verifier.db --key log.vkey --checkpoint kept.txt --json

    Args:
        proofs: files of `attestctl audit proof`.
        database: URL of a database, as in the setting database.url; a copy will do, and its service may be running.
        checkpoint: one kept from before (`attestctl audit checkpoint`): what was in the log then must be in it now. A
            single proof can only be held against one of its very size.
        quorum: how many of the witnesses must have cosigned; all of them by default.
        kept_since: from when on no verdict may be missing (the setting history.keep says how long they are kept);
            by default the time of the oldest one that is there.
    """
    try:
        if (database is None) == (not proofs):
            raise InputError("name either proofs or, with --database, a database")
        keys, witnesses = log_keys.log_keys(key), log_keys.witness_keys(witness)
        kept = log_keys.kept_checkpoint(checkpoint, keys)
        wanted = len(witnesses) if quorum is None else quorum
        if wanted > len(witnesses):
            raise InputError(f"--quorum {wanted}: only {len(witnesses)} witnesses were named")
        if database is None:
            return _verify_proofs(proofs, keys, witnesses, wanted, kept, as_json=as_json)
        return _verify_database(database, Trust(keys, witnesses, kept), wanted, kept_since, as_json=as_json)
    except VtpmAttestError as error:
        output.fail(error)


def _verify_database(
    database: str, trust: Trust, quorum: int, kept_since: datetime | None, *, as_json: bool
) -> int:
    from verifier.auditing.audit import audit_database  # noqa: PLC0415 - nothing else here needs a database

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    since = None if kept_since is None else kept_since.astimezone(UTC)
    with Progress(*columns, console=output.err, transient=True, disable=not output.err.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        report = audit_database(database, trust, kept_since=since, progress=show)
    lacking = _lacking(quorum, () if report.state is None else report.state.witnesses)
    if as_json:
        output.print_json(_document(report, lacking))
    else:
        _print(report, lacking)
    return EXIT_TAMPERED if report.findings.count or lacking else 0


def _lacking(quorum: int, cosigned: Sequence[object]) -> str | None:
    if len(cosigned) >= quorum:
        return None
    return f"{len(cosigned)} of the witnesses have cosigned this state, {quorum} must have"


def _document(report: Report, lacking: str | None) -> Mapping[str, object]:
    state = report.state
    return {
        "ok": not report.findings.count and lacking is None,
        "log": None
        if state is None
        else {
            "origin": state.origin,
            "size": state.size,
            "root": state.root.hex(),
            "signed_by": list(state.keys),
            "cosigned_by": [{"witness": name, "at": _time(at * 1_000_000)} for name, at in state.witnesses],
        },
        "checked": {"verdicts": report.verdicts, "decisions": report.decisions},
        "waiting": report.waiting,
        "from_before_the_log": report.unlogged,
        "not_kept": report.not_kept,
        "kept_since": _time(report.kept_since),
        "kept_checkpoint": report.kept_checkpoint,
        "lacking_witnesses": lacking,
        "tampered": report.findings.count,
        "findings": [_finding(one) for one in report.findings],
    }


def _finding(one: Tampering) -> Mapping[str, object]:
    return {
        "table": str(one.table),  # SQLAlchemy has a kind of its own, which the encoder refuses
        "row": one.key,
        "problem": one.problem,
        "index": one.index,
        "at": _time(one.at),
    }


def _time(at: int | None) -> str | None:
    found = moment(at)
    return None if found is None else found.isoformat().replace("+00:00", "Z")


def _print(report: Report, lacking: str | None) -> None:
    show = output.out.print
    state = report.state
    if state is not None:
        show(f"log {escape(state.origin)}, {state.size:,} leaves, signed by {', '.join(state.keys)}")
        for name, at in state.witnesses:
            show(f"cosigned by {escape(name)} at {_time(at * 1_000_000)}")
    show(f"checked {report.verdicts:,} verdicts and {report.decisions:,} decisions")
    if report.kept_checkpoint is not None:
        show(f"held against the kept checkpoint of {report.kept_checkpoint:,} leaves")
    _print_unproven(report)
    first = report.findings.first(_SHOWN)
    if not first and lacking is None:
        show("[bold green]nothing was changed or dropped[/]")
        return
    if first:
        show(f"[bold red]{report.findings.count:,} rows are not what was logged; the first:[/]")
    for one in first:
        where = [] if one.index is None else [f"leaf {one.index}"]
        where += [] if one.at is None else [str(_time(one.at))]
        note = f" [dim]({', '.join(where)})[/]" if where else ""
        show(f"  [bold]{one.table}[/] {escape(one.key)}: {escape(one.problem)}{note}", soft_wrap=True)
    if report.findings.count > len(first):
        show(f"  [dim]and {report.findings.count - len(first):,} more; --json lists up to 1,000[/]")
    if lacking is not None:
        show(f"[bold red]{escape(lacking)}[/]")


def _print_unproven(report: Report) -> None:
    show = output.out.print
    if report.waiting:
        show(
            f"[yellow]{report.waiting:,} rows wait for their place in the log: nobody has signed them yet[/]"
        )
    if report.unlogged:
        show(
            f"[yellow]{report.unlogged:,} rows are from before there was a log: nothing is proven of them[/]"
        )
    if report.not_kept:
        show(
            f"[yellow]{report.not_kept:,} leaves have no row and are older than {_time(report.kept_since)}, from when"
            " on history is kept here; --kept-since says what it should be[/]"
        )


def _verify_proofs(
    paths: Sequence[Path],
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    quorum: int,
    kept: Checkpoint | None,
    *,
    as_json: bool,
) -> int:
    documents = [_prove(path, keys, witnesses, quorum, kept) for path in paths]
    if as_json:
        output.print_json({"ok": all(each["ok"] for each in documents), "proofs": documents})
    else:
        for each in documents:
            _print_proof(each)
    return 0 if all(each["ok"] for each in documents) else EXIT_TAMPERED


def _prove(
    path: Path,
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    quorum: int,
    kept: Checkpoint | None,
) -> Mapping[str, Any]:
    bundle = _read(path)
    try:
        proven = bundle.proven(keys)
        cosigned = cosignature.cosigned(proven.state.note, witnesses)
        problem = _lacking(quorum, cosigned) or _against(kept, proven)
    except LogError as error:
        return {"file": str(path), "ok": False, "problem": str(error)}
    state = proven.state.checkpoint
    entry = msgspec.json.decode(bundle.entry)
    return {
        "file": str(path),
        "ok": problem is None,
        **({} if problem is None else {"problem": problem}),
        "log": {"origin": state.origin, "size": state.size, "root": state.root.hex()},
        "index": bundle.index,
        "entry": entry,
    }


def _read(path: Path) -> Bundle:
    try:
        with path.open("rb") as file:
            return Bundle.parse(file.read(MAX_BUNDLE + 1))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except BundleError as error:
        raise InputError(f"{path}: {error}; `attestctl audit proof --out FILE` fetches one") from error


def _against(kept: Checkpoint | None, proven: Proven) -> str | None:
    """What a kept checkpoint says of the state that a proof leads to: nothing, by itself, unless it is of that size."""
    state = proven.state.checkpoint
    if kept is None or kept == state:
        return None
    if kept.size == state.size:
        return f"shows another log of {state.size} leaves than the one kept"
    return (
        f"is of {state.size} leaves, the kept checkpoint of {kept.size}: that the one grew out of the other only the"
        " verifier can prove, and `attestctl audit proof --checkpoint FILE` asks it to"
    )


def _print_proof(document: Mapping[str, Any]) -> None:
    show = output.out.print
    if not document["ok"]:
        show(f"[bold red]{escape(document['file'])}: {escape(document['problem'])}[/]", soft_wrap=True)
        return
    log, entry = document["log"], document["entry"]
    show(
        f"[bold green]{escape(document['file'])}: leaf {document['index']} of {log['size']:,} of {escape(log['origin'])}[/]"
    )
    for name, value in entry.items():
        text = _time(value) if name in {"at", "judged_at", "valid_until", "rejudged_at"} else value
        show(f"  {name}: {escape(str(text))}", soft_wrap=True)
