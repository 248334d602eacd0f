"""How fast and how far runs get: validation metric by epoch, for several runs of one recipe.

``python -m tests.benchmarks.convergence [--method M] [--transfer T] [--figure F] LABEL=RUN ...``;
RUN is a run folder, and all seeds of a run are one curve.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from domainnorm.recipe.registries import TASKS
from domainnorm.report import epochs_to, save_convergence
from domainnorm.run.folder import read_folder
from tests.benchmarks.table import render


def curves(run: Path, transfer: str, method: str) -> list[list[float]]:
    """The metric that selects checkpoints, of each seed: its mean over validation domains."""
    logs = sorted(run.glob(f"stages/{transfer}/seed*/{method}/log.csv"))
    if not logs:
        raise SystemExit(f"{run}: no log of method '{method}' for transfer '{transfer}'")
    return [_selection(log) for log in logs]


def _selection(log: Path) -> list[float]:
    with log.open(newline="", encoding="utf-8") as stream:
        return [float(row["val/selection"]) for row in csv.DictReader(stream)]


def _cell(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--method", default="joint")
    parser.add_argument("--transfer", default="*", help="folder below stages/; needed for several")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    runs = {label: Path(run) for label, _, run in (word.partition("=") for word in arguments.runs)}
    found = {
        label: curves(run, arguments.transfer, arguments.method) for label, run in runs.items()
    }
    rows = []
    for label, series in found.items():
        reached = [epochs_to(0.9, one) for one in series]
        known = [float(epochs) for epochs in reached if epochs is not None]
        final = _cell([one[-1] for one in series], 3)
        rows.append([label, final, _cell(known, 1) if known else "–", str(len(series))])
    head = ["norm", "final, validation", "epochs to 90 %", "seeds"]
    print(render(head, rows, arguments.markdown))
    if arguments.figure:
        recipe, _ = read_folder(next(iter(runs.values())))
        metric = str(TASKS.entry(recipe.task.name).constants["metric"])
        save_convergence(found, arguments.figure, metric=metric, title=recipe.name)


if __name__ == "__main__":
    main()
