"""Evidence in a file: `attest-agent collect`, and `attest-agent attest --nonce` for a relying party.

A collected bundle proves less than an attestation: its nonce is its maker's own, so it may be old, and nothing in it
shows that the AK belongs to the EK. `attestctl appraise` says so. One over a relying party's nonce proves to that party
how new it is; the verifier (`POST /v1/appraisals`) knows whose AK it is.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent import commands
from agent.ak import opened_ak
from agent.collect import Collected, Sources, sources_for
from agent.commands import Output, ak_of
from agent.config import Settings
from agent.ek import ChosenEk, Endorsements, chosen_ek, read_endorsements
from agent.errors import Exit, PcrsUnstableError, SourceError, UsageError
from agent.evidence import QuotedPcrs, quote_with_pcrs
from agent.ratchet import Ratchet
from agent.state import State, StateFile
from agent.tpm import Key, Selection, Tpm
from agent.userspace import certify_nvpcrs
from agent.version import VERSION
from agent.wire.messages import NvCertificate, RatchetProof

FORMAT: Final = "vtpm-attest/bundle/1"
BINDING: Final = b"vtpm-attest appraisal v1"
_MIN_RELYING_PARTY_NONCE: Final = 8
_MAX_NONCE: Final = 64
_NONCE_HELP: Final = "give 8 to 64 bytes, as hexadecimal or base64 (hex:... or base64:... says which)"
_HEX: Final = re.compile(r"([0-9a-fA-F]{2})+")
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


def parse_nonce(text: str) -> bytes:
    """`hex:...` or `base64:...`; without a prefix, hexadecimal if it has nothing but pairs of such digits, else base64."""
    kind, colon, value = text.partition(":")
    if not colon:
        kind, value = "hex" if _HEX.fullmatch(text) else "base64", text
    try:
        if kind == "hex":
            return bytes.fromhex(value)
        if kind == "base64":
            plain = value.replace("-", "+").replace("_", "/").rstrip("=")
            return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise UsageError(f"--nonce is not {kind}: {error}", _NONCE_HELP) from error
    raise UsageError(f"--nonce begins with {kind!r}", _NONCE_HELP)


def qualifying_data(nonce: bytes) -> bytes:
    """What is signed for a relying party's nonce: SHA-256 of a fixed text and the nonce.

    Never the nonce itself: whoever chose it might have got it from the verifier, and pass the evidence off as this
    machine's attestation.
    """
    return hashlib.sha256(BINDING + nonce).digest()


def attest_to(settings: Settings, out: Path, nonce: bytes, selection: Selection, output: Output) -> int:
    """Evidence over a relying party's nonce, with the ratchet as it is. The verifier is not asked for anything."""
    if not _MIN_RELYING_PARTY_NONCE <= len(nonce) <= _MAX_NONCE:
        raise UsageError(f"--nonce has {len(nonce)} bytes", _NONCE_HELP)
    return _collect(settings, out, (qualifying_data(nonce), nonce), selection, output)


def collect(settings: Settings, out: Path, nonce: bytes, selection: Selection, output: Output) -> int:
    """Quote, read everything, write the bundle."""
    if not 0 < len(nonce) <= _MAX_NONCE:
        raise UsageError(f"--nonce has {len(nonce)} bytes", f"give 1 to {_MAX_NONCE} bytes")
    return _collect(settings, out, (nonce, None), selection, output)


def _collect(
    settings: Settings, out: Path, nonces: tuple[bytes, bytes | None], selection: Selection, output: Output
) -> int:
    """`nonces`: what is signed, and the relying party's where that is made from one."""
    nonce, asked = nonces
    store = StateFile(settings.state_dir)
    state = store.load()
    sources = sources_for(settings.root)
    tpm = commands.open_tpm(settings)
    try:
        endorsements = read_endorsements(tpm)
        with (
            opened_ak(tpm, ak_of(settings, state), state.ak_generation) as ak,
            chosen_ek(tpm, endorsements, settings.ek, state.ek_slot) as ek,
        ):
            if asked is not None:
                _check_enrolled(state, ak, output)
            quoted = quote_for_bundle(tpm, ak, nonce, selection, sources)
            shown = None if asked is None else Ratchet(store, _noting(output)).show_as_it_is(tpm, ak, nonce)
            log = sources.collect(agent_version=VERSION).userspace_log or b""
            nvpcrs = certify_nvpcrs(tpm, ak, log, nonce, _noting(output))
    finally:
        tpm.close()
    collected = sources.collect(agent_version=VERSION)
    ima = sources.ima_list()
    for note in (*ek.notes, *collected.notes, *([ima.note] if ima.note else [])):
        output.say(f"note: {note}")
    bundle = _bundle(nonce, (ak, ek, endorsements), quoted, collected) | _userspace(collected, nvpcrs)
    bundle["ima_log"] = _text(ima.content)
    if asked is not None:
        bundle |= {"relying_party_nonce": asked.hex(), "ratchet": _ratchet(shown)}
    content = msgspec.json.format(msgspec.json.encode(bundle)) + b"\n"
    _write(out, content)
    if str(out) != "-":
        summary = {"bundle": str(out), "bytes": len(content), "boot_log": collected.boot_log is not None}
        output.result(summary, f"{out}: {len(content)} bytes")
    return Exit.AFFIRMING


def quote_for_bundle(tpm: Tpm, ak: Key, nonce: bytes, selection: Selection, sources: Sources) -> QuotedPcrs:
    """A quote and values that agree, where the machine holds still for that long; else the IMA list tells PCR 10.

    Raises:
        PcrsUnstableError: other PCRs changed all the time, or there is no list.
    """
    try:
        return quote_with_pcrs(tpm, ak, nonce, selection)
    except PcrsUnstableError:
        if sources.ima_list().content is None:
            raise
        return quote_with_pcrs(tpm, ak, nonce, selection, ima_list=True)


def _noting(output: Output) -> Callable[[str], None]:
    return lambda text: output.say(f"note: {text}")


def _check_enrolled(state: State, ak: Key, output: Output) -> None:
    if state.ak_name != ak.name.hex():
        output.say(
            "note: this key is not the one this machine was enrolled with; a verifier will not know it"
        )


def _ratchet(shown: RatchetProof | None) -> dict[str, object] | None:
    if shown is None:
        return None
    return {
        "attest": _text(shown.attest),
        "signature": _text(shown.signature),
        "step": shown.step,
        "base": _text(shown.base),
        "nonce": _text(shown.nonce),
    }


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


__all__: Sequence[str] = (
    "BINDING",
    "FORMAT",
    "attest_to",
    "collect",
    "parse_nonce",
    "parse_pcrs",
    "qualifying_data",
)
