"""For relying parties: ask a verifier about attesters, verify EARs offline, follow events, let only attested callers in.

It imports nothing of the service. See docs/relying-parties.md.
"""

from verifier.client.client import AttestationClient
from verifier.client.ear import EarRules, EarVerifier
from verifier.client.errors import (
    AttestationError,
    EarError,
    EarFault,
    RefusedError,
    ReplyError,
    UnavailableError,
)
from verifier.client.results import (
    Ear,
    Event,
    Finding,
    Lifecycle,
    PolicyRef,
    Standing,
    Summary,
    Tier,
    Verdict,
)
from verifier.client.transport import Retry

__all__ = [
    "AttestationClient",
    "AttestationError",
    "Ear",
    "EarError",
    "EarFault",
    "EarRules",
    "EarVerifier",
    "Event",
    "Finding",
    "Lifecycle",
    "PolicyRef",
    "RefusedError",
    "ReplyError",
    "Retry",
    "Standing",
    "Summary",
    "Tier",
    "UnavailableError",
    "Verdict",
]
