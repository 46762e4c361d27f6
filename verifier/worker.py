"""A further process of the verifier: does what its parent asks for, one thing at a time, until the parent is gone.

Framing on stdin and stdout, numbers u64 big-endian: the length of a pickle, how many buffers follow it, the length of
each, then the pickle and the buffers (PEP 574: large bytes are sent as they lie, not copied into the pickle). Only the
parent holds the other ends, so what is read here is as trusted as the code itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final

LENGTH: Final = 8
_NICE: Final = 5
"""Whoever answers guests goes first."""


def frame(value: object) -> list[bytes | memoryview]:
    """A value as it is sent, part by part; `pickle.PickleBuffer`s in it are parts of their own."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    numbers = (len(content), len(views), *(view.nbytes for view in views))
    return [b"".join(number.to_bytes(LENGTH, "big") for number in numbers), content, *views]


def answer(question: bytes, buffers: Sequence[bytes] = ()) -> list[bytes | memoryview]:
    """Do what a question asks; what goes wrong is an answer too."""
    try:
        work, given = pickle.loads(question, buffers=buffers)  # noqa: S301 - from the parent alone
        return frame((True, work(given)))
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        return frame((False, f"{type(error).__name__}: {error}"))


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there is nobody left to ask."""
    while (question := _read(questions)) is not None:
        answers.writelines(answer(*question))
        answers.flush()


def _read(questions: BinaryIO) -> tuple[bytes, list[bytes]] | None:
    head = _numbers(questions, 2)
    if head is None:
        return None
    sizes = _numbers(questions, head[1])
    if sizes is None:
        return None
    parts = [questions.read(size) for size in (head[0], *sizes)]
    return None if [len(part) for part in parts] != [head[0], *sizes] else (parts[0], parts[1:])


def _numbers(questions: BinaryIO, count: int) -> list[int] | None:
    raw = questions.read(count * LENGTH)
    if len(raw) < count * LENGTH:
        return None
    return [int.from_bytes(raw[at : at + LENGTH], "big") for at in range(0, len(raw), LENGTH)]


def main() -> None:
    """Run as `python -m verifier.worker`."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal tells the whole group; the parent ends its workers
    os.nice(_NICE)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing that prints may get between the answers
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
