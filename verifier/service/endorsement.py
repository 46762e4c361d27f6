"""On whose word a machine's keys are taken to be a TPM's: each enrolment method held against what it brought. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never

from verifier.appraisal.correlate import Correlation, Outcome
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.device_keys import EndorsedKey, KeyKind, validate_key_certificate
from verifier.crypto.ek import ValidatedEk, validate_ek
from verifier.crypto.keys import fingerprint
from verifier.crypto.nv_content import unwrap
from verifier.errors import EvidenceError, MalformedInputError, RefusedError
from verifier.ports_trust import AnchorPurpose
from verifier.reasons import Reason
from verifier.service.anchor_sets import TrustedAnchors
from verifier.service.device_identity import DeviceIdentity, bind_devices
from verifier.service.methods import Method, Requirements
from verifier.tcg.public import Public


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a machine brought. Nothing of it is believed but `token` and `inventory`, which were looked up.

    Attributes:
        token: it has a join token that would be accepted.
        inventory: what the inventories say of this EK; None where none was asked.
        issuers: CA certificates that may help, from whatever source; never trusted by themselves.
    """

    ek: Public
    ak: Public
    ek_certificates: Sequence[bytes] = ()
    ak_certificates: Sequence[bytes] = ()
    device_certificates: Sequence[bytes] = ()
    issuers: Sequence[bytes] = ()
    token: bool = False
    inventory: Correlation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """How the keys came to be trusted, and what is shown of it.

    Attributes:
        method: the strongest method that held.
        certificate: the EK certificate, where one was validated.
        issuer: of that certificate.
        profile: what was found, JSON-ready; see `docs/api.md`.
    """

    method: Method
    certificate: bytes | None
    issuer: str | None
    profile: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Every requirement is met by `methods`, in their order; with `waiting`, an operator's approval is still out."""

    methods: tuple[Method, ...]
    endorsement: Endorsement
    waiting: bool


def admit(
    candidate: Candidate, requirements: Requirements, trusted: TrustedAnchors, now: datetime
) -> Admission:
    """Hold every requirement against what the machine brought.

    Proves that for each requirement one alternative holds at `now`: `certificate` that an anchor for EKs vouches
    for exactly this EK, `ak-certificate` and `device-certificate` that an anchor for that purpose vouches for
    exactly this AK. Does not prove that the machine holds either key, which activation and quotes do; and
    `tofu` proves nothing at all, which is why an operator has to write that word.

    Raises:
        RefusedError: a requirement nothing met, by the most telling of its alternatives' reasons; or a
            certificate of one of these keys that was revoked, whatever else holds.
    """
    trial = _Trial(candidate, trusted, now)
    met = tuple(_first_that_holds(trial, alternatives) for alternatives in requirements.every)
    trial.refuse_revoked()
    strongest = next(method for method in Method if method in met)
    return Admission(
        methods=met, endorsement=trial.endorsement(strongest, met), waiting=Method.APPROVE in met
    )


def _first_that_holds(trial: _Trial, alternatives: tuple[Method, ...]) -> Method:
    problems = []
    for method in alternatives:
        problem = trial.problem(method)
        if problem is None:
            return method
        problems.append(problem)
    told = [problem for problem in problems if problem.reason not in _NOTHING_BROUGHT]
    raise (told or problems)[0]


_NOTHING_BROUGHT: Final = frozenset(
    {Reason.EK_CERTIFICATE_MISSING, Reason.KEY_CERTIFICATE_MISSING, Reason.JOIN_TOKEN_REQUIRED}
)


