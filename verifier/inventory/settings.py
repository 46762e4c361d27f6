"""What an operator configures of inventories. Frozen, checked when made, free of secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias

from verifier.inventory.errors import InventorySettingError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_MAX_SECRET: Final = 4096
_MAX_PORT: Final = 65535
_SHA256: Final = 32


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret in a file, read at every login, so that it can be rotated. One line break at its end is dropped."""

    path: Path

    def read(self, environ: Mapping[str, str]) -> str:  # noqa: ARG002 - the same call as SecretVariable's
        """The secret.

        Raises:
            InventorySettingError: the file cannot be read, is empty, too long, or not UTF-8.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_SECRET + 1)
            text = content.decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise InventorySettingError(f"cannot read {self}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InventorySettingError(f"{self} is not UTF-8") from None
        return _usable(text, self)

    def __str__(self) -> str:
        return f"file {self.path}"


@dataclass(frozen=True, slots=True)
class SecretVariable:
    """A secret in an environment variable."""

    name: str

    def read(self, environ: Mapping[str, str]) -> str:
        """The secret.

        Raises:
            InventorySettingError: the variable is not set, empty or too long.
        """
        return _usable(environ.get(self.name, ""), self)

    def __str__(self) -> str:
        return f"environment variable {self.name}"


SecretSource: TypeAlias = SecretFile | SecretVariable


def _usable(secret: str, source: SecretSource) -> str:
    if not secret:
        raise InventorySettingError(f"{source} is empty or not set")
    if len(secret) > _MAX_SECRET:
        raise InventorySettingError(f"{source} holds more than {_MAX_SECRET} characters")
    return secret


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password, for as long as one login takes."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where user and password come from. A user name may be written out; a password may not."""

    user: str | SecretSource
    password: SecretSource

    def read(self, environ: Mapping[str, str]) -> Login:
        """User and password as they are now.

        Raises:
            InventorySettingError: one of them is not there.
        """
        user = self.user if isinstance(self.user, str) else self.user.read(environ)
        return Login(user, self.password.read(environ))


@dataclass(frozen=True, slots=True, kw_only=True)
class VcenterSettings:
    """One vCenter, or a host that speaks its API.

    Attributes:
        name: of this source, for keys, findings and logs.
        host: DNS name or address, as its certificate has it.
        ca_file: PEM of the CAs that may vouch for it, and no others; None: those of the operating system. There
            is no way to leave its certificate unchecked.
        thumbprint: SHA-256 of its certificate, instead of any CA; it has to be changed when the certificate is.
        timeout: longest a single answer may take.
        wait: how long vCenter may hold a request for changes: the delay with which events are seen.
        full_sync: every machine is read again this often, changed or not.
        retry: longest pause between attempts to reach it.
        login_retry: pause after a refused login, so that the account is not locked; a changed password is
            tried at once.
        event_lookback: how far back events are read at the first connection.
        page_size: machines per answer.
        labels: given to every machine of this source.
    """

    name: str
    host: str
    credentials: Credentials
    port: int = 443
    ca_file: Path | None = None
    thumbprint: bytes | None = None
    timeout: timedelta = timedelta(seconds=60)
    wait: timedelta = timedelta(seconds=20)
    full_sync: timedelta = timedelta(hours=6)
    retry: timedelta = timedelta(minutes=1)
    login_retry: timedelta = timedelta(minutes=15)
    event_lookback: timedelta = timedelta(hours=24)
    page_size: int = 100
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if _HOST.fullmatch(self.host) is None:
            raise InventorySettingError(f"{self.name}: host {self.host!r} is no host name or address")
        if not 0 < self.port <= _MAX_PORT:
            raise InventorySettingError(f"{self.name}: port {self.port} is none")
        if self.thumbprint is not None and self.ca_file is not None:
            raise InventorySettingError(f"{self.name}: either ca_file or thumbprint, not both")
        if self.thumbprint is not None and len(self.thumbprint) != _SHA256:
            raise InventorySettingError(
                f"{self.name}: thumbprint is not a SHA-256, which has {_SHA256} bytes"
            )
        if self.page_size < 1:
            raise InventorySettingError(f"{self.name}: page_size must be at least 1")
        durations = {
            "timeout": self.timeout,
            "wait": self.wait,
            "full_sync": self.full_sync,
            "retry": self.retry,
            "login_retry": self.login_retry,
        }
        for name, value in durations.items():
            if value <= timedelta(0):
                raise InventorySettingError(f"{self.name}: {name} must be longer than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSettings:
    """A file of machines, `.csv` or `.json`. It is looked at again every `interval` and read when it changed."""

    name: str
    path: Path
    interval: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.path.suffix.lower() not in {".csv", ".json"}:
            raise InventorySettingError(f"{self.name}: {self.path} must end in .csv or .json")
        if self.interval <= timedelta(0):
            raise InventorySettingError(f"{self.name}: interval must be longer than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class InventorySettings:
    """All sources, each under a name of its own."""

    vcenters: tuple[VcenterSettings, ...] = ()
    files: tuple[StaticSettings, ...] = ()

    def __post_init__(self) -> None:
        names = [*(one.name for one in self.vcenters), *(one.name for one in self.files)]
        for name in names:
            if names.count(name) > 1:
                raise InventorySettingError(f"two inventories are called {name!r}")


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InventorySettingError(
            f"{name!r} is no name for an inventory: up to 64 letters, digits, '.', '_' and '-'"
        )
