"""Evidence, for auditors: what a verdict was made from."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Final, Literal

from msgspec import Meta

from verifier.appraisal.evidence import RatchetEvidence
from verifier.reasons import Reason
from verifier.service.evidence import EvidenceView
from verifier.web.messages import Body
from verifier.web.routing import AUDITORS, Call, Reply, Route
from verifier.web.wire_codec import rfc3339

FORMAT: Final = "vtpm-attest/bundle/1"


class EvidenceQuery(Body, frozen=True):
    """Whose evidence: that of the latest verdict, or of an earlier one."""

    sequence: Annotated[int, Meta(ge=1, le=2**63 - 2)] | None = None


class BundleQuote(Body, frozen=True):
    """TPMS_ATTEST as signed and TPMT_SIGNATURE, base64."""

    attest: str
    signature: str


class BundleIdentity(Body, frozen=True):
    """What the guest said it is; unproven."""

    smbios_uuid: str | None = None


class BundleRatchet(Body, frozen=True):
    """The ratchet's index as it was certified, base64."""

    attest: str
    signature: str
    step: int | None = None
    base: str | None = None


class BundleIndex(Body, frozen=True):
    """A certified NV index: TPMS_NV_PUBLIC, TPMS_ATTEST and TPMT_SIGNATURE, base64."""

    public: str
    attest: str
    signature: str


class EvidenceBundle(Body, frozen=True):
    """Evidence as `attest-agent collect` writes it and `attestctl appraise` reads it.

    The nonce was this verifier's own and fresh when the verdict was given; the bundle alone proves neither.
    """

    format: Literal["vtpm-attest/bundle/1"]
    attester_id: str
    sequence: int
    evidence_sha256: str
    nonce: str
    """Hex."""
    ak_public: str
    """TPM2B_PUBLIC of the AK that was bound then, base64."""
    ek_public: str
    ek_certificates: list[str]
    """Of the EK, base64 of the DER."""
    quote: BundleQuote
    pcrs: dict[str, dict[str, str]]
    """By bank and index, hex."""
    boot_log: str | None
    ima_log: str | None
    """The binary list up to what the quote proves; absent where none was judged, or it is not kept whole any more."""
    identity: BundleIdentity
    kernel_command_line: str | None
    boot_id: str | None
    ratchet: BundleRatchet | None
    userspace_log: str | None
    nvpcrs: list[BundleIndex]
    collected_at: str
    """When it was judged."""


async def evidence(call: Call) -> Reply:
    """What a verdict was made from."""
    query: EvidenceQuery = call.query
    view = await call.services.evidence.show(
        call.tenant, call.request.match_info["id"], query.sequence, call.caller.id
    )
    return Reply(body=bundle_message(view))


def bundle_message(view: EvidenceView) -> EvidenceBundle:
    """Evidence in the form that the agent collects it in."""
    found, certificate = view.evidence, view.attester.ek_certificate
    return EvidenceBundle(
        format=FORMAT,
        attester_id=view.verdict.attester_id,
        sequence=view.verdict.sequence,
        evidence_sha256=view.verdict.evidence_sha256.hex(),
        nonce=view.stored.nonce.hex(),
        ak_public=_base64(view.stored.ak_public),
        ek_public=_base64(view.attester.ek_public),
        ek_certificates=[] if certificate is None else [_base64(certificate)],
        quote=BundleQuote(attest=_base64(found.attest), signature=_base64(found.signature)),
        pcrs={
            bank.label: {str(index): values[index].hex() for index in sorted(values)}
            for bank, values in found.pcrs.items()
        },
        boot_log=None if found.boot_log is None else _base64(found.boot_log),
        ima_log=None if found.ima is None else _base64(found.ima.segment.data),
        identity=BundleIdentity(smbios_uuid=found.smbios_uuid),
        kernel_command_line=found.kernel_command_line,
        boot_id=found.boot_id,
        ratchet=_ratchet(found.ratchet),
        userspace_log=None if found.userspace_log is None else _base64(found.userspace_log),
        nvpcrs=[
            BundleIndex(
                public=_base64(one.public), attest=_base64(one.attest), signature=_base64(one.signature)
            )
            for one in found.nvpcrs
        ],
        collected_at=rfc3339(view.verdict.judged_at),
    )


def _ratchet(shown: RatchetEvidence | None) -> BundleRatchet | None:
    if shown is None:
        return None
    return BundleRatchet(
        attest=_base64(shown.attest),
        signature=_base64(shown.signature),
        step=shown.step,
        base=None if shown.base is None else _base64(shown.base),
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/attesters/{id}/evidence",
        access=AUDITORS,
        handler=evidence,
        summary="What a verdict was made from, as `attest-agent collect` writes it; who reads it is in the audit log",
        query=EvidenceQuery,
        response=EvidenceBundle,
        reasons=(Reason.EVIDENCE_UNAVAILABLE,),
    ),
)
