"""Where runtime references come from."""

from __future__ import annotations

from typing import Protocol

from verifier.errors import VerifierFault
from verifier.policy.model import Policy
from verifier.policy.runtime.reference import RuntimeReference


class SetMissing(VerifierFault):
    """A policy names a runtime set that is not on this machine."""


class Recipe(Protocol):
    """How to make a runtime reference, in whichever process; small, and can be pickled."""

    @property
    def revision(self) -> bytes:
        """That of the reference."""
        ...

    def make(self) -> RuntimeReference:
        """The reference; may take seconds. Raises `VerifierFault` where something it is made of cannot be had."""
        ...


class RuntimeReferences(Protocol):
    """Runtime references of policies."""

    def reads(self, policy: Policy) -> bool:
        """Whether the policy reads the IMA list."""
        ...

    async def recipe(self, policy: Policy) -> Recipe:
        """Of a policy that does.

        Raises:
            SetMissing: a set it names is not here. That is our fault, and never a verdict.
            VerifierFault: what there is cannot be read.
        """
        ...
