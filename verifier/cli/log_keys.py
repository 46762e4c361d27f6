"""Keys of logs and witnesses, and checkpoints that were kept, as commands are given them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter

from verifier.cli.output import InputError
from verifier.transparency import checkpoint
from verifier.transparency.checkpoint import Checkpoint, Opened
from verifier.transparency.errors import LogError
from verifier.transparency.notes import Algorithm, VerifierKey

LOG_KEY: Final = "ATTESTCTL_LOG_KEY"
MAX_FILE: Final = 64 * 1024

Keys: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name="--key",
        negative="",
        env_var=LOG_KEY,
        help=f"Verifier key of the log, or a file with some (or {LOG_KEY}).",
    ),
]


def log_keys(given: Sequence[str]) -> tuple[VerifierKey, ...]:
    """The keys of the log: each `NAME+ID+BASE64`, or a file with one a line.

    Raises:
        InputError: none was given, or one is no key of a log.
    """
    keys = _keys(given, Algorithm.ED25519)
    if not keys:
        raise InputError(
            f"which key is the log's? pass --key or set {LOG_KEY}; `attest-verifier keys log` on the verifier's machine"
            " prints it: carry it over by a way that whoever could change the log cannot use"
        )
    return keys


def witness_keys(given: Sequence[str]) -> tuple[VerifierKey, ...]:
    """The keys of witnesses, in the same forms.

    Raises:
        InputError: one is no key of a witness.
    """
    return _keys(given, Algorithm.COSIGNATURE_V1)


def _keys(given: Sequence[str], algorithm: Algorithm) -> tuple[VerifierKey, ...]:
    found: list[VerifierKey] = []
    for text in _texts(given):
        try:
            key = VerifierKey.parse(text)
        except LogError as error:
            raise InputError(str(error)) from error
        if key.algorithm is not algorithm:
            kind = "a witness" if algorithm is Algorithm.ED25519 else "a log"
            raise InputError(f"{text} is the key of {kind}")
        found.append(key)
    return tuple(found)


def _texts(given: Iterable[str]) -> Iterable[str]:
    for text in given:
        if "+" in text and not Path(text).exists():
            yield text
            continue
        for line in read_text(Path(text)).splitlines():
            if line.strip() and not line.startswith("#"):
                yield line.strip()


def read_text(path: Path) -> str:
    """A small text file.

    Raises:
        InputError: there is none.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InputError(f"{path}: {reason}; name a file that is there, from {os.getcwd()}") from error  # noqa: PTH109


def kept_checkpoint(path: Path | None, keys: Sequence[VerifierKey]) -> Checkpoint | None:
    """What an auditor kept from before, believed as anything else is: by its signature.

    Raises:
        InputError: it cannot be read, or is not signed by the log.
    """
    if path is None:
        return None
    return opened(read_text(path), keys, str(path)).checkpoint


def opened(note: str, keys: Sequence[VerifierKey], where: str) -> Opened:
    """A checkpoint, believed.

    Raises:
        InputError: it is not signed by the log.
    """
    try:
        return checkpoint.opened(note, keys)
    except LogError as error:
        raise InputError(f"{where}: {error}") from error
