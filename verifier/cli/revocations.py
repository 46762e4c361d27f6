"""`attestctl policy revocations`: a published dbx as reference values that a rule can require."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from verifier.cli import output
from verifier.errors import PolicyError, VtpmAttestError
from verifier.predict.revocations import MAX_LIST, RevocationList, read_revocations, reference_set


def revocations(
    file: Path, *, set_id: str = "dbx", arch: str | None = None, out: Path | None = None, json: bool = False
) -> int:
    """Turn a published list of revocations into reference values, which a `revocations` rule requires.

    Reads an update as firmware takes it (DBXUpdate.bin), a dbx (signature lists, or the file of efivarfs), or the JSON
    that comes with an update (dbx_info). No signature is checked: you vouch for the file.

    Examples:
        attestctl policy revocations DBXUpdate.bin --set-id dbx-2025-10 --out policies/web/reference-values-dbx.yaml

        attestctl policy revocations dbx_info_msft_latest.json --arch x64 --out reference-values-dbx.yaml

    Args:
        file: the list.
        set_id: id of the set; rules name it as `ref:ID/*`.
        arch: of the JSON's images, only those of this architecture (x64, arm64, x86, arm).
        out: file to write; stdout without it.
        json: print one JSON document; the reference values themselves only with --out.
    """
    try:
        found = read_revocations(_read(file), arch)
        text = reference_set(found, set_id, f"Revocations of {file.name}")
        if out is not None:
            out.write_text(text)
    except (OSError, VtpmAttestError) as error:
        output.fail(error)
    if json:
        output.print_json(_document(found, set_id))
        return 0
    if out is None:
        output.out.out(text, end="", highlight=False)
    for each in found.skipped:
        output.err.print(f"[yellow]left out:[/] {escape(each)}")
    where = "" if out is None else f" in {out}"
    output.err.print(
        f"{len(found.entries)} revocations{escape(where)}; require them with a rule:\n"
        f"  revocations: {{require: ['ref:{set_id}/*']}}"
    )
    return 0


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise PolicyError(f"more than {MAX_LIST} bytes: no list of revocations", where=str(file))
    return data


def _document(found: RevocationList, set_id: str) -> dict[str, object]:
    return {
        "id": set_id,
        "entries": [
            {"name": entry.name, "digest": entry.digest.hex(), "note": entry.note} for entry in found.entries
        ],
        "skipped": list(found.skipped),
    }
