"""The TPM and the keys in it, from when an action first needs them until they are let go of before a pause."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from agent import ek as ek_module
from agent.ak import opened_ak
from agent.state import StateFile
from agent.templates import AkKind
from agent.tpm import Key, Tpm
from agent.wire.codec import MSGPACK


class Options(Struct, frozen=True, kw_only=True):
    """How this agent enrols and attests."""

    join_token: str | None = None
    ek: str = ek_module.AUTO
    ak: str = AkKind.ECC_P256.value
    ak_generation: int = 0
    ak_certificate: Path | None = None
    media_type: str = MSGPACK
    want_ear: bool = False
    ear_audience: str | None = None
    ear_file: Path | None = None


class HeldTpm:
    """Opens the TPM, its AK and its EK once each, and lets go of all at once."""

    def __init__(
        self,
        open_tpm: Callable[[], Tpm],
        store: StateFile,
        notes: Callable[[tuple[str, ...]], None],
        options: Options,
    ) -> None:
        self._open_tpm, self._store, self._notes, self._options = open_tpm, store, notes, options
        self._stack: ExitStack | None = None
        self._tpm: tuple[Tpm, Key] | None = None
        self._ek: tuple[ek_module.Endorsements, ek_module.ChosenEk] | None = None

    def release(self) -> None:
        """Flush the keys and let go of the TPM."""
        stack, self._stack = self._stack, None
        self._tpm = self._ek = None
        if stack is not None:
            stack.close()

    def tpm(self) -> tuple[Tpm, Key]:
        """The TPM and its AK."""
        if self._tpm is None:
            with ExitStack() as stack:
                tpm = self._open_tpm()
                stack.callback(tpm.close)
                ak = stack.enter_context(opened_ak(tpm, self._options.ak, self._options.ak_generation))
                self._stack = stack.pop_all()
            self._tpm = tpm, ak
        return self._tpm

    def ek(self) -> tuple[ek_module.Endorsements, ek_module.ChosenEk]:
        """The EK and what endorses it; the same one every time, so that activation can follow a pause."""
        tpm, _ = self.tpm()
        if self._ek is None:
            endorsements = ek_module.read_endorsements(tpm)
            remembered = self._store.load().ek_slot
            chosen = _present(self._stack).enter_context(
                ek_module.chosen_ek(tpm, endorsements, self._options.ek, remembered)
            )
            self._notes(chosen.notes)
            self._ek = (endorsements, chosen)
        return self._ek


def _present(stack: ExitStack | None) -> ExitStack:
    if stack is None:
        raise LookupError("no TPM is open")
    return stack
