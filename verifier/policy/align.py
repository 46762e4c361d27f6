"""Align the events that were measured with the steps a golden sequence has, so that one change reads as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from verifier.policy.model import Step

Pair = tuple[int | None, int | None]
"""(step, event): both set is a place to compare; one None is a missing step or an unexpected event."""

MAX_CELLS: Final = 1_000_000
_CHANGED: Final = 3
_LACKING: Final = 2


def align(steps: Sequence[Step], digests: Sequence[bytes]) -> list[Pair]:
    """Cheapest alignment of `digests` to `steps`.

    A matching place costs nothing, a skipped optional step nothing either, a changed one less than one missing
    plus one unexpected.

    Bounded: beyond `MAX_CELLS` the rest is reported as unexpected after the first divergence.
    """
    start = 0
    while start < min(len(steps), len(digests)) and digests[start] in steps[start].accepted.digests:
        start += 1
    pairs: list[Pair] = [(index, index) for index in range(start)]
    rest_steps, rest_digests = steps[start:], digests[start:]
    if not rest_steps and not rest_digests:
        return pairs
    if (len(rest_steps) + 1) * (len(rest_digests) + 1) > MAX_CELLS:
        tail: list[Pair] = [(start + index, None) for index in range(len(rest_steps))]
        return pairs + tail + [(None, start + index) for index in range(len(rest_digests))]
    moves = _table(rest_steps, rest_digests)
    return pairs + [
        (None if step is None else step + start, None if event is None else event + start)
        for step, event in _walk(moves, len(rest_steps), len(rest_digests))
    ]


def _table(steps: Sequence[Step], digests: Sequence[bytes]) -> list[list[tuple[int, str]]]:
    width = len(digests) + 1
    rows: list[list[tuple[int, str]]] = [[(column * _LACKING, "event") for column in range(width)]]
    for number, step in enumerate(steps, start=1):
        skip = 0 if step.optional else _LACKING
        row: list[tuple[int, str]] = [(rows[-1][0][0] + skip, "step")]
        for column in range(1, width):
            matched = digests[column - 1] in step.accepted.digests
            row.append(
                min(
                    (rows[number - 1][column - 1][0] + (0 if matched else _CHANGED), "both"),
                    (rows[number - 1][column][0] + skip, "step"),
                    (row[column - 1][0] + _LACKING, "event"),
                )
            )
        rows.append(row)
    return rows


def _walk(rows: list[list[tuple[int, str]]], step: int, event: int) -> list[Pair]:
    pairs: list[Pair] = []
    while step or event:
        move = rows[step][event][1] if step else "event"
        if move == "both" and event:
            step, event = step - 1, event - 1
            pairs.append((step, event))
        elif move == "step" or not event:
            step -= 1
            pairs.append((step, None))
        else:
            event -= 1
            pairs.append((None, event))
    pairs.reverse()
    return pairs
