"""`[[inventory]]` of the settings: the sources that say which endorsement key belongs to which machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, TypeAlias, assert_never

from msgspec import Meta, Struct

from verifier.durations import Duration
from verifier.inventory.errors import InventorySettingError
from verifier.inventory.settings import (
    Credentials,
    InventorySettings,
    SecretFile,
    SecretSource,
    SecretVariable,
    StaticSettings,
    VcenterSettings,
)

MAX_SOURCES: Final = 64


class FileInventory(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="file"
):
    """A list of machines in a file, `.csv` or `.json`."""

    name: str
    """Of this source, in keys, messages and metrics."""
    path: Path
    interval: Duration = Duration(seconds=10)
    """How often it is looked at for changes."""


class VsphereInventory(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="vsphere"
):
    """A vCenter. Its password is in a file or an environment variable, never here."""

    name: str
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)] = 443
    user: str | None = None
    user_file: Path | None = None
    user_env: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    ca_file: Path | None = None
    """PEM of the CAs that may vouch for it, and no others; unset: those of the operating system."""
    thumbprint: Annotated[str, Meta(pattern="^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")] | None = None
    """SHA-256 of its certificate, hex, instead of any CA."""
    timeout: Duration = Duration(seconds=60)
    wait: Duration = Duration(seconds=20)
    full_sync: Duration = Duration(hours=6)
    retry: Duration = Duration(minutes=1)
    login_retry: Duration = Duration(minutes=15)
    event_lookback: Duration = Duration(hours=24)
    page_size: Annotated[int, Meta(ge=1, le=1000)] = 100
    labels: dict[str, str] = {}


SourceSettings: TypeAlias = FileInventory | VsphereInventory


def inventory_settings(sources: Iterable[SourceSettings]) -> InventorySettings:
    """Check what is written, and put it as the inventory takes it.

    Raises:
        InventorySettingError: what cannot be used, by the source's name. It never holds a credential.
    """
    files, vcenters = [], []
    for source in sources:
        match source:
            case FileInventory():
                files.append(StaticSettings(name=source.name, path=source.path, interval=source.interval))
            case VsphereInventory():
                vcenters.append(_vcenter(source))
            case _:
                assert_never(source)
    if len(files) + len(vcenters) > MAX_SOURCES:
        raise InventorySettingError(f"more than {MAX_SOURCES} inventories")
    return InventorySettings(files=tuple(files), vcenters=tuple(vcenters))


def _vcenter(source: VsphereInventory) -> VcenterSettings:
    password = _secret(source.name, "password", source.password_file, source.password_env)
    if password is None:
        raise InventorySettingError(f"{source.name}: set password_file or password_env")
    elsewhere = _secret(source.name, "user", source.user_file, source.user_env)
    if (source.user is None) == (elsewhere is None):
        raise InventorySettingError(f"{source.name}: set one of user, user_file and user_env")
    return VcenterSettings(
        name=source.name,
        host=source.host,
        port=source.port,
        credentials=Credentials(user=source.user or elsewhere or "", password=password),
        ca_file=source.ca_file,
        thumbprint=None if source.thumbprint is None else bytes.fromhex(source.thumbprint.replace(":", "")),
        timeout=source.timeout,
        wait=source.wait,
        full_sync=source.full_sync,
        retry=source.retry,
        login_retry=source.login_retry,
        event_lookback=source.event_lookback,
        page_size=source.page_size,
        labels=source.labels,
    )


def _secret(name: str, what: str, file: Path | None, variable: str | None) -> SecretSource | None:
    if file is not None and variable is not None:
        raise InventorySettingError(f"{name}: set {what}_file or {what}_env, not both")
    if file is not None:
        return SecretFile(file)
    return None if variable is None else SecretVariable(variable)
