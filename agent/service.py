"""Runs a `Session`: does what it asks for with the TPM, the collectors and the network, and reports back.

TPM and connection are opened when an action needs them. The TPM is let go of before every pause, so that a raw
`/dev/tpm0` stays usable for others; the connection is kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, assert_never

import msgspec
from msgspec import Struct

from agent.ak import read_key_certificates
from agent.ak_certificate import AkCertificateFile
from agent.collect import Collected, Sources
from agent.ear_file import EarFile
from agent.errors import AgentError, RefusedError, StateError, TpmError, TpmReplacedError
from agent.evidence import IMA_PCR, PcrValues, quote_with_pcrs
from agent.held import HeldTpm, Options
from agent.ratchet import Ratchet
from agent.session import (
    Activate,
    AskChallenge,
    AskDecision,
    Attest,
    Challenged,
    Done,
    Enroll,
    Enrolled,
    Event,
    Failed,
    Judged,
    Offered,
    Pending,
    Session,
    Stop,
    Wait,
    Woke,
)
from agent.state import LastVerdict, PendingEnrollment, State, StateFile
from agent.tpm import Key, Selection, Tpm
from agent.transport import Transport
from agent.userspace import certify_nvpcrs
from agent.version import VERSION
from agent.wire.codec import MSGPACK
from agent.wire.messages import (
    ActivationReply,
    ActivationRequest,
    AttestationReply,
    AttestationRequest,
    Challenge,
    ChallengeRequest,
    EnrollmentReply,
    EnrollmentRequest,
    ImaPart,
    LogPart,
    NvCertificate,
    PcrBank,
)

LONG: Final = 1024 * 1024
"""Bytes of an IMA list."""
PROOF_CONTEXT: Final = b"vtpm-attest activation v1"


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the agent reaches outside itself.

    Attributes:
        open_tpm: opens the TPM, each time it is needed.
        connect: opens the transport, fetching the pinned CA if need be.
        sources: reads logs and identity.
        store: remembers.
        say: tells a person what happens; never given a secret.
    """

    open_tpm: Callable[[], Tpm]
    connect: Callable[[], Transport]
    sources: Sources
    store: StateFile
    say: Callable[[str], None]


def activation_proof(secret: bytes, enrollment_id: str, ak_name: bytes) -> bytes:
    """HMAC-SHA256 over context, enrolment and AK Name: shows the secret was opened for this very key and request."""
    return hmac.digest(secret, PROOF_CONTEXT + enrollment_id.encode() + ak_name, "sha256")


