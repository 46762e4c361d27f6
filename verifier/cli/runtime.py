"""`attestctl runtime`: make, merge, compare, prune, show, sign and check runtime sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from verifier.cli import output, runtime_import, runtime_make
from verifier.cli.runtime_options import Many, SetFile, describe, finish, summary, told
from verifier.errors import PolicyError, VtpmAttestError
from verifier.policy.diff import Change
from verifier.policy.dsse import PolicySigners, key_id, load_private_key, load_public_key
from verifier.policy.runtime.combine import PathChange, Pruning, diff, merge, prune
from verifier.policy.runtime.entry import Entry, Source
from verifier.policy.runtime.errors import RuntimeSetError
from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.runtime_set import RuntimeSet
from verifier.policy.runtime.signing import sign_set, verify_set
from verifier.policy.runtime.text import written
from verifier.policy_files import read_file
from verifier.runtime_sets.errors import MakingError
from verifier.runtime_sets.files import load_set
from verifier.tcg.algorithms import HASH_BY_LABEL

app = App(name="runtime", help="Runtime sets: which digests are good under which paths (IMA).")
app.command(runtime_make.app)
app.command(runtime_import.import_keylime)

Target = Annotated[SetFile, Parameter(name="*")]
_SIGNATURE: Final = ".dsse.json"
_STYLE: Final = {Change.ADDED: "green", Change.REMOVED: "red", Change.CHANGED: "yellow"}
_MARK: Final = {Change.ADDED: "+", Change.REMOVED: "-", Change.CHANGED: "~"}
_SHOWN: Final = 200


def _load(path: Path) -> RuntimeSet:
    with told() as progress:
        return load_set(path, progress=progress)


@app.command(name="merge")
def merge_command(sets: list[Path], /, *, target: Target) -> int:
    """Write what any of the sets has; entries keep the sources of all.

    Example:
        attestctl runtime merge bookworm.rtset.zst nginx.rtset --out web.rtset.zst

    Args:
        sets: runtime sets.
        target: the set that is written.
    """
    try:
        result = merge(target.head(), [_load(path) for path in sets])
    except VtpmAttestError as error:
        output.fail(error)
    return finish(target, result)


@app.command(name="diff")
def diff_command(before: Path, after: Path, /, *, json: bool = False, limit: int = _SHOWN) -> int:
    """Compare two sets: paths whose digests differ. Exit code: 0, whether they do or not.

    Examples:
        attestctl runtime diff bookworm-old.rtset.zst bookworm.rtset.zst

        attestctl runtime diff old.rtset new.rtset --json

    Args:
        before: a runtime set.
        after: another.
        json: print one JSON document.
        limit: how many paths to show; JSON has them all.
    """
    try:
        changes = list(diff(_load(before), _load(after)))
    except VtpmAttestError as error:
        output.fail(error)
    if json:
        output.print_json({"changes": [_change(change) for change in changes]})
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for change in changes[:limit]:
        what = "\n".join(f"{sign} {_entry(entry)}" for sign, entry in _sides(change))
        style = _STYLE[change.change]
        table.add_row(f"[{style}]{_MARK[change.change]}[/]", escape(_path(change.path)), escape(what))
    output.out.print(table)
    counts = {kind: sum(each.change is kind for each in changes) for kind in Change}
    output.out.print(", ".join(f"{count} {kind.value}" for kind, count in counts.items()))
    return 0


def _sides(change: PathChange) -> list[tuple[str, Entry]]:
    old, new = {each.key for each in change.before}, {each.key for each in change.after}
    return [("-", each) for each in change.before if each.key not in new] + [
        ("+", each) for each in change.after if each.key not in old
    ]


def _path(path: bytes) -> str:
    return written(path).decode()


def _entry(entry: Entry) -> str:
    sources = ", ".join(source.text for source in entry.sources)
    return f"{entry.kind.text}{entry.digest.hex()[:16]}… {sources}".rstrip()


def _document(entry: Entry) -> dict[str, object]:
    return {
        "digest": f"{entry.kind.text}{entry.digest.hex()}",
        "sources": [source._asdict() for source in entry.sources],
    }


def _change(change: PathChange) -> dict[str, object]:
    return {
        "change": change.change.value,
        "path": _path(change.path),
        "before": [_document(entry) for entry in change.before],
        "after": [_document(entry) for entry in change.after],
    }


@app.command(name="prune")
def prune_command(
    runtime_set: Path,
    /,
    *,
    target: Target,
    path: Many = None,
    source: Many = None,
    hash: Many = None,  # noqa: A002 - the option's name
    seen: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
) -> int:
    """Leave entries out: by path, by source, by hash, or what no machine ever measured.

    Examples:
        attestctl runtime prune web.rtset --path "/usr/share/doc/**" "/usr/share/man/**" --out small.rtset

        attestctl runtime prune web.rtset --source "linux-image-6.1.0-54*" --out current.rtset

        attestctl runtime prune web.rtset --hash sha256 --seen good.rtset --out seen.rtset.zst

    Args:
        runtime_set: the set.
        target: the set that is written.
        path: paths that go: globs, or regex:...
        source: sources that go: "NAME VERSION ARCH" or the beginning of it, with * and ?. An entry goes with its last source.
        hash: the only hashes that stay.
        seen: sets of what was measured; what has a path in none of them goes.
    """
    try:
        unknown = sorted(set(hash or ()) - set(HASH_BY_LABEL))
        if unknown:
            raise MakingError(f"{unknown[0]!r} is none of {', '.join(HASH_BY_LABEL)}", where="--hash")
        pruning = Pruning(
            path=Patterns(path or ()).match,
            source=_sources(source or ()),
            algorithms=[HASH_BY_LABEL[label] for label in hash or ()],
            seen=[_load(each) for each in seen or ()],
        )
        whole = _load(runtime_set)
        result = prune(target.head(), whole, pruning)
    except VtpmAttestError as error:
        output.fail(error)
    return finish(target, result, [f"{len(whole) - len(result)} of {len(whole)} entries left out"])


def _sources(texts: Iterable[str]) -> Callable[[Source], bool]:
    patterns = Patterns(text.replace(" ", "_") for text in texts)

    def goes(source: Source) -> bool:
        words = [word.replace(" ", "_") for word in source[1:]]
        return any(patterns.match("_".join(words[:count]).encode()) for count in (1, 2, 3))

    return goes


@app.command(name="show")
def show_command(
    runtime_set: Path,
    /,
    *,
    path: Many = None,
    digest: str | None = None,
    source: bool = False,
    json: bool = False,
    limit: int = _SHOWN,
) -> int:
    """Say what a set is, and what it has under a path, by a digest, or from which sources.

    Examples:
        attestctl runtime show web.rtset.zst

        attestctl runtime show web.rtset.zst --path "/usr/bin/*" --json

        attestctl runtime show web.rtset.zst --digest e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

        attestctl runtime show web.rtset.zst --source

    Args:
        runtime_set: the set.
        path: paths to look for: globs, or regex:...
        digest: digest to look for, hex.
        source: list the sources.
        json: print one JSON document.
        limit: how many entries or sources to show; JSON has them all.
    """
    try:
        whole = _load(runtime_set)
        found = _found(whole, Patterns(path or ()), digest) if path or digest else []
    except VtpmAttestError as error:
        output.fail(error)
    if json:
        document = summary(whole)
        if path or digest:
            document["found"] = [{"path": _path(each.path)} | _document(each) for each in found]
        if source:
            document["sources"] = [each._asdict() for each in whole.sources]
        output.print_json(document)
        return 0
    output.out.print(f"{escape(describe(whole))}\n{escape(whole.head.description)}".rstrip())
    output.out.print(f"sha256 {summary(whole)['sha256']}")
    lines = [f"{_path(each.path)}  {_entry(each)}" for each in found]
    lines += [each.text for each in whole.sources] if source else []
    for line in lines[:limit]:
        output.out.print(escape(line))
    if path or digest or len(lines) > limit:
        output.out.print(f"[dim]{len(lines)} in all[/]")
    return 0


def _found(whole: RuntimeSet, patterns: Patterns, digest: str | None) -> list[Entry]:
    if digest is None:
        return [each for each in whole if patterns.match(each.path)]
    try:
        wanted = bytes.fromhex(digest.rpartition(":")[2])
    except ValueError:
        raise RuntimeSetError(f"{digest!r} is not hexadecimal", where="--digest") from None
    tables = [table for kind, table in whole.tables.items() if kind.alg.size == len(wanted)]
    rows = [(table, row) for table in tables for row in table.with_digest(wanted)]
    found = [Entry(table.path(row), table.kind, wanted, whole.sources_of(table, row)) for table, row in rows]
    return [each for each in found if not patterns or patterns.match(each.path)]


@app.command(name="sign")
def sign_command(
    runtime_set: Path, /, *, key: list[Path], out: Path | None = None, json: bool = False
) -> int:
    """Sign a set: write an envelope beside it that vouches for its digest.

    Example:
        attestctl runtime sign web.rtset.zst --key signer.pem

    Args:
        runtime_set: the set.
        key: PEM private key, P-256 or Ed25519; may be given more than once.
        out: where to write the envelope; the set's name with .dsse.json after it by default.
        json: print one JSON document.
    """
    target = out or runtime_set.with_name(runtime_set.name + _SIGNATURE)
    try:
        whole = _load(runtime_set)
        keys = [load_private_key(read_file(path), str(path)) for path in key]
        target.write_bytes(sign_set(whole, keys))
    except VtpmAttestError as error:
        output.fail(error)
    except OSError as error:
        output.fail(MakingError(error.strerror or str(error), where=str(target)))
    signers = [key_id(each.public_key()) for each in keys]
    if json:
        output.print_json({**summary(whole), "out": str(target), "signers": signers})
        return 0
    output.out.print(f"wrote {escape(str(target))}: {escape(describe(whole))}")
    for signer in signers:
        output.out.print(f"[dim]signed by {signer}[/]")
    return 0


@app.command(name="verify")
def verify_command(
    runtime_set: Path, /, *, key: list[Path], signature: Path | None = None, json: bool = False
) -> int:
    """Check that one of the keys signed exactly this set. Exit code: 0, or 65 when none did.

    Example:
        attestctl runtime verify web.rtset.zst --key signer.pub.pem

    Args:
        runtime_set: the set.
        key: PEM public key, P-256 or Ed25519; may be given more than once.
        signature: the envelope; the set's name with .dsse.json after it by default.
        json: print one JSON document.
    """
    try:
        whole = _load(runtime_set)
        signers = PolicySigners.of(load_public_key(read_file(path), str(path)) for path in key)
        envelope = read_file(signature or runtime_set.with_name(runtime_set.name + _SIGNATURE))
        valid = verify_set(whole, envelope, signers)
    except VtpmAttestError as error:
        if json and isinstance(error, PolicyError):
            output.print_json({"ok": False, "code": error.reason.value, "error": str(error)})
            return output.exit_code(error)
        output.fail(error)
    if json:
        output.print_json({"ok": True, **summary(whole), "signers": list(valid)})
        return 0
    output.out.print(f"[green]ok[/] {escape(describe(whole))}")
    for signer in valid:
        output.out.print(f"signed by {signer}")
    return 0
