"""`[secrets]` of the settings: by which keys secrets for machines are encrypted in the database."""

from __future__ import annotations

from pathlib import Path

from verifier.settings_section import Section


class SecretSettings(Section, frozen=True):
    """Where the keys are by which secrets are encrypted at rest."""

    keys: tuple[Path, ...] = ()
    """Files of 32 random bytes: the first encrypts, each opens what it encrypted. Unset: the key follows from the service
    secret, which opens what it encrypted in any case."""
