"""The pure core: one quote, one boot log, one first-boot appraisal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import structs

from tests.bench.measure import Result, against, within
from tests.logs import ordinary_log
from tests.simulator import ECC_AK, RSA_AK, AkProfile, SoftwareTpm
from verifier.appraisal.appraise import appraise, examine, judge
from verifier.appraisal.boot_facts import bind_log
from verifier.appraisal.checks.quote import check_quote
from verifier.appraisal.evidence import Evidence, Expectation, History, PcrRequest
from verifier.claims import ProvenClaims, QuoteFacts
from verifier.crypto.keys import load_key
from verifier.policy.catalogue import CATALOGUE, View
from verifier.policy.learn import LearnOptions, learn
from verifier.policy.model import Policy
from verifier.policy.parse import parse_policy
from verifier.service.memo import AppraisalMemo
from verifier.tcg.algorithms import HashAlg
from verifier.tcg.eventlog import parse_event_log
from verifier.tcg.signature import EcdsaSignature, parse_signature

NOW: Final = datetime(2026, 11, 24, tzinfo=UTC)
NONCE: Final = bytes(range(32))
PCRS: Final = tuple(range(16))
LOG: Final = ordinary_log()


def _machine(ak: AkProfile) -> tuple[Evidence, Expectation]:
    tpm = SoftwareTpm(1, ak=ak)
    tpm.replay_log(LOG)
    attest, signature = tpm.quote(NONCE, {HashAlg.SHA256: PCRS})
    values = tpm.pcrs(HashAlg.SHA256)
    quoted = {HashAlg.SHA256: {pcr: values[pcr] for pcr in PCRS}}  # as the agent sends them
    evidence = Evidence(attest, signature, quoted, boot_log=LOG)
    request = (PcrRequest(bank=HashAlg.SHA256, pcrs=frozenset(PCRS)),)
    return evidence, Expectation(tpm.ak_public, True, NONCE, request)


def _bare_verify(evidence: Evidence, expected: Expectation) -> Callable[[], object]:
    """The signature check alone, by `cryptography`, everything prepared."""
    key = load_key(expected.ak_public).key
    signature = parse_signature(evidence.signature)
    message = evidence.attest
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(signature, EcdsaSignature):
        der, scheme = encode_dss_signature(signature.r, signature.s), ec.ECDSA(hashes.SHA256())
        return lambda: key.verify(der, message, scheme)
    padded, algorithm, raw = padding.PKCS1v15(), hashes.SHA256(), signature.signature
    return lambda: key.verify(raw, message, padded, algorithm)


def quotes() -> list[Result]:
    results = []
    for name, profile in (("RSA-2048", RSA_AK), ("P-256", ECC_AK)):
        evidence, expected = _machine(profile)
        if not check_quote(evidence, expected).authenticated:
            raise AssertionError("the bench's own quote must verify")
        bare = _bare_verify(evidence, expected)
        work = lambda evidence=evidence, expected=expected: check_quote(evidence, expected)  # noqa: E731
        results.append(against(f"check one quote, {name}, AK known", work, bare, "bare verify", ratio=1.5))
        read = lambda expected=expected: load_key.__wrapped__(expected.ak_public)  # noqa: E731
        results.append(against(f"an AK that is not remembered, {name}", read, bare, "bare verify", ratio=0.6))
    return results


def boot_log() -> list[Result]:
    evidence, expected = _machine(ECC_AK)
    facts = check_quote(evidence, expected).facts
    if facts is None:
        raise AssertionError("the bench's own quote must verify")
    name = f"boot log of {len(LOG) / 1000:.0f} KB, {len(parse_event_log(LOG).events)} events: parse, replay, bind"
    sha256 = HashAlg.SHA256.new
    if sha256 is None:
        raise AssertionError("hashlib has SHA-256")
    work = lambda: bind_log(LOG, parse_event_log(LOG), facts.pcrs, None)  # noqa: E731
    hashed = lambda: sha256(LOG).digest()  # noqa: E731
    return [
        within(name, work, budget_us=600, bare=hashed, bare_name="SHA-256 of the log"),
        within(
            f"the same and all {len(CATALOGUE)} claims",
            lambda: _all_claims(ProvenClaims(quote=facts, boot=work().facts)),
            budget_us=1000,
            bare=hashed,
            bare_name="SHA-256 of the log",
        ),
        _unchanged(evidence, expected, hashed),
        _diagnosed(facts, hashed),
    ]


def _diagnosed(facts: QuoteFacts, hashed: Callable[[], object]) -> Result:
    """A log that no known quirk explains, in the PCR that has the most events: the search goes to its end."""
    sha256 = HashAlg.SHA256
    pcrs = {sha256: {**facts.pcrs[sha256], 8: sha256.digest(b"another boot")}}
    return within(
        "the same log, a PCR of 84 events that does not replay: named",
        lambda: bind_log(LOG, parse_event_log(LOG), pcrs, None),
        budget_us=10_000,
        bare=hashed,
        bare_name="SHA-256 of the log",
    )


def _all_claims(proven: ProvenClaims) -> int:
    """Reads every claim a policy could ask for; how many are proven."""
    view = View(proven, HashAlg.SHA256)
    return sum(entry.extract(view) is not None for entry in CATALOGUE.values())


def _unchanged(evidence: Evidence, expected: Expectation, hashed: Callable[[], object]) -> Result:
    """Log and policy as judged before: what the cache leaves to do, once the quote has been checked."""
    policy = _learned(evidence, expected)
    held = structs.replace(evidence, boot_log_sha256=HashAlg.SHA256.digest(LOG))
    memo = AppraisalMemo()
    examined = examine(held, expected, policy, History())
    fresh = judge(examined, held, policy, memo)
    if judge(examined, held, policy, memo) != fresh:
        raise AssertionError("the cache must answer what was judged")
    return within(
        "an unchanged log and policy, from the cache",
        lambda: judge(examined, held, policy, memo),
        budget_us=50,
        bare=hashed,
        bare_name="SHA-256 of the log",
    )


def _learned(evidence: Evidence, expected: Expectation) -> Policy:
    """A policy that expects this machine, event by event."""
    claims = appraise(evidence, expected, None, History(), NOW).claims
    if claims is None:
        raise AssertionError("the bench's own quote must verify")
    options = LearnOptions(id="bench", description="", bank=HashAlg.SHA256)
    return parse_policy(learn({"boot": claims}, options).source)


def appraisal() -> list[Result]:
    evidence, expected = _machine(RSA_AK)
    policy = _learned(evidence, expected)
    work = lambda: appraise(evidence, expected, policy, History(), NOW)  # noqa: E731
    bare = _bare_verify(evidence, expected)
    return [
        within(
            "whole first-boot appraisal, RSA-2048", work, budget_us=1500, bare=bare, bare_name="bare verify"
        ),
    ]


BENCHES: Final[dict[str, Callable[[], list[Result]]]] = {
    "quote": quotes,
    "boot-log": boot_log,
    "appraisal": appraisal,
}