@dataclass(slots=True)
class _Trial:
    """One candidate on trial; each method is tried at most once."""

    candidate: Candidate
    trusted: TrustedAnchors
    now: datetime
    ek: ValidatedEk | None = None
    ak: EndorsedKey | None = None
    _problems: dict[Method, EvidenceError | None] = field(default_factory=dict)

    def problem(self, method: Method) -> EvidenceError | None:
        """Why the method does not hold, or None."""
        if method not in self._problems:
            self._problems[method] = self._try(method)
        return self._problems[method]

    def refuse_revoked(self) -> None:
        """A revoked certificate of a key at hand is no reason to look for another method."""
        for problem in self._problems.values():
            if problem is not None and problem.reason is Reason.EK_CERTIFICATE_REVOKED:
                raise problem

    def _try(self, method: Method) -> EvidenceError | None:
        match method:
            case Method.CERTIFICATE:
                return self._try_ek()
            case Method.AK_CERTIFICATE:
                return self._try_ak(KeyKind.AK, AnchorPurpose.AK, self.candidate.ak_certificates)
            case Method.DEVICE_CERTIFICATE:
                return self._try_ak(KeyKind.IAK, AnchorPurpose.DEVICE, self.candidate.device_certificates)
            case Method.INVENTORY:
                return _inventory_problem(self.candidate.inventory)
            case Method.TOKEN:
                return None if self.candidate.token else _no_token()
            case Method.APPROVE | Method.TOFU:
                return None
            case _:
                assert_never(method)

    def _try_ek(self) -> EvidenceError | None:
        """A certificate of this very key decides; one for another key is told of only where there is no better."""
        problem: EvidenceError = RefusedError(
            Reason.EK_CERTIFICATE_MISSING, "the TPM offers no EK certificate, and enrolment asks for one"
        )
        for number, certificate in enumerate(self.candidate.ek_certificates):
            outcome = self._validate_ek(certificate)
            if isinstance(outcome, ValidatedEk):
                self.ek = outcome
                return None
            if number == 0 or problem.reason is Reason.EK_CERTIFICATE_KEY_MISMATCH:
                problem = outcome
        return problem

    def _validate_ek(self, certificate: bytes) -> ValidatedEk | EvidenceError:
        try:
            return validate_ek(
                certificate,
                intermediates=self.candidate.issuers,
                anchors=self.trusted.anchors(AnchorPurpose.EK),
                crls=self.trusted.crls,
                ek_public=self.candidate.ek,
                now=self.now,
            )
        except EvidenceError as error:
            return _of_certificate(error)

    def _try_ak(
        self, kind: KeyKind, purpose: AnchorPurpose, certificates: Sequence[bytes]
    ) -> EvidenceError | None:
        problem: EvidenceError = RefusedError(
            Reason.KEY_CERTIFICATE_MISSING, f"no certificate of this AK as an {kind.name} was sent"
        )
        wanted = fingerprint(self.candidate.ak)
        for certificate in certificates:
            try:
                if parse_certificate(unwrap(certificate).der).key_fingerprint != wanted:
                    continue  # of another key of this machine, or of another machine: it speaks for nothing here
                self.ak = validate_key_certificate(
                    certificate,
                    kind=kind,
                    intermediates=self.candidate.issuers,
                    anchors=self.trusted.anchors(purpose),
                    crls=self.trusted.crls,
                    public=self.candidate.ak,
                    now=self.now,
                )
            except EvidenceError as error:
                problem = _of_certificate(error)
            else:
                return None
        return problem

    def endorsement(self, strongest: Method, met: tuple[Method, ...]) -> Endorsement:
        """What is recorded and shown. What is offered beside what was asked for is recorded where it holds."""
        for method, purpose in (
            (Method.AK_CERTIFICATE, AnchorPurpose.AK),
            (Method.DEVICE_CERTIFICATE, AnchorPurpose.DEVICE),
        ):
            if self.ak is None and len(self.trusted.anchors(purpose)):
                self.problem(method)
                self.refuse_revoked()
        profile: dict[str, object] = {} if self.ek is None else _ek_profile(self.ek)
        listed = profile.get("notes")
        notes = list(listed) if isinstance(listed, list) else []
        if strongest is Method.TOFU:
            notes.append(f"trusted on first use: {self._why_no_certificate()}")
        if self.candidate.inventory is not None:
            profile["inventory"] = _inventory_profile(self.candidate.inventory)
        if self.ak is not None:
            profile["ak"] = _key_profile(self.ak)
        devices, remarks = self._devices()
        if devices:
            profile["devices"] = [device.as_mapping() for device in devices]
        profile |= {"methods": [method.value for method in met], "notes": [*notes, *remarks]}
        return Endorsement(
            method=strongest,
            certificate=None if self.ek is None else self.ek.certificate,
            issuer=None if self.ek is None else self.ek.issuer,
            profile=profile,
        )

    def _devices(self) -> tuple[tuple[DeviceIdentity, ...], tuple[str, ...]]:
        return bind_devices(
            self.candidate.device_certificates,
            issuers=self.candidate.issuers,
            anchors=self.trusted.anchors(AnchorPurpose.DEVICE),
            crls=self.trusted.crls,
            ak=self.ak,
            ek_certificate=None if self.ek is None else self.ek.certificate,
            now=self.now,
        )

    def _why_no_certificate(self) -> str:
        problem = self._problems.get(Method.CERTIFICATE)
        return "no certificate is asked for" if problem is None else problem.detail


def _ek_profile(ek: ValidatedEk) -> dict[str, object]:
    return {
        **ek.profile.as_mapping(),
        "key_matches": True,  # `validate_ek` was given the TPM's EK and refuses another key's certificate
        "revocation": ek.revocation.value,
        "anchor_sha256": ek.anchor.hex(),
        "expires_at": ek.expires_at.isoformat(),
    }


def _key_profile(ak: EndorsedKey) -> dict[str, object]:
    return {
        **ak.profile.as_mapping(),
        "kind": ak.kind.value,
        "issuer": ak.issuer,
        "anchor_sha256": ak.anchor.hex(),
        "expires_at": ak.expires_at.isoformat(),
    }


def _of_certificate(error: EvidenceError) -> EvidenceError:
    if isinstance(error, MalformedInputError):
        return MalformedInputError(
            error.structure, error.offset or 0, error.detail, reason=Reason.EK_CERTIFICATE_MALFORMED
        )
    return error


def _inventory_problem(found: Correlation | None) -> EvidenceError | None:
    if found is None:
        return RefusedError(Reason.INVENTORY_DISAGREES, "there is no inventory to ask")
    if found.outcome in (Outcome.MATCH, Outcome.EK_ONLY):
        return None
    return RefusedError(Reason.INVENTORY_DISAGREES, found.explanation)


def _inventory_profile(found: Correlation) -> dict[str, object]:
    machine = None if found.machine is None else str(found.machine.ref)
    return {"outcome": found.outcome.value, "machine": machine, "explanation": found.explanation}


def _no_token() -> RefusedError:
    return RefusedError(Reason.JOIN_TOKEN_REQUIRED, "enrolment here needs a join token")
