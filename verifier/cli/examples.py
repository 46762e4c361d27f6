"""What `--help` says, from the docstrings: whole paragraphs, and the examples, which the library leaves out."""

from __future__ import annotations

import inspect
from typing import Final

from cyclopts import App

_HEADINGS: Final = {"Example:", "Examples:"}
_SECTIONS: Final = _HEADINGS | {"Args:", "Returns:", "Raises:"}


def show_examples(app: App) -> None:
    """Put the `Example:` block of every command's docstring under its help."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        show_examples(command)
        if command.default_command is None:
            continue
        if all(inner.startswith("-") for inner in command):  # a group says itself what it is for
            command.help = description(command.default_command.__doc__)
        found = examples(command.default_command.__doc__)
        if found:
            command.help_epilogue = "\n".join(["examples:", *(f"  {line}" for line in found)])


def description(docstring: str | None) -> str:
    """What comes before the sections, each paragraph on one line: the terminal's width breaks it, not the source's."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    end = next((number for number, line in enumerate(lines) if line in _SECTIONS), len(lines))
    paragraphs = "\n".join(lines[:end]).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(docstring: str | None) -> list[str]:
    """The lines under `Example:` (or `Examples:`)."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    start = next((number for number, line in enumerate(lines) if line in _HEADINGS), len(lines))
    found: list[str] = []
    for line in lines[start + 1 :]:
        if line and not line.startswith(" "):
            break
        if line:
            found.append(line.strip())
    return found
