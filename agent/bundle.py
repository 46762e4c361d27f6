"""`attest-agent collect`: evidence in a file, for `attestctl appraise` and for bug reports.

A bundle proves less than an attestation: its nonce is its maker's own, so it may be old, and nothing in it shows that
the AK belongs to the EK. `attestctl appraise` says so.
"""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent import commands
from agent.ak import opened_ak
from agent.collect import Collected, sources_for
from agent.commands import Output, ak_of
from agent.config import Settings
from agent.ek import ChosenEk, Endorsements, chosen_ek, read_endorsements
from agent.errors import Exit, SourceError, UsageError
from agent.evidence import QuotedPcrs, quote_with_pcrs
from agent.state import StateFile
from agent.tpm import Key, Selection
from agent.userspace import certify_nvpcrs
from agent.version import VERSION
from agent.wire.messages import NvCertificate

FORMAT: Final = "vtpm-attest/bundle/1"
_MAX_NONCE: Final = 64
_PCRS: Final = 24


def parse_pcrs(text: str) -> list[int]:
    """`0-9,14` as ascending indices."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError as error:
            raise UsageError(f"--pcrs {text!r}: {part!r} is not a PCR", "write it like 0-9,14") from error
        if not 0 <= low <= high < _PCRS:
            raise UsageError(f"--pcrs {text!r}: {part!r} is not within 0-{_PCRS - 1}", "write it like 0-9,14")
        chosen.update(range(low, high + 1))
    return sorted(chosen)


def collect(settings: Settings, out: Path, nonce: bytes, selection: Selection, output: Output) -> int:
    """Quote, read everything, write the bundle."""
    if not 0 < len(nonce) <= _MAX_NONCE:
        raise UsageError(f"--nonce has {len(nonce)} bytes", f"give 1 to {_MAX_NONCE} bytes")
    state = StateFile(settings.state_dir).load()
    tpm = commands.open_tpm(settings)
    try:
        endorsements = read_endorsements(tpm)
        with (
            opened_ak(tpm, ak_of(settings, state), state.ak_generation) as ak,
            chosen_ek(tpm, endorsements, settings.ek, state.ek_slot) as ek,
        ):
            quoted = quote_with_pcrs(tpm, ak, nonce, selection)
            sources = sources_for(settings.root)
            log = sources.collect(agent_version=VERSION).userspace_log or b""
            nvpcrs = certify_nvpcrs(tpm, ak, log, nonce, lambda text: output.say(f"note: {text}"))
    finally:
        tpm.close()
    collected = sources.collect(agent_version=VERSION)
    ima = sources.ima_list()
    for note in (*ek.notes, *collected.notes, *([ima.note] if ima.note else [])):
        output.say(f"note: {note}")
    bundle = _bundle(nonce, (ak, ek, endorsements), quoted, collected) | _userspace(collected, nvpcrs)
    bundle["ima_log"] = _text(ima.content)
    content = msgspec.json.format(msgspec.json.encode(bundle)) + b"\n"
    _write(out, content)
    if str(out) != "-":
        summary = {"bundle": str(out), "bytes": len(content), "boot_log": collected.boot_log is not None}
        output.result(summary, f"{out}: {len(content)} bytes")
    return Exit.AFFIRMING


def _bundle(
    nonce: bytes, keys: tuple[Key, ChosenEk, Endorsements], quoted: QuotedPcrs, collected: Collected
) -> dict[str, object]:
    ak, ek, endorsements = keys
    return {
        "format": FORMAT,
        "nonce": nonce.hex(),
        "ak_public": _text(ak.public),
        "ek_public": _text(ek.key.public),
        "ek_certificates": [_text(der) for der in endorsements.ders],
        "ek_chain": [_text(der) for der in endorsements.chain],
        "quote": {"attest": _text(quoted.quote.attest), "signature": _text(quoted.quote.signature)},
        "pcrs": {
            bank: {str(index): values[index].hex() for index in sorted(values)}
            for bank, values in quoted.values.items()
        },
        "boot_log": _text(collected.boot_log),
        "identity": msgspec.structs.asdict(collected.identity),
        "kernel_command_line": collected.kernel_command_line,
        "boot_id": collected.boot_id,
        "collected_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _userspace(collected: Collected, nvpcrs: Sequence[NvCertificate]) -> dict[str, object]:
    return {
        "userspace_log": _text(collected.userspace_log),
        "nvpcrs": [
            {"public": _text(one.public), "attest": _text(one.attest), "signature": _text(one.signature)}
            for one in nvpcrs
        ],
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode("ascii")


def _write(out: Path, content: bytes) -> None:
    try:
        if str(out) == "-":
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        else:
            out.write_bytes(content)
    except OSError as error:
        raise SourceError(
            f"{out} cannot be written: {error.strerror}", "name another file with --out"
        ) from error


__all__: Sequence[str] = ("FORMAT", "collect", "parse_pcrs")
