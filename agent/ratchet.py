"""The ratchet: an NV index of the TPM that only grows, by a value that comes with every challenge.

The index is moved on right before it is shown. So it never is ahead of what the verifier has seen but by the one step
of an attestation that was lost on its way, and a copy of this machine, or an older state of it, shows a content that
the TPM has left behind (docs/adr/0008-ratchet.md). Crash safety needs no repair here: a value is extended only if the
index holds what it was made for; where it does not, the content is shown as it is, with the step that led to it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from agent.errors import AgentError, TpmAuthError, TpmError
from agent.files import lock, open_private
from agent.state import RatchetMemory, RatchetState, StateFile, as_folder
from agent.tpm import Key, Tpm
from agent.wire.messages import Challenge, RatchetProof, RatchetStep

AUTHWRITE: Final = 1 << 2
NT_EXTEND: Final = 4 << 4
OWNERREAD: Final = 1 << 17
AUTHREAD: Final = 1 << 18
NO_DA: Final = 1 << 25
WRITTEN: Final = 1 << 29
ATTRIBUTES: Final = AUTHWRITE | NT_EXTEND | OWNERREAD | AUTHREAD | NO_DA
"""TPMA_NV (TPM 2.0 Part 2, section 13.4). The verifier expects exactly these: they are part of the index's Name."""
SIZE: Final = 32
OWNER_INDICES: Final = range(0x01800000, 0x01C00000)
"""Whatever a verifier asks for, no index of the TPM's maker or of the platform is touched."""
_LOCK: Final = "ratchet.lock"
_REMEMBERED: Final = 2
"""The step that led to the content, and the one after it, whose extension a crash may have prevented."""


class Ratchet:
    """Keeps the index on behalf of one state folder."""

    def __init__(self, store: StateFile, note: Callable[[str], None]) -> None:
        self._store = store
        self._note = note

    def show(self, tpm: Tpm, ak: Key, challenge: Challenge, over: bytes) -> RatchetProof | None:
        """The index's content, moved on and certified over what is quoted; None with a note where this TPM keeps none.

        Raises:
            TpmError: a passing trouble; the attestation shall be tried again rather than be made without.
        """
        index = challenge.ratchet_index
        if index is None:
            return None
        try:
            with self._locked():
                if not self._ready(tpm, index):
                    return None
                if challenge.ratchet is not None:
                    self._move_on(tpm, index, challenge.ratchet, challenge.nonce)
                return self._certified(tpm, ak, index, over)
        except TpmError as error:
            if error.transient:
                raise
            self._note(f"no ratchet is shown: {error.message}")
            return None

    def show_as_it_is(self, tpm: Tpm, ak: Key, nonce: bytes) -> RatchetProof | None:
        """The index's content certified over a nonce of somebody else's, and not moved on: nobody handed out a value.

        None, with a note where there should be one, without an index that was shown before.

        Raises:
            TpmError: a passing trouble.
        """
        state = self._store.load().ratchet
        if state is None:
            return None
        try:
            with self._locked():
                attributes = tpm.nv_attributes(state.index)
                if attributes is None or attributes != ATTRIBUTES | WRITTEN:
                    self._note(
                        f"no ratchet is shown: NV index {state.index:#010x} is gone, or something else"
                    )
                    return None
                return self._certified(tpm, ak, state.index, nonce)
        except TpmError as error:
            if error.transient:
                raise
            self._note(f"no ratchet is shown: {error.message}")
            return None

    def _certified(self, tpm: Tpm, ak: Key, index: int, nonce: bytes) -> RatchetProof:
        certified = tpm.nv_certify(ak, index, SIZE, nonce)
        step = self._remembered(index, certified.attest[-SIZE:])
        return RatchetProof(
            attest=certified.attest,
            signature=certified.signature,
            step=None if step is None else step.step,
            base=None if step is None else step.base,
            nonce=None if step is None else step.nonce,
        )

    def _move_on(self, tpm: Tpm, index: int, step: RatchetStep, nonce: bytes) -> None:
        """Extend the value if the index holds what it is for.

        It does not when an earlier attempt has extended another already. A failure is a note: evidence that shows the
        content of before is good once or twice, and the next challenge brings another value.
        """
        try:
            if tpm.nv_read(index) != step.base:
                return
            self._remember(index, step, nonce)
            tpm.nv_extend(index, step.value)
        except AgentError as error:
            self._note(f"the ratchet was not moved on: {error.message}")

    def forget(self) -> None:
        """After an enrolment: an index that is gone may be made anew."""
        state = self._store.load()
        if state.ratchet is not None:
            self._store.save(msgspec.structs.replace(state, ratchet=None))

    def _ready(self, tpm: Tpm, index: int) -> bool:
        """Make sure that the index exists and holds something."""
        if index not in OWNER_INDICES:
            self._note(f"no ratchet: NV index {index:#010x} is not one of the owner's")
            return False
        attributes = tpm.nv_attributes(index)
        if attributes is None:
            if not self._define(tpm, index):
                return False
            attributes = ATTRIBUTES
        if attributes & ~WRITTEN != ATTRIBUTES:
            self._note(f"no ratchet: NV index {index:#010x} exists and is something else")
            return False
        if not self._known(index):
            self._save(RatchetState(index=index))  # so that it is missed if it goes
        if not attributes & WRITTEN:
            # An index can be certified only once it holds something. What, does not matter, but that nobody knows it.
            tpm.nv_extend(index, os.urandom(SIZE))
        return True

    def _known(self, index: int) -> bool:
        memory = self._store.load().ratchet
        return memory is not None and memory.index == index

    def _define(self, tpm: Tpm, index: int) -> bool:
        if self._known(index):
            self._note(f"the ratchet is gone: NV index {index:#010x} was deleted, or the TPM was cleared")
            return False
        try:
            tpm.nv_define_extend(index, ATTRIBUTES, SIZE)
        except TpmAuthError:
            self._note("no ratchet: the owner hierarchy has a password, so no NV index can be made")
            return False
        except TpmError as error:
            if error.transient:
                raise
            self._note(f"no ratchet: {error.message}")
            return False
        return True

    # --- what is remembered

    def _remembered(self, index: int, content: bytes) -> RatchetMemory | None:
        state = self._store.load().ratchet
        if state is None or state.index != index:
            return None
        return next((step for step in state.steps if step.content == content), None)

    def _remember(self, index: int, step: RatchetStep, nonce: bytes) -> None:
        """Before the extension: afterwards a crash would leave a content whose past nobody knows."""
        state = self._store.load().ratchet
        before = state.steps if state is not None and state.index == index else []
        known = [one for one in before if one.content == step.base]
        content = hashlib.sha256(step.base + step.value).digest()
        following = RatchetMemory(step=step.step, nonce=nonce, base=step.base, content=content)
        self._save(RatchetState(index=index, steps=[*known, following][-_REMEMBERED:]))

    def _save(self, ratchet: RatchetState) -> None:
        self._store.save(msgspec.structs.replace(self._store.load(), ratchet=ratchet))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Between looking at the index and extending it, no other process of this agent may."""
        path: Path = self._store.path.with_name(_LOCK)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            as_folder(descriptor, path.parent)
            lock(descriptor)
            yield
        finally:
            os.close(descriptor)
