"""`attest-agent unseal`: a secret the verifier gives to this machine while it is affirming, to stdout or a file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agent import release
from agent.commands import Clockwork, Output, options_of, pauser, surroundings
from agent.config import Settings
from agent.errors import Exit, SourceError
from agent.files import leave_no_core, open_private
from agent.held import Options
from agent.service import Agent, Surroundings, run
from agent.session import Attest, Event, Goal, Session, Stop
from agent.state import StateFile
from agent.wire.messages import AttestationReply
from agent.wire.secrets import ReleaseReply, ReleaseRequest

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Unsealer(Agent):
    """An agent that asks for a secret with its evidence: everything else is as it attests."""

    def __init__(self, outside: Surroundings, options: Options, name: str) -> None:
        super().__init__(outside, options)
        self._name = name
        self.secret: bytearray | None = None
        self.revision = 0

    def _attest(self, action: Attest) -> Event:
        """Evidence that says what is asked for and to whom it shall be answered, in place of an attestation."""
        # The TPM library comes first: it would want a newer `cryptography` than Debian's, if that were loaded already.
        tpm, ak = self._held.tpm()
        asking = release.begin(self._name)
        over = asking.over(action.challenge.nonce)
        evidence = self.evidence(action, over)
        request = ReleaseRequest(evidence=evidence, reply_key=asking.reply_key)
        path = f"/v1/secrets/{quote(self._name, safe='')}/release"
        reply = self._server().post(path, request, ReleaseReply, self.media_type(evidence))
        _, chosen = self._held.ek()
        half = tpm.activate_credential(ak, chosen.key, reply.credential_blob, reply.encrypted_secret)
        self.secret = release.opened(asking, over, reply, half)
        self.revision = reply.revision
        return self.judged(reply.attestation)


def unseal(
    settings: Settings, name: str, out: Path | None, *, patience: float, output: Output, clockwork: Clockwork
) -> int:
    """Ask for the secret, and write it: raw on stdout, or into a file of mode 0600. Nothing else holds it.

    Raises:
        AgentError: as the exit codes say.
    """
    leave_no_core()  # it would be in there
    store = StateFile(settings.state_dir)
    state = store.load()
    session = Session(
        goal=Goal.VERDICT,
        attester_id=state.attester_id,
        may_reenroll=settings.token is not None,
        patience=patience,
        random=clockwork.random,
        pending=state.pending is not None,
    )
    agent = Unsealer(surroundings(settings, store, output), options_of(settings, state), name)
    try:
        outcome = run(session, agent, pauser(output, clockwork), _unseen)
        if isinstance(outcome, Stop):
            raise outcome.error
        if agent.secret is None:
            raise LookupError("a session that wanted a secret is done without one")
        _hand_out(agent.secret, agent.revision, name, out, output)
    finally:
        if agent.secret is not None:
            release.clear(agent.secret)
    return Exit.AFFIRMING


def _unseen(_reply: AttestationReply) -> None:
    """The verdict is affirming, or there would be no secret."""


def _hand_out(secret: bytearray, revision: int, name: str, out: Path | None, output: Output) -> None:
    if out is not None:
        write_private(out, secret)
        output.say(f"secret {name}, revision {revision}, is in {out}")
    if output.as_json:
        content = {} if out is not None else {"content": bytes(secret)}
        output.result({"name": name, "revision": revision, "size": len(secret), **content}, "")
    elif out is None:
        _write_all(sys.stdout.fileno(), secret, "stdout")


def write_private(path: Path, secret: bytearray) -> None:
    """A new file of mode 0600 in the place of what was there, which is neither followed nor written into.

    There is no temporary file, which a crash could leave behind; what cannot be written whole is removed.

    Raises:
        SourceError: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        descriptor = open_private(path, _NEW)
    except OSError as error:
        raise _unwritable(str(path), error) from error
    try:
        _write_all(descriptor, secret, str(path))
    except SourceError:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, secret: bytearray, where: str) -> None:
    """Straight to the descriptor: a buffered stream would keep a copy."""
    with memoryview(secret) as rest:
        written = 0
        try:
            while written < len(rest):
                written += os.write(descriptor, rest[written:])
        except OSError as error:
            raise _unwritable(where, error) from error


def _unwritable(where: str, error: OSError) -> SourceError:
    return SourceError(
        f"{where} cannot be written: {error.strerror}",
        "name a file with --out in a folder of this user's, such as one below /run",
    )