class Agent:
    """The effects behind a session's actions."""

    def __init__(self, outside: Surroundings, options: Options) -> None:
        self._outside = outside
        self._options = options
        self._transport: Transport | None = None
        self._held = HeldTpm(outside.open_tpm, outside.store, self._notes, options)
        self._said: frozenset[str] = frozenset()
        self._ratchet = Ratchet(outside.store, lambda text: self._notes((text,)))
        self._certificate = AkCertificateFile(options.ak_certificate, lambda text: self._notes((text,)))
        self._ear = EarFile(options.ear_file, lambda text: self._notes((text,)))

    # --- resources

    def release(self) -> None:
        """Flush the keys and let go of the TPM."""
        self._held.release()

    def close(self) -> None:
        """Let go of everything."""
        self.release()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _server(self) -> Transport:
        if self._transport is None:
            self._transport = self._outside.connect()
        return self._transport

    def _notes(self, notes: tuple[str, ...]) -> None:
        """Say each remark once, not at every attestation."""
        for note in notes:
            if note not in self._said:
                self._said |= {note}
                self._outside.say(f"note: {note}")

    # --- actions

    def perform(self, action: Enroll | Activate | AskDecision | AskChallenge | Attest) -> Event:
        """Do it. Every failure the agent knows becomes an event; anything else is a bug and is raised."""
        try:
            match action:
                case Enroll():
                    return self._enroll()
                case Activate():
                    return self._activate(action.offer)
                case AskDecision():
                    return self._ask_decision()
                case AskChallenge():
                    return self._challenge(action.attester_id)
                case Attest():
                    return self._attest(action)
                case _:
                    assert_never(action)
        except AgentError as error:
            if isinstance(error, TpmError):
                self.release()  # a fresh connection next time
            return Failed(error)

    def _enroll(self) -> Event:
        server = self._server()  # first: without a verifier the TPM's work would be for nothing
        tpm, ak = self._held.tpm()
        endorsements, chosen = self._held.ek()
        keys = read_key_certificates(tpm)
        self._notes(keys.notes)
        collected = self._outside.sources.collect(agent_version=VERSION)
        request = EnrollmentRequest(
            ek_public=chosen.key.public,
            ak_public=ak.public,
            ek_certificates=endorsements.ders,
            ek_chain=list(endorsements.chain),
            ak_certificates=keys.ak_ders,
            idevid_certificates=list(keys.device),
            join_token=self._options.join_token,
            identity=collected.identity,
        )
        self._outside.say(f"enrolling at {server.server} with EK {chosen.slot}, AK {self._options.ak}")
        offer = server.post("/v1/enrollments", request, EnrollmentReply)
        self._remember(ek_slot=chosen.slot)
        return Offered(offer)

    def _activate(self, offer: EnrollmentReply) -> Event:
        tpm, ak = self._held.tpm()
        _, chosen = self._held.ek()
        secret = tpm.activate_credential(ak, chosen.key, offer.credential_blob, offer.encrypted_secret)
        pending = PendingEnrollment(
            enrollment_id=offer.enrollment_id,
            proof=activation_proof(secret, offer.enrollment_id, ak.name),
            ak_kind=self._options.ak,
            ak_generation=self._options.ak_generation,
            ak_name=ak.name.hex(),
        )
        return self._prove(pending)

    def _ask_decision(self) -> Event:
        pending = self._outside.store.load().pending
        if pending is None:  # the file was replaced under a running agent
            raise StateError("the enrolment that waits is not remembered any more", "enrol again")
        return self._prove(pending)

    def _prove(self, pending: PendingEnrollment) -> Event:
        """Send the proof; what it is for is remembered until a person has decided."""
        message = ActivationRequest(proof=pending.proof, want_ak_certificate=self._certificate.wanted)
        path = f"/v1/enrollments/{pending.enrollment_id}/activation"
        reply = self._server().post(path, message, ActivationReply)
        if reply.status == "pending":
            number = reply.enrollment_id or pending.enrollment_id
            self._remember(pending=msgspec.structs.replace(pending, enrollment_id=number, code=reply.code))
            return Pending(msgspec.structs.replace(reply, enrollment_id=number))
        self._remember(
            attester_id=reply.attester_id,
            ak_kind=pending.ak_kind,
            ak_generation=pending.ak_generation,
            ak_name=pending.ak_name,
            pending=None,
        )
        self._ratchet.forget()
        self._certificate.keep(reply.ak_certificate, reply.ak_chain)
        self._outside.say(f"enrolled as {reply.attester_id}")
        return Enrolled(reply)

    def _challenge(self, attester_id: str) -> Event:
        request = ChallengeRequest(attester_id=attester_id)
        try:
            return Challenged(self._server().post("/v1/challenges", request, Challenge))
        except RefusedError as error:
            if error.code == "identity-replaced":
                self._refuse_another_tpm()
            raise

    def _refuse_another_tpm(self) -> None:
        """Quotes of a TPM that is not the enrolled one would be refused: better to enrol it."""
        _, ak = self._held.tpm()
        enrolled = self._outside.store.load().ak_name
        if enrolled is not None and enrolled != ak.name.hex():
            self._outside.say(
                "this TPM, or the key asked of it, is not the one this machine was enrolled with"
            )
            raise TpmReplacedError("this machine was enrolled with another TPM or key", "enrol it again")

    def _attest(self, action: Attest) -> Event:
        request = self.evidence(action)
        reply = self._server().post("/v1/attestations", request, AttestationReply, self.media_type(request))
        return self.judged(reply)

    def evidence(self, action: Attest, over: bytes | None = None) -> AttestationRequest:
        """A quote over the challenge's nonce, or over what else follows from it, and all that goes with the quote."""
        over = action.challenge.nonce if over is None else over
        self._refuse_another_tpm()
        tpm, ak = self._held.tpm()
        challenge = action.challenge
        selection = {part.bank: list(part.pcrs) for part in challenge.selection}
        wants_ima = challenge.want_ima_log and any(IMA_PCR in pcrs for pcrs in selection.values())
        quoted = quote_with_pcrs(tpm, ak, over, selection, ima_list=wants_ima)
        shown = None
        if challenge.ratchet_index is not None:
            shown = self._ratchet.show(tpm, ak, challenge, over)
        collected, certificates = self._collect(tpm, ak, challenge, over)
        ima = self._ima_part(collected.boot_id, action) if wants_ima else None
        if ima is None and not quoted.agree:  # no list that tells what was quoted
            quoted = quote_with_pcrs(tpm, ak, over, selection)
        return AttestationRequest(
            attester_id=action.attester_id,
            nonce=challenge.nonce,
            attest=quoted.quote.attest,
            signature=quoted.quote.signature,
            pcrs=wire_pcrs(selection, quoted.values),
            boot_log=log_part(collected.boot_log, challenge.boot_log_sha256, whole=action.whole_log),
            ima_log=ima,
            identity=collected.identity,
            boot_id=collected.boot_id,
            kernel_command_line=collected.kernel_command_line,
            ratchet=shown,
            userspace_log=log_part(
                collected.userspace_log, challenge.userspace_log_sha256, whole=action.whole_log
            ),
            nvpcrs=certificates,
            want_ear=self._options.want_ear or self._ear.wanted,
            ear_audience=self._options.ear_audience,
            want_ak_certificate=self._certificate.wanted,
        )

    def media_type(self, request: AttestationRequest) -> str:
        """What evidence is sent as: a long list as it is, whatever else is spoken.

        Base64 would cost both sides more than all the rest.
        """
        ima = request.ima_log
        return MSGPACK if ima is not None and len(ima.content) > LONG else self._options.media_type

    def judged(self, reply: AttestationReply) -> Judged:
        """Keep what a verdict brought."""
        self._certificate.keep(reply.ak_certificate, reply.ak_chain)
        self._ear.keep(reply.ear)
        verdict = reply.verdict
        self._remember(
            last_verdict=LastVerdict(
                status=verdict.status,
                sequence=verdict.sequence,
                judged_at=verdict.judged_at,
                valid_until=verdict.valid_until,
            )
        )
        return Judged(reply)

    def _ima_part(self, boot_id: str | None, action: Attest) -> ImaPart | None:
        """The IMA list from where the verifier knows it, if it knows this boot's. Read after the quote was taken."""
        challenge = action.challenge
        known = boot_id is not None and boot_id == challenge.ima_boot and not action.whole_log
        found = self._outside.sources.ima_list(challenge.ima_offset if known else 0)
        if found.note is not None:
            self._notes((found.note,))
        return (
            None if found.content is None else ImaPart(content=memoryview(found.content), offset=found.offset)
        )

    def _collect(
        self, tpm: Tpm, ak: Key, challenge: Challenge, over: bytes
    ) -> tuple[Collected, list[NvCertificate]]:
        """What this boot left behind, and the NvPCRs it names; their log is read after they are certified."""
        collected = self._outside.sources.collect(agent_version=VERSION)
        self._notes(collected.notes)
        if not challenge.want_userspace_log or collected.userspace_log is None:
            return msgspec.structs.replace(collected, userspace_log=None), []
        certificates = certify_nvpcrs(
            tpm, ak, collected.userspace_log, over, lambda text: self._notes((text,))
        )
        if certificates:
            collected = self._outside.sources.collect(agent_version=VERSION)
        return collected, certificates

    def _remember(self, **changes: object) -> State:
        state = msgspec.structs.replace(self._outside.store.load(), **changes)
        self._outside.store.save(state)
        return state


def wire_pcrs(selection: Selection, values: PcrValues) -> list[PcrBank]:
    """PCR values in the order they were quoted."""
    return [
        PcrBank(bank=bank, values={str(index): values[bank][index] for index in sorted(values[bank])})
        for bank in selection
    ]


def log_part(log: bytes | None, held: bytes | None, *, whole: bool) -> LogPart | None:
    """A log by digest if the verifier says it holds exactly these bytes, else whole."""
    if log is None:
        return None
    digest = hashlib.sha256(log).digest()
    if not whole and held == digest:
        return LogPart(sha256=digest)
    return LogPart(content=log)


def run(
    session: Session, agent: Agent, pause: Callable[[Wait], None], judged: Callable[[AttestationReply], None]
) -> Done | Stop:
    """Drive `session` until it is done or stops. `pause` waits; `judged` sees every verdict."""
    while True:
        action = session.next_action()
        match action:
            case Done() | Stop():
                agent.close()
                return action
            case Wait():
                agent.release()
                pause(action)
                session.handle(Woke())
            case Enroll() | Activate() | AskDecision() | AskChallenge() | Attest():
                event = agent.perform(action)
                if isinstance(event, Judged):
                    judged(event.reply)
                session.handle(event)
            case _:
                assert_never(action)
