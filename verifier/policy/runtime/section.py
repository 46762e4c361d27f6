"""The runtime part of a policy: which sets, keys and excludes its IMA lists are judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from verifier.policy.runtime.patterns import Patterns
from verifier.policy.runtime.reference import Handling, RuntimeOptions, SignatureUse, SigningKey


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A runtime set by the SHA-256 of its text (hex); the name is for people, and checked where it is given."""

    sha256: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Exclude:
    """Paths that are not judged, and why that is right."""

    paths: Patterns
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSection:
    """What a policy says of IMA lists; frozen, small, and can be pickled.

    Attributes:
        sets: what is good.
        staged: sets of an update that has been announced: what only they know is a warning.
        excludes: in the order of the policy.
        ignored_keyrings: keyrings whose keys are not judged.
        keys: keys that file signatures may be made with.
        options: how the rest is judged.
    """

    sets: tuple[NamedSet, ...]
    staged: tuple[NamedSet, ...] = ()
    excludes: tuple[Exclude, ...] = ()
    ignored_keyrings: frozenset[str] = frozenset()
    keys: tuple[SigningKey, ...] = ()
    options: RuntimeOptions = field(default_factory=RuntimeOptions)

    @property
    def revision(self) -> bytes:
        """SHA-256 over everything an answer depends on: sets by their digests, patterns, keys, options."""
        plain = {
            "format": 1,
            "sets": [each.sha256 for each in self.sets],
            "staged": [each.sha256 for each in self.staged],
            "excludes": [each.paths.texts for each in self.excludes],
            "ignored_keyrings": sorted(self.ignored_keyrings),
            "keys": [(each.key_id.hex(), each.public.hex(), each.name) for each in self.keys],
            "options": _plain(self.options),
        }
        return hashlib.sha256(msgspec.json.encode(plain)).digest()


_LENIENT: Final = frozenset({Handling.WARN.value, Handling.ALLOW.value})


def describe(section: RuntimeSection | None) -> Iterator[str]:
    """For people: what is good, what is not judged and why, and what is not denied. Nothing where lists are not read."""
    if section is None:
        return
    sets = ", ".join(each.name or each.sha256[:16] for each in section.sets) or "no set"
    staged = ", ".join(each.name or each.sha256[:16] for each in section.staged)
    yield f"what runs is judged by {sets}" + (f"; staged: {staged}" if staged else "")
    if section.options.signatures is not SignatureUse.IGNORED:
        learned = ", ".join(sorted(section.options.learn_keyrings)) or "no keyring"
        yield f"file signatures are {section.options.signatures.value}: {len(section.keys)} keys, and those of {learned}"
    for each in section.excludes:
        yield f"{each.paths} is not judged: {each.why}"
    for keyring in sorted(section.ignored_keyrings):
        yield f"keys on {keyring} are not judged"
    for name, value in _plain(section.options).items():
        if isinstance(value, str) and value in _LENIENT:
            yield f"{name.replace('_', ' ')}: {value}"


def _plain(options: RuntimeOptions) -> dict[str, object]:
    return {
        "unknown_path": options.unknown_path.value,
        "unknown_module": options.unknown_module.value,
        "violations": options.violations.value,
        "signatures": options.signatures.value,
        "learn_keyrings": sorted(options.learn_keyrings),
        "unknown_key": options.unknown_key.value,
        "policy_load": options.policy_load.value,
        "unknown_buffer": options.unknown_buffer.value,
        "targets": None
        if options.targets is None
        else [(rule.target, sorted(rule.attributes.items())) for rule in options.targets],
    }
