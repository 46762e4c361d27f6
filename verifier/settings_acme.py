"""`[acme]` of the settings: a CA that certifies the server by itself (RFC 8555)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from verifier.settings_section import Section

_NAME: Final = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_CONTACT: Final = re.compile(r"[^@\s]+@[^@\s]+")


class AcmeSettings(Section, frozen=True):
    """What `attest-verifier acme` asks for, and whom."""

    directory: str = ""
    """URL of the CA's directory."""
    names: tuple[str, ...] = ()
    """DNS names of the certificate; none: the host of `public_url`."""
    contact: tuple[str, ...] = ()
    """E-mail addresses that the CA may write to."""
    terms_agreed: bool = False
    """That the CA's terms of service are agreed to."""
    host: str = ""
    """Address to answer the CA's challenge on; empty: all."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 80
    """The CA asks port 80; another one, where that is forwarded."""
    ca: Path | None = None
    """PEM file with CA certificates of the directory's own server, instead of the system's."""
    eab_kid: str = ""
    """Name of the account at the CA that ours is bound to, where it wants that."""
    eab_key_file: Path | None = None
    """File with its key, base64url."""


def check_acme(settings: AcmeSettings) -> None:
    """Refuse what could not work.

    Raises:
        ValueError: beginning with the key.
    """
    if not settings.directory:
        if settings != AcmeSettings():
            raise ValueError("directory is not set, but others of [acme] are")
        return
    if not settings.directory.startswith("https://"):
        raise ValueError(f"directory {settings.directory!r} is not an https:// URL")
    for name in settings.names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"names: {name!r} is not a DNS name (lower case, no wildcard)")
    for address in settings.contact:
        if not _CONTACT.fullmatch(address):
            raise ValueError(f"contact: {address!r} is not an e-mail address")
    if bool(settings.eab_kid) != (settings.eab_key_file is not None):
        raise ValueError("eab_kid and eab_key_file go together")
