"""`attestctl attester`: one machine, and on whose word its TPM is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from verifier.cli import output
from verifier.cli.fleet import Where
from verifier.cli.remote import path_of

_KIND: Final = {True: "virtual", False: "hardware", None: "unknown kind"}
_PRESENT: Final = {True: "present", False: "absent"}
_PROFILE: Final = ("manufacturer", "model", "version")


def attester(attester_id: str, *, where: Where | None = None) -> int:
    """Show one attester: identity, how its TPM is trusted, its EK's profile, its latest verdict.

    Example:
        attestctl attester 3f0c... --server https://verifier.example:8443 --ca ca.pem

    Args:
        attester_id: id as `attestctl attesters` lists it.
    """
    at = where or Where()
    reply = at.ask(lambda remote: remote.get(f"/v1/attesters{path_of(attester_id)}"))
    if at.json:
        output.print_json(reply)
        return 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    for what, value in _rows(reply):
        table.add_row(what, escape(value))
    output.out.print(table)
    verdict = reply.get("verdict")
    if verdict is not None:
        until = output.when(verdict["valid_until"])
        output.out.print(f"\nverdict: {output.tier_text(verdict['status'])}, expires {until}")
        output.out.print(f"[dim]next: attestctl verdict {escape(attester_id)}[/]")
    return 0


def _rows(reply: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    identity, endorsement = reply["identity"], reply["endorsement"]
    yield "attester", f"{reply['id']} ({reply['lifecycle']})"
    for key in ("hostname", "os", "smbios_uuid"):
        if identity.get(key):
            yield key.replace("_", " "), str(identity[key])
    if reply["labels"]:
        yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(reply["labels"].items()))
    yield "enrolled", output.when(reply["enrolled_at"])
    for key in ("replaces", "replaced_by"):
        if reply.get(key):
            yield key.replace("_", " "), str(reply[key])
    yield "policy", str(reply.get("policy") or "the default")
    yield "trusted by", _trusted_by(endorsement)
    yield from profile_rows(endorsement.get("profile", {}))
    if endorsement.get("issuer"):
        yield "EK issuer", str(endorsement["issuer"])
    yield "EK SHA-256", str(endorsement["ek_sha256"])
    yield "AK name", str(reply["ak_name"])
    now = reply.get("inventory")
    if now:
        yield "inventory now", f"{now['outcome']}: {now['explanation']}"


def _trusted_by(endorsement: Mapping[str, Any]) -> str:
    methods = endorsement.get("profile", {}).get("methods") or [endorsement["method"]]
    return ", ".join(map(str, methods))


def profile_rows(profile: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What an EK's certificate says of its TPM, line by line; nothing where no certificate was validated."""
    if "virtual" in profile:
        said = [str(profile[key]) for key in _PROFILE if profile.get(key)]
        yield "TPM", ", ".join([*said, _KIND[profile["virtual"]]])
        yield "EK key", f"{profile['key']}{_match(profile)}"
        revocation = profile.get("revocation", "unchecked")
        eku, san = _PRESENT[profile["eku_present"]], _PRESENT[profile["san_present"]]
        yield "EK certificate", f"EKU {eku}, SAN {san}, revocation {revocation}"
        if profile.get("expires_at"):
            yield "path until", str(profile["expires_at"])[:10]
    ak = profile.get("ak")
    if isinstance(ak, Mapping):
        yield "AK certificate", f"{ak.get('kind', '')} by {ak.get('issuer', '')}"
    for device in profile.get("devices", ()):
        yield "device", ", ".join(str(value) for value in device.values() if isinstance(value, str))
    inventory = profile.get("inventory")
    if isinstance(inventory, Mapping):
        yield "inventory then", f"{inventory.get('outcome')}: {inventory.get('explanation')}"
    for note in profile.get("notes", ()):
        yield "note", str(note)


def _match(profile: Mapping[str, Any]) -> str:
    return ", the key the certificate is for" if profile.get("key_matches") else ""
