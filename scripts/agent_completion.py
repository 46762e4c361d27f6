"""Completion of `attest-agent` for shells: made here, so that a guest image needs no library for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

import shtab

from agent.cli import SHELLS, build_parser

_PATHS: Final = {"FILE": shtab.FILE, "PEM": shtab.FILE, "DIR": shtab.DIRECTORY}


def completion(shell: str) -> str:
    """The script for this shell."""
    parser = build_parser()
    for action in _actions(parser):
        if action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]
    return shtab.complete(parser, shell).rstrip() + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to walk a parser
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in action.choices.values():
                yield from _actions(inner)


__all__ = ["SHELLS", "completion"]
