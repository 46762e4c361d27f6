"""Examples in `--help`: they stand in the docstrings, where the library that makes the help leaves them out."""

from __future__ import annotations

import inspect
from typing import Final

from cyclopts import App

_HEADINGS: Final = {"Example:", "Examples:"}


def show_examples(app: App) -> None:
    """Put the `Example:` block of every command's docstring under its help."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        show_examples(command)
        if command.default_command is None:
            continue
        found = examples(command.default_command.__doc__)
        if found:
            command.help_epilogue = "\n".join(["examples:", *(f"  {line}" for line in found)])


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
