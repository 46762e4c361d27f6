"""`[transparency]` of the settings: the log of all verdicts and decisions."""

from __future__ import annotations

import re
from typing import Final

from verifier.durations import Duration
from verifier.settings_section import Section
from verifier.transparency.errors import NoteError
from verifier.transparency.notes import Algorithm, VerifierKey

_ORIGIN: Final = re.compile(r"[^\s+]*")


class TransparencySettings(Section, frozen=True):
    """What the log is called, how often it is signed, and who else signs it."""

    origin: str = ""
    """Name of the log, without spaces and `+`; empty: host and path of `public_url`, then `/log`. It stands in every
    checkpoint, and is what it was when the first key was made."""
    interval: Duration = Duration(seconds=1)
    """How long, about, until a verdict is under a checkpoint."""
    witnesses: tuple[str, ...] = ()
    """Keys of witnesses whose cosignatures are kept, as `NAME+KEYID+BASE64`."""
    required: bool = False
    """Give no verdicts while the log is damaged."""


def witness_keys(settings: TransparencySettings) -> tuple[VerifierKey, ...]:
    """Raises `ValueError` for what is no key of a witness."""
    keys = []
    for text in settings.witnesses:
        try:
            key = VerifierKey.parse(text)
        except NoteError as error:
            raise ValueError(f"witnesses: {error}") from error
        if key.algorithm is not Algorithm.COSIGNATURE_V1:
            raise ValueError(f"witnesses: {text} is the key of a log, not of a witness (cosignature/v1)")
        keys.append(key)
    return tuple(keys)


def check_transparency(settings: TransparencySettings) -> None:
    """Raises `ValueError` for a key or a name that cannot be used."""
    witness_keys(settings)
    if not _ORIGIN.fullmatch(settings.origin):
        raise ValueError(f"origin: {settings.origin!r} has spaces or a `+`")
