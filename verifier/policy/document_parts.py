"""What the types of policy documents are made with."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Meta


def about(description: str) -> Meta:
    """What an editor shows; the JSON Schema takes it from here."""
    return Meta(description=description)


def choice(description: str, values: Iterable[str]) -> Meta:
    """One of these words. Checked when the policy is built, where an error can name the rule."""
    return Meta(description=description, extra_json_schema={"enum": list(values)})
