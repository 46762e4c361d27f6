"""A further process of the verifier: does what its parent asks for, one thing at a time, until the parent is gone.

Framing on stdin and stdout: u64 length, big-endian, then a pickle. Only the parent holds the other ends, so what is
read here is as trusted as the code itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import BinaryIO, Final

LENGTH: Final = 8
_NICE: Final = 5
"""Whoever answers guests goes first."""


def frame(value: object) -> bytes:
    """A value as it is sent."""
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return len(content).to_bytes(LENGTH, "big") + content


def answer(question: bytes) -> bytes:
    """Do what a question asks; what goes wrong is an answer too."""
    try:
        work, given = pickle.loads(question)  # noqa: S301 - from the parent alone
        return frame((True, work(given)))
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        return frame((False, f"{type(error).__name__}: {error}"))


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there is nobody left to ask."""
    while len(head := questions.read(LENGTH)) == LENGTH:
        size = int.from_bytes(head, "big")
        question = questions.read(size)
        if len(question) < size:
            return
        answers.write(answer(question))
        answers.flush()


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
