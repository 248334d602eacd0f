"""What the fuzzers have in common as commands: their options, and the table of what came of it."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

_SHOWN = 50  # faults in words at the end


def parser_of(name: str, about: str | None, count: int, of: str) -> argparse.ArgumentParser:
    """``--seed`` and ``--count``, of what; the others are added."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}", description=about)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=count, help=of)
    return parser


def tabulate(
    head: str, outcomes: Sequence[str], tried: Iterable[tuple[str, Counter[str], list[str]]]
) -> bool:
    """Print a row for each name as it comes, and faults at the end; whether there is one.

    Args:
        head: What the names are.
        outcomes: Those that are counted.
        tried: Name, how often each thing came of it, and faults in words.
    """
    print(f"| {head} | {' | '.join(outcomes)} | faults |\n|---|{'---:|' * (len(outcomes) + 1)}")
    every: list[str] = []
    for name, found, faults in tried:
        row = (name, *(found[one] for one in outcomes), len(faults))
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        every += faults
    print("\n".join(every[:_SHOWN]))
    return bool(every)
