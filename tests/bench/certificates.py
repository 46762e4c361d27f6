"""EK certificates: what one enrolment pays for the chain of its TPM."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tests.bench.measure import Result, within
from tests.conftest import ROOT
from verifier.crypto.anchors import TrustAnchors, split_bundle
from verifier.crypto.cert_reader import parse_certificate
from verifier.crypto.ek import validate_ek
from verifier.crypto.paths import signature_holds

EVIDENCE: Final = ROOT / "policies" / "evidence"
NOW: Final = datetime(2026, 12, 1, tzinfo=UTC)


def chains() -> list[Result]:
    """Leaf, intermediate and root with 3072-bit RSA keys, as swtpm and VMCA make them."""
    anchors = TrustAnchors.from_bundle((EVIDENCE / "ca" / "ek-root.pem").read_bytes())
    issuer = split_bundle((EVIDENCE / "ca" / "ek-issuer.pem").read_bytes())
    key = parse_certificate(issuer[0]).key
    if key is None:
        raise AssertionError("the captured CA has an RSA key")
    results = []
    for kind in ("rsa", "ecc"):
        der = (EVIDENCE / "uki-sb-on" / f"ek_{kind}_cert.der").read_bytes()
        leaf = parse_certificate(der)
        work: Callable[[], object] = lambda der=der: validate_ek(  # noqa: E731
            der, intermediates=issuer, anchors=anchors, ek_public=None, now=NOW
        )
        bare: Callable[[], object] = lambda leaf=leaf: signature_holds(  # noqa: E731
            key, leaf.algorithm, leaf.signature, leaf.signed
        )
        name = f"validate an EK chain of 3, {kind.upper()} EK"
        results.append(within(name, work, budget_us=300, bare=bare, bare_name="one RSA-3072 verify"))
    return results


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {"ek-chain": chains}
