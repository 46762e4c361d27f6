"""What can be wrong with an inventory. Never a verdict: a source that fails makes its answers stale."""

from __future__ import annotations

from pathlib import Path

from verifier.errors import VerifierFault


class InventoryError(VerifierFault):
    """A source cannot be used as it is. The text names source and place, and never holds a credential."""


class InventorySettingError(InventoryError):
    """The configuration of a source contradicts itself, or names a secret that is not there."""


class InventoryFileError(InventoryError):
    """A static inventory that must not be used, because part of it cannot be understood.

    Attributes:
        path: the file.
        line: 1-based line where the machine or the mistake begins, or None when it is the whole file.
        field: column or member, or empty.
        detail: what is wrong, naming the value.
    """

    def __init__(self, path: Path, line: int | None, field: str, detail: str) -> None:
        self.path = path
        self.line = line
        self.field = field
        self.detail = detail
        place = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {field}: {detail}" if field else f"{place}: {detail}")


class VcenterError(InventoryError):
    """A vCenter that does not answer as it should. `vcenter` is the source's configured name."""

    def __init__(self, vcenter: str, detail: str) -> None:
        self.vcenter = vcenter
        self.detail = detail
        super().__init__(f"vCenter {vcenter}: {detail}")


class VcenterUnreachableError(VcenterError):
    """No connection, or it broke."""


class VcenterTimeoutError(VcenterError):
    """It was too slow to answer."""


class VcenterUntrustedError(VcenterError):
    """Its certificate does not chain to the configured CA, or is not for this host. Nothing was sent to it."""


class VcenterLoginError(VcenterError):
    """It refuses the user or the password."""


class VcenterSessionError(VcenterError):
    """The session, or an object of it, is gone: log in again."""


class VcenterProtocolError(VcenterError):
    """It answers with a fault that is not expected here, or with what is no vSphere answer."""
