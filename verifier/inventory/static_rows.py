"""CSV and JSON lists of machines to rows of checked text, each with its line.

Bounded, and strict: what is not understood is an error with a line, never a machine with something missing.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from verifier.inventory.errors import InventoryFileError

MAX_MACHINES: Final = 200_000
MAX_FIELD: Final = 65_536
LABEL_PREFIX: Final = "label."
_LISTS: Final = ("ek_sha256", "ek_certificate", "ek_certificate_file")
_TEXTS: Final = ("name", "smbios_uuid", "instance_uuid", "secure_boot")
_LIST_SEPARATOR: Final = ";"
_BLANK: Final = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One machine as written. Empty text means that nothing was said."""

    line: int
    name: str
    smbios_uuid: str = ""
    instance_uuid: str = ""
    secure_boot: str = ""
    """`true`, `false` or empty."""
    ek_sha256: tuple[str, ...] = ()
    ek_certificate: tuple[str, ...] = ()
    ek_certificate_file: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def read_rows(path: Path, content: bytes) -> Iterator[Row]:
    """Rows of a file, told apart by its ending.

    Raises:
        InventoryFileError: not UTF-8, not CSV or JSON, unknown columns or members, too many machines.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InventoryFileError(path, line, "", "the file is not UTF-8") from None
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    for count, row in enumerate(rows, 1):
        if count > MAX_MACHINES:
            raise InventoryFileError(path, row.line, "", f"more than {MAX_MACHINES} machines")
        yield row


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise InventoryFileError(path, 1, "", "no header line")
        columns = _columns(path, header)
        start = reader.line_num + 1
        for values in reader:
            if values:
                yield _csv_row(path, start, columns, values)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InventoryFileError(path, reader.line_num, "", f"not CSV: {error}") from None


def _columns(path: Path, header: list[str]) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in header)
    for name in columns:
        label = name.startswith(LABEL_PREFIX) and name != LABEL_PREFIX
        if name not in _TEXTS and name not in _LISTS and not label:
            known = ", ".join((*_TEXTS, *_LISTS, f"{LABEL_PREFIX}<name>"))
            raise InventoryFileError(path, 1, name or "(empty)", f"unknown column; there are {known}")
        if columns.count(name) > 1:
            raise InventoryFileError(path, 1, name, "the column is there twice")
    if "name" not in columns:
        raise InventoryFileError(path, 1, "name", "the column is missing")
    return columns


def _csv_row(path: Path, line: int, columns: tuple[str, ...], values: list[str]) -> Row:
    if len(values) != len(columns):
        raise InventoryFileError(path, line, "", f"{len(values)} fields, where the header has {len(columns)}")
    for name, value in zip(columns, values, strict=True):
        _check_length(path, line, name, value)
    fields = {name: value.strip() for name, value in zip(columns, values, strict=True)}
    lists = {name: _split(fields.get(name, "")) for name in _LISTS}
    labels = {
        name.removeprefix(LABEL_PREFIX): value
        for name, value in fields.items()
        if name.startswith(LABEL_PREFIX) and value
    }
    texts = {name: fields.get(name, "") for name in _TEXTS}
    return _row(line, texts, lists, labels)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (one.strip() for one in text.split(_LIST_SEPARATOR)) if part)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    """Elements of a top-level array, decoded one by one, so that each knows the line it begins at."""
    position = _skip(text, 0)
    if text[position : position + 1] != "[":
        raise InventoryFileError(path, _line(text, position), "", "not a JSON array of machines")
    line, counted = _line(text, position), position
    position = _skip(text, position + 1)
    more = text[position : position + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, position), position
        value, position = _decode(path, line, text, position)
        yield _json_row(path, line, value)
        position = _skip(text, position)
        separator = text[position : position + 1]
        if separator not in {",", "]"}:
            raise InventoryFileError(path, _line(text, position), "", "not JSON: ',' or ']' expected")
        more = separator == ","
        position = _skip(text, position + 1) if more else position
    end = _skip(text, position + 1)
    if end != len(text):
        raise InventoryFileError(path, _line(text, end), "", "something follows the array of machines")


class _Members(dict[str, object]):
    """An object's members; remembers a name that is there twice, which `json` would pass over."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__()
        self.twice: str | None = None
        for name, value in pairs:
            if name in self:
                self.twice = name
            self[name] = value


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_Members)


def _decode(path: Path, line: int, text: str, position: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise InventoryFileError(path, error.lineno, "", f"not JSON: {error.msg}") from None
    except (RecursionError, ValueError):
        raise InventoryFileError(
            path, line, "", "not JSON of machines: too deep, or a number too long"
        ) from None


def _json_row(path: Path, line: int, value: object) -> Row:
    if not isinstance(value, _Members):
        raise InventoryFileError(path, line, "", "a machine must be an object")
    if value.twice is not None:
        raise InventoryFileError(path, line, value.twice, "the member is there twice")
    for name in value:
        if name not in _TEXTS and name not in _LISTS and name != "labels":
            known = ", ".join((*_TEXTS, *_LISTS, "labels"))
            raise InventoryFileError(path, line, name[:80], f"unknown member; there are {known}")
    if "name" not in value:
        raise InventoryFileError(path, line, "name", "the member is missing")
    secure_boot = value.get("secure_boot")
    if secure_boot is not None and not isinstance(secure_boot, bool):
        raise InventoryFileError(path, line, "secure_boot", "must be true, false or null")
    texts = {name: _text(path, line, name, value.get(name) or "") for name in _TEXTS if name != "secure_boot"}
    lists = {name: _texts(path, line, name, value.get(name)) for name in _LISTS}
    texts["secure_boot"] = "" if secure_boot is None else str(secure_boot).lower()
    return _row(line, texts, lists, _labels(path, line, value.get("labels")))


def _row(
    line: int, texts: Mapping[str, str], lists: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]
) -> Row:
    return Row(
        line=line,
        name=texts["name"],
        smbios_uuid=texts["smbios_uuid"],
        instance_uuid=texts["instance_uuid"],
        secure_boot=texts["secure_boot"],
        ek_sha256=lists["ek_sha256"],
        ek_certificate=lists["ek_certificate"],
        ek_certificate_file=lists["ek_certificate_file"],
        labels=labels,
    )


def _text(path: Path, line: int, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InventoryFileError(path, line, name, "must be text")
    _check_length(path, line, name, value)
    return value.strip()


def _texts(path: Path, line: int, name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(one for one in (_text(path, line, name, value),) if one)
    if not isinstance(value, list):
        raise InventoryFileError(path, line, name, "must be text or a list of text")
    return tuple(_text(path, line, name, one) for one in value)


def _labels(path: Path, line: int, value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, _Members) or value.twice is not None:
        raise InventoryFileError(path, line, "labels", "must be an object of text, each name once")
    return {name: _text(path, line, f"labels.{name[:80]}", one) for name, one in value.items()}


def _check_length(path: Path, line: int, name: str, value: str) -> None:
    if len(value) > MAX_FIELD:
        raise InventoryFileError(path, line, name, f"longer than {MAX_FIELD} characters")


def _skip(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match is not None else position


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
