"""How claims that are more than one field are read off proven facts; None where they are not proven."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from verifier.claims import Binding, BootDetails, BootFacts, EventFact, WindowsFacts
from verifier.policy.claim_entry import Scalar, Value, View
from verifier.tcg.userspace_text import NVPCR_SEPARATOR, OS_SEPARATOR, nvpcr_start

UKI_PCR: Final = 11
_SEPARATORS: Final = frozenset({NVPCR_SEPARATOR, OS_SEPARATOR})
_MAX_INT: Final = 2**63 - 1


def hexed(values: Iterable[bytes]) -> Value:
    """Digests as policies write them."""
    return [value.hex() for value in values]


def sections(view: View) -> Value:
    """Content digests of the UKI's sections.

    Only events that the stub's own order named count; a bound event is never one of them, whatever its name is.
    """
    sections: dict[Scalar, Value] = {}
    for event in view.events(UKI_PCR):
        if event.name is not None and event.binding is not Binding.BOUND:
            sections.setdefault(event.name, event.digests[view.bank].hex())
    return sections


def digests_by_pcr(view: View) -> Value:
    """Digests of every quoted PCR that the log explains; an empty list where nothing was measured."""
    return {
        pcr: hexed(event.digests[view.bank] for event in view.events(pcr))
        for pcr in view.pcrs
        if view.explained(pcr)
    }


def images(view: View, pcr: int) -> Value:
    """Every digest of the PCR that no readable text explains.

    Event types are not measured: whoever edits the log can hide an image from a selection by type, and here can
    only add to the list.
    """
    return hexed(e.digests[view.bank] for e in view.events(pcr) if e.binding is Binding.UNBOUND)


def files(view: View, pcr: int) -> Value:
    """Every digest of the PCR but a command line's, which a candidate explained, and what systemd measured later.

    No other text in the log takes anything off the list: whoever edits the log could put a file's content there.
    """
    return hexed(e.digests[view.bank] for e in view.events(pcr) if not _no_file(e))


def _no_file(event: EventFact) -> bool:
    if event.binding is Binding.KNOWN:
        return True
    text = event.text
    return text is not None and (text in _SEPARATORS or nvpcr_start(text) is not None)


def passed_on(view: View, pcr: int) -> Value | None:
    """Every digest of the PCR that no readable text explains; an archive is never one line of text.

    None where Windows booted, which measures other things there.
    """
    found = None if view.boot is None else view.boot.details
    if found is None or found.windows is not None:
        return None
    return hexed(e.digests[view.bank] for e in view.events(pcr) if not (e.text and e.text.isprintable()))


def arguments(facts: BootFacts) -> Value | None:
    """Words of the proven command line."""
    line = facts.kernel_command_line
    return None if line is None else list(line.split())


def entry_count(found: BootDetails) -> Value | None:
    """How much dbx revokes."""
    database = found.databases.get("dbx")
    return None if database is None else database.entries


def authorities(found: BootDetails) -> Value | None:
    """What let images run, complete or not at all."""
    return None if found.authorities is None else hexed(each.entry_sha256 for each in found.authorities)


def partitions(found: BootDetails) -> Value | None:
    """Partition GUID to name."""
    return None if found.disk_guid is None else {each.guid: each.name for each in found.partitions}


def listed(values: Iterable[str] | None) -> Value | None:
    """A list, where there is one."""
    return None if values is None else list(values)


def parameters(facts: WindowsFacts) -> Value:
    """Numbers by name; CEL's own end at 2**63 - 1."""
    return {name: value for name, value in facts.parameters.items() if value <= _MAX_INT}


def mapped(values: Mapping[str, Scalar] | None) -> Value | None:
    """A map, where there is one."""
    if values is None:
        return None
    copy: dict[Scalar, Value] = {}
    copy.update(values)
    return copy
