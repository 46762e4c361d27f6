"""AK certificates: whom one is issued, and for how long, so that relying parties can check quotes themselves."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from verifier.crypto.keys import load_key
from verifier.errors import RefusedError
from verifier.findings import Status
from verifier.ports import AttesterRecord, Clock, Lifecycle
from verifier.ports_trust import AkCertificateRequest, AkSigner, IssuedCertificate
from verifier.reasons import Reason, Tier
from verifier.service.model import AttesterView, VerdictView
from verifier.service.recorder import Recorder

_KEPT: Final = 4096
_BACKDATE: Final = timedelta(minutes=1)
"""A relying party's clock may be a little behind."""
_COPIED: Final = frozenset({Reason.CLONE_SUSPECTED.value, Reason.CLONE_PROVEN.value})


class Issue(enum.StrEnum):
    """To whom certificates are issued."""

    OFF = "off"
    ENROLLED = "enrolled"
    AFFIRMING = "affirming"


@dataclass(frozen=True, slots=True, kw_only=True)
class AkCertificateRules:
    """To whom, and for how long from the verdict (or, for `enrolled`, from now) on."""

    issue: Issue
    lifetime: timedelta


class AkCertificates:
    """Issues certificates, the same one for the same verdict: asking again costs no signature and extends nothing.

    Args:
        base_url: public URL; a certificate names its attester by `<base_url>/v1/attesters/<id>`.
    """

    def __init__(
        self, signer: AkSigner, rules: AkCertificateRules, recorder: Recorder, clock: Clock, base_url: str
    ) -> None:
        self._signer = signer
        self._rules = rules
        self._recorder = recorder
        self._clock = clock
        self._base_url = base_url
        self._kept: OrderedDict[tuple[str, bytes, int], IssuedCertificate] = OrderedDict()

    def authorities(self) -> tuple[bytes, ...]:
        """DER of the CA certificates above all certificates that may be alive, the root last."""
        return self._signer.authorities()

    def issue(self, attester: AttesterRecord, verdict: VerdictView | None) -> IssuedCertificate:
        """The attester's certificate, as it stands now.

        Raises:
            RefusedError: `ak-certificate-withheld`: the settings do not allow one, with the reason.
        """
        now = self._clock.now()
        since = self._since(attester, verdict, now)
        key = (attester.id, attester.ak_name, 0 if verdict is None else verdict.record.sequence)
        kept = self._kept.get(key)
        if kept is not None and self._lasts(kept, now):
            return kept
        issued = self._signer.issue(
            AkCertificateRequest(
                key=load_key(attester.ak_public).key,
                uri=f"{self._base_url}/v1/attesters/{attester.id}",
                **_named(attester.ek_profile),
                not_before=since - _BACKDATE,
                not_after=since + self._rules.lifetime,
            )
        )
        self._recorder.ak_certificate_issued(attester, issued.serial, issued.not_after)
        self._kept[key] = issued
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return issued

    def offer(self, attester: AttesterRecord, verdict: VerdictView | None) -> IssuedCertificate | None:
        """As `issue`, but None where one is withheld: for replies in which it is only an addition."""
        try:
            return self.issue(attester, verdict)
        except RefusedError:
            return None

    def of(self, view: AttesterView) -> IssuedCertificate:
        """As `issue`, for an attester as the fleet view has it."""
        return self.issue(view.attester, view.verdict)

    def _since(self, attester: AttesterRecord, verdict: VerdictView | None, now: datetime) -> datetime:
        """From when the certificate counts, or a refusal."""
        if attester.lifecycle in (Lifecycle.REVOKED, Lifecycle.PENDING, Lifecycle.RETIRED):
            raise _withheld(f"the attester is {attester.lifecycle.value}")
        if verdict is not None:
            copied = {
                str(finding["code"])
                for finding in verdict.findings
                if finding["code"] in _COPIED and finding["status"] != Status.PASSED
            }
            if copied:
                raise _withheld(f"its latest verdict says {', '.join(sorted(copied))}")
        match self._rules.issue:
            case Issue.OFF:
                raise _withheld("this verifier issues none (ak_certificates.issue)")
            case Issue.ENROLLED:
                return now
            case Issue.AFFIRMING:
                return _affirmed(attester, verdict)
            case _:
                assert_never(self._rules.issue)

    def _lasts(self, kept: IssuedCertificate, now: datetime) -> bool:
        """Whether a kept one is still the answer: where verdicts do not renew it, until half of its time is over."""
        if self._rules.issue is Issue.ENROLLED:
            return kept.not_after - now > self._rules.lifetime / 2
        return kept.not_after > now


def _affirmed(attester: AttesterRecord, verdict: VerdictView | None) -> datetime:
    if verdict is None:
        raise _withheld("it has not attested yet")
    if verdict.tier is not Tier.AFFIRMING:
        raise _withheld(f"its verdict is {verdict.tier.label} ({verdict.lifecycle.value})")
    judged_at = verdict.record.judged_at
    if attester.ak_activated_at is None or judged_at < attester.ak_activated_at:
        raise _withheld("its AK was bound anew since the latest verdict")
    return judged_at


def _named(profile: Mapping[str, object]) -> dict[str, str | None]:
    """What a validated EK certificate says of the TPM; nothing where none was validated."""
    return {name: _text(profile.get(name)) for name in ("manufacturer_id", "model", "version")}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _withheld(why: str) -> RefusedError:
    return RefusedError(Reason.AK_CERTIFICATE_WITHHELD, f"no AK certificate: {why}")
