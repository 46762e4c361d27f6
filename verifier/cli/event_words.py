"""An event in one line for people, and what is different between two. Display only: labels are shown too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

Shown = Mapping[str, Any]
"""`data` as `describe` decodes it; `name` and `text` where they are proven."""

_KEYS: Final = ("device_path", "text", "signature", "description", "address", "disk", "hex", "tables")


def says(event: Shown) -> str:
    """What the event says, in one line."""
    data = event["data"]
    if event.get("text"):
        name, text = event.get("name"), str(event["text"])
        said = text if not name or text.startswith(str(name)) else f"{name}: {text}"
    elif "records" in data:
        said = " ".join(_records(data["records"]))
    elif "variable" in data:
        said = data["variable"] + _variable(data)
    else:
        said = next((str(data[key]) for key in _KEYS if data.get(key)), "")
        said = f"{data['tag_name']}: {said}" if "tag_name" in data else said
    return said + (f" [{data['problem']}]" if "problem" in data else "")


def differences(before: Shown, after: Shown) -> list[str]:
    """Parts that only one of two events has, `- ` before what is gone and `+ ` before what is new.

    Empty where nothing smaller than the whole event can be named.
    """
    for parts in (_words, _signatures, _partitions, _sipa):
        old, new = parts(before), parts(after)
        if old is not None and new is not None:
            return [*_lines(old, new)]
    return []


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for tag, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from (f"- {part}" for part in old[start:end])
            yield from (f"+ {part}" for part in new[new_start:new_end])


def _words(event: Shown) -> list[str] | None:
    """Words of a proven text that has several."""
    text = event.get("text")
    words = str(text).split() if text else []
    return words if len(words) > 1 else None


def _signatures(event: Shown) -> list[str] | None:
    entries = event["data"].get("signatures")
    return None if entries is None else sorted(_signature(entry) for entry in entries)


def _signature(entry: Mapping[str, Any]) -> str:
    what = entry.get("sha256") or entry.get("hex", "")
    return f"{entry['type']} {what}" + (f" {entry['subject']}" if "subject" in entry else "")


def _partitions(event: Shown) -> list[str] | None:
    parts = event["data"].get("partitions")
    if parts is None:
        return None
    disk = f"disk {event['data']['disk']}"
    return [disk, *(f"{p['guid']} {p['name']} {p['first_lba']}-{p['last_lba']}" for p in parts)]


def _sipa(event: Shown) -> list[str] | None:
    records = event["data"].get("records")
    return None if records is None else list(_flat(records))


def _flat(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        if "parts" in record:
            yield from _flat(record["parts"])
        else:
            yield _record(record)


def _record(record: Mapping[str, Any]) -> str:
    value = record.get("value", record.get("text", record.get("hex", "")))
    return f"{record['record']}={value}"


def _records(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names of what Windows measured, modules counted."""
    modules = 0
    for record in records:
        if record["record"] == "loadedmodule_aggregation":
            modules += 1
        elif "parts" in record:
            yield from _records(record["parts"])
        else:
            yield f"{record['record']}={record['value']}" if "value" in record else record["record"]
    if modules:
        yield f"({modules} modules)"


def _variable(data: Mapping[str, Any]) -> str:
    if "entries" in data:
        subjects = [entry["subject"] for entry in data["signatures"] if "subject" in entry]
        return f" ({data['entries']} entries{''.join(f', {subject}' for subject in subjects)})"
    if "authority" in data:
        return f" {data['authority'].get('subject') or data['authority'].get('hex', '')}"
    if "order" in data:
        return f" = {' '.join(data['order'])}"
    if "description" in data:
        return f" = {data['description']} {data['device_path']}"
    value = data.get("value")
    return f" = {value if not isinstance(value, Mapping) else value.get('text', value.get('hex'))}"
