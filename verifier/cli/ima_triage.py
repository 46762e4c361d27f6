"""`attestctl ima triage`: what the fleet runs that no runtime set knows, and a set of it to look at and merge."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import Remote
from verifier.errors import VtpmAttestError
from verifier.policy.runtime.entry import KERNEL_HASHES, KIND_OF, Entry, Kind, Source
from verifier.policy.runtime.runtime_set import Head, RuntimeSet, assemble
from verifier.policy.runtime.text import read
from verifier.policy.runtime.writing import digest_of
from verifier.runtime_sets.files import save_set

_PAGE: Final = 100
_NO_PACKAGE: Final = "(no package knows the path)"
_NAME: Final = "triage"
_SOURCE: Final = Source("ima", "triage")


class Found(TypedDict):
    """An unknown file and where it was seen."""

    path: str
    digest: str
    change: str
    package: str | None
    known_as: str | None
    attesters: int
    examples: list[str]


def triage(
    *,
    label: str | None = None,
    path: Sequence[str] = (),
    at_least: int = 1,
    out: Path | None = None,
    changed: bool = False,
    where: Where | None = None,
) -> int:
    """Group what the fleet runs and no runtime set knows, by package and path. Exit code: 0 nothing, 1 something.

    What is listed was measured by machines and is proven to have run; whether it should have is for you to say. With --out
    it is written as a runtime set that can be merged into a policy's own once you have looked at it; files that the sets know
    with other content are left out of it, for an update or a trojan look alike here.

    Examples:
        attestctl ima triage --label role=web

        attestctl ima triage --path "/opt/acme/*" --at-least 5 --out acme.rtset

    Args:
        label: KEY=VALUE: only attesters with this label.
        path: only these paths (shell patterns).
        at_least: only what so many attesters have run.
        out: runtime set to write, `x.rtset` or `x.rtset.zst`.
        changed: put files of known paths with other content into it as well.
    """
    at = where or Where()
    document = at.ask(lambda remote: _gathered(remote, label))
    document["entries"] = [
        each
        for each in document["entries"]
        if each["attesters"] >= at_least
        and (not path or any(fnmatch.fnmatchcase(each["path"], one) for one in path))
    ]
    proposed = [each for each in document["entries"] if changed or each["change"] == "unknown"]
    document["proposal"] = None if out is None else _propose(proposed, out)
    if at.json:
        output.print_json(document)
    else:
        _show(document)
    return 1 if document["entries"] else 0


def _gathered(remote: Remote, label: str | None) -> dict[str, Any]:
    """All pages in one: the same file on several pages is one entry."""
    total: dict[str, Any] = {"examined": 0, "affected": 0, "unread": []}
    entries: dict[tuple[object, ...], Found] = {}
    cursor: str | None = None
    while True:
        page = remote.get("/v1/runtime/unknown", {"label": label, "cursor": cursor, "limit": _PAGE})
        total["examined"] += page["examined"]
        total["affected"] += page["affected"]
        total["unread"] += page["unread"]
        for each in page["entries"]:
            _add(entries, each)
        cursor = page.get("cursor")
        if not cursor:
            break
    ordered = sorted(
        entries.values(),
        key=lambda one: (one["package"] or "~", -one["attesters"], one["path"], one["digest"]),
    )
    return {**total, "entries": ordered}


def _add(entries: dict[tuple[object, ...], Found], each: Found) -> None:
    key = (each["path"], each["digest"], each["change"], each["package"], each["known_as"])
    before = entries.get(key)
    if before is None:
        entries[key] = each
        return
    before["attesters"] += each["attesters"]
    before["examples"] = (before["examples"] + each["examples"])[:5]


def _propose(entries: Sequence[Found], out: Path) -> dict[str, object]:
    """Write a set of the entries, and say how a policy names it."""
    try:
        made = _set_of(entries)
        save_set(out, made)
    except VtpmAttestError as error:
        output.fail(error)
    digest = digest_of(made)
    fragment = f"runtime:\n  sets:\n    - sha256: {digest}\n      name: {_NAME}\n"
    return {"file": str(out), "sha256": digest, "entries": len(made), "policy": fragment}


def _set_of(entries: Iterable[Found]) -> RuntimeSet:
    return assemble(
        Head(name=_NAME, description="What the fleet ran and no set knew; to be looked at by a person"),
        [entry for each in entries if (entry := _entry(each)) is not None],
    )


def _entry(each: Found) -> Entry | None:
    """None for a hash that runtime sets do not take (MD5, SM3 of other names)."""
    named = each["digest"].removeprefix("verity:")
    verity = named != each["digest"]
    algorithm, _, digits = named.partition(":")
    known = KERNEL_HASHES.get(algorithm)
    if known is None:
        return None
    return Entry(
        read(each["path"].encode()),
        KIND_OF[Kind.VERITY if verity else Kind.FILE, known],
        bytes.fromhex(digits),
        (_SOURCE,),
    )


def _show(document: Mapping[str, Any]) -> None:
    entries: list[Found] = document["entries"]
    output.out.print(
        f"{document['examined']} attesters, {document['affected']} run what no set of their policy knows"
    )
    package: str | None = ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("guests", "path", "digest", ""):
        table.add_column(column, justify="right" if column == "guests" else "left", overflow="fold")
    for each in entries:
        if each["package"] != package:
            package = each["package"]
            table.add_section()
            table.add_row("", f"[bold]{escape(package or _NO_PACKAGE)}[/]", "", "")
        table.add_row(
            str(each["attesters"]), escape(each["path"]), _short(each["digest"]), escape(_why(each))
        )
    if entries:
        output.out.print(table)
    if document["unread"]:
        count = len(document["unread"])
        output.err.print(
            f"[yellow]{count} attesters' lists are not kept whole and were not looked through[/]"
        )
    _show_proposal(document["proposal"])


def _show_proposal(proposal: Mapping[str, Any] | None) -> None:
    if proposal is None:
        return
    name = escape(str(proposal["file"]))
    output.out.print(
        f"\nwrote {name}: {proposal['entries']} entries. Look at it, and take out what should not run:\n"
        f"  attestctl runtime show {name}\n"
        f"then merge it into a set of the policy (attestctl runtime merge OLD.rtset {name} --out NEW.rtset), or name it"
        " beside them:\n"
    )
    output.out.print(escape(str(proposal["policy"])))


def _short(digest: str) -> str:
    algorithm, _, digits = digest.rpartition(":")
    return f"{algorithm}:{digits[:16]}…"


def _why(each: Found) -> str:
    known = f"; known as {each['known_as']}" if each["known_as"] else ""
    example = f"; {each['examples'][0]}" if each["examples"] else ""
    return (
        ("other content than the sets have" if each["change"] == "changed" else "unknown path")
        + known
        + example
    )
