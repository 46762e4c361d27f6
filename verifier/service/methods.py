"""What a machine must bring to be enrolled: requirements, all of which must be met, each by one of its alternatives.

Written as a list of texts: `["certificate|approve", "token"]` asks for an EK certificate or else an operator's
approval, and for a join token in any case. What cannot be meant is refused with the reason (ADR 0007).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


class Method(enum.StrEnum):
    """One way to be let in. In the order of what it proves: the first that held is what is recorded."""

    CERTIFICATE = "certificate"
    """A CA that is trusted for EKs certified this EK."""
    AK_CERTIFICATE = "ak-certificate"
    """A CA that is trusted for AKs (a cloud's) certified this very AK."""
    DEVICE_CERTIFICATE = "device-certificate"
    """A CA that is trusted for devices certified this AK as an initial attestation key (IAK)."""
    INVENTORY = "inventory"
    """An inventory pins this EK to a machine."""
    APPROVE = "approve"
    """An operator approves the enrolment."""
    TOFU = "tofu"
    """Whatever EK comes first is believed. It proves nothing, so it has to be written out."""
    TOKEN = "token"  # noqa: S105 - a name
    """A join token says that the machine may come in; of its TPM it says nothing."""


ENDORSING: Final = frozenset(Method) - {Method.TOKEN}
"""Methods that are a reason to take the key for a TPM's."""
_ALWAYS: Final = {
    Method.APPROVE: "`approve` waits for an operator and never fails",
    Method.TOFU: "`tofu` accepts everything",
}
_NAMES: Final = ", ".join(method.value for method in Method)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What has to be met: every requirement, by the first of its alternatives that holds."""

    every: tuple[tuple[Method, ...], ...]

    def __contains__(self, method: object) -> bool:
        return any(method in alternatives for alternatives in self.every)

    def __str__(self) -> str:
        return ", ".join("|".join(alternatives) for alternatives in self.every)

    def or_approval(self, instead_of: Method) -> Requirements:
        """The same, where a person may also decide whatever asks for this method."""
        return Requirements(
            tuple(
                (*alternatives, Method.APPROVE)
                if instead_of in alternatives and _ALWAYS.keys().isdisjoint(alternatives)
                else alternatives
                for alternatives in self.every
            )
        )


def parse_methods(entries: Sequence[str]) -> Requirements:
    """Read requirements as they are written in the settings.

    Raises:
        ValueError: an unknown name, or a combination that would not do what it says; the text explains it.
    """
    every = tuple(_alternatives(entry) for entry in entries)
    if not any(ENDORSING.issuperset(alternatives) for alternatives in every):
        raise ValueError(
            "names no way to trust an EK: a token says who may join, but anyone who has one can run a software TPM."
            " Add 'certificate', or write out 'tofu' to trust any EK on first use"
        )
    for number, alternatives in enumerate(every):
        if alternatives in every[:number]:
            raise ValueError(f"{entries[number]!r} is listed twice")
    _refuse_idle(every)
    return Requirements(every)


def _alternatives(entry: str) -> tuple[Method, ...]:
    try:
        methods = tuple(Method(name.strip()) for name in entry.split("|"))
    except ValueError:
        raise ValueError(
            f"{entry!r} is not one of {_NAMES}, nor alternatives of them joined by '|'"
        ) from None
    if len(set(methods)) != len(methods):
        raise ValueError(f"{entry!r} names an alternative twice")
    for method in methods[:-1]:
        if method in _ALWAYS:
            raise ValueError(
                f"in {entry!r} what follows {method.value!r} is never asked for: {_ALWAYS[method]}"
            )
    return methods


def _refuse_idle(every: tuple[tuple[Method, ...], ...]) -> None:
    """A requirement that everything meets looks like a choice and is none, unless it is the only endorsement."""
    for alternatives in every:
        others = [other for other in every if other != alternatives and ENDORSING.issuperset(other)]
        if alternatives == (Method.TOFU,) and others:
            other = "|".join(others[0])
            raise ValueError(
                f"'tofu' beside {other!r} adds nothing, as every entry must be met: leave it out, or write"
                f" '{other}|tofu' to trust on first use what does not meet {other!r}"
                if others[0][-1] not in _ALWAYS
                else f"'tofu' beside {other!r} adds nothing, as every entry must be met: leave it out"
            )
        if Method.TOFU in alternatives and not ENDORSING.issuperset(alternatives):
            written = "|".join(alternatives)
            raise ValueError(f"{written!r} is met by every machine: leave the entry out, or 'tofu' out of it")
