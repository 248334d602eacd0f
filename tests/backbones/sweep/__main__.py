"""``python -m tests.backbones.sweep [--write PAGE] [--cache FILE] [--workers N]``.

Surveys every architecture of timm and compares outputs of one for each set of norm layers. With a
cache file it goes on where it was stopped; delete the file after a change of the code.
"""

import argparse
import sys
from pathlib import Path

import timm

from tests.backbones.sweep.page import render
from tests.backbones.sweep.run import run_sweep


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.backbones.sweep", description=__doc__)
    parser.add_argument("--write", type=Path, help="the page to write, if nothing is wrong")
    parser.add_argument("--cache", type=Path, help="results so far, a line of JSON each")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    surveys, comparisons = run_sweep(timm.list_models(), arguments.workers, arguments.cache)
    found = [*surveys.values(), *comparisons.values()]
    wrong = [f"{one.name}: {what}" for one in found for what in one.wrong()]
    if wrong:
        sys.exit("\n".join(wrong))
    if arguments.write:
        arguments.write.write_text(render(surveys.values(), comparisons), encoding="utf-8")


if __name__ == "__main__":
    main()
