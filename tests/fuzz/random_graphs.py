"""`make fuzz`: random models against float64, and of each fault the smallest model."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

from generate import generate
from judge import Wrong, judge
from program import Program
from shrink import shrink


def main() -> int:
    """Tries models; returns 1 if one is compiled wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first model")
    parser.add_argument("--count", type=int, default=200, help="of models")
    parser.add_argument(
        "--compile", type=int, default=1, help="build every n-th; others run in numpy alone"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("GRAPHOPT_VERIFY", "1")
    counts: Counter[str] = Counter()
    wrong = 0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        program, compiled = generate(seed), seed % arguments.compile == 0
        try:
            counts += judge(program, compiled).counts
        except Wrong as fault:
            wrong += 1
            print(f"\n# seed {seed}: {fault}\n{shrunk(program, fault, compiled)}\n", flush=True)
        if seed % 50 == 49:
            print(f"{time.strftime('%H:%M:%S')} seed {seed}, {wrong} wrong", file=sys.stderr)
    print(f"{arguments.count} models, {wrong} wrong; calls:")
    for outcome, count in counts.most_common():
        print(f"{count:6} {outcome}")
    return int(wrong > 0)


def shrunk(program: Program, fault: Wrong, compiled: bool) -> str:
    """A script that shows the fault."""
    smaller = shrink(program, has(fault.fault, compiled))
    return smaller.script()


def has(fault: str, compiled: bool) -> Callable[[Program], bool]:
    """Whether a model has a fault of that kind."""

    def fails(program: Program) -> bool:
        try:
            judge(program, compiled)
        except Wrong as found:
            return found.fault == fault
        except Exception:
            return False  # no model any more
        return False

    return fails


if __name__ == "__main__":
    sys.exit(main())
