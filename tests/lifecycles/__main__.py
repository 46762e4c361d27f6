"""`python -m tests.lifecycles`: the full number of lives, with what happened in them and how long they took."""

from __future__ import annotations

import argparse
import sys
import time

from tests.lifecycles.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lifecycles", description=__doc__)
    parser.add_argument("--honest", type=int, default=10_000, help="lives without clone or rollback")
    parser.add_argument("--guilty", type=int, default=2_000, help="lives with one")
    parser.add_argument("--first", type=int, default=0, help="number of the first; a number is a seed")
    arguments = parser.parse_args()
    wrong = 0
    for kind, count in (("honest", arguments.honest), ("guilty", arguments.guilty)):
        began = time.monotonic()
        outcome = run(kind, count, first=arguments.first)
        seconds = time.monotonic() - began
        print(f"{kind}: {outcome.lives} lives, {outcome.seen['verdicts']} verdicts, {seconds:.0f} s")
        for event, number in sorted(outcome.seen.items(), key=lambda item: -item[1]):
            print(f"  {number:>8}  {event}")
        for story in outcome.wrong[:5]:
            print(story)
        print(f"{kind}: {len(outcome.wrong)} wrong")
        wrong += len(outcome.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
