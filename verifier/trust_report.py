"""Says at start what is trusted, and what looked like it should be and is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from verifier.ports import DEFAULT_TENANT
from verifier.ports_trust import AnchorPurpose
from verifier.service.methods import Method, parse_methods
from verifier.service.trust import TrustService
from verifier.trust import TrustFiles

_ANCHORS_FOR: Final = {
    Method.CERTIFICATE: AnchorPurpose.EK,
    Method.AK_CERTIFICATE: AnchorPurpose.AK,
    Method.DEVICE_CERTIFICATE: AnchorPurpose.DEVICE,
}
_log = structlog.get_logger("vtpm_attest.main")


async def report_trust(trust: TrustService, files: TrustFiles, methods: Sequence[str]) -> None:
    """Log it. `methods` are those of the settings, which parse."""
    for one in files.rejected:
        _log.warning("trust.rejected", source=one.source, subject=one.subject, problem=one.problem)
    requirements = parse_methods(methods)
    trusted = await trust.current(DEFAULT_TENANT)
    counts = {purpose.value: len(trusted.anchors(purpose)) for purpose in AnchorPurpose}
    if Method.TOFU in requirements:
        _log.warning(
            "trust.first-use", effect="an EK that nothing else endorses is trusted when it is first seen"
        )
    for method, purpose in _ANCHORS_FOR.items():
        if method in requirements and not counts[purpose]:
            _log.warning(
                "trust.no-anchors",
                method=method.value,
                effect="no machine can meet it",
                remedy=f"set trust_anchors, or attest-verifier anchors import --for {purpose.value}",
            )
    _log.info("trust.loaded", **counts, crls=len(trusted.crls), methods=str(requirements))
