"""What each code means and what to do next, in plain words. `docs/reasons.md` is made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.reason_texts.boot import BOOT
from verifier.reason_texts.enrolment import ENROLMENT
from verifier.reason_texts.history import HISTORY
from verifier.reason_texts.ima import IMA
from verifier.reason_texts.policy import POLICY
from verifier.reason_texts.quote import QUOTE
from verifier.reason_texts.requests import REQUESTS
from verifier.reasons import Entry, Reason

ENTRIES: Final[Mapping[Reason, Entry]] = {
    **REQUESTS,
    **ENROLMENT,
    **QUOTE,
    **HISTORY,
    **BOOT,
    **IMA,
    **POLICY,
}
