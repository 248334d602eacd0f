"""How fast and how far runs get: validation metric by epoch, for several runs of one recipe.

``python -m tests.benchmarks.convergence [--method M] [--transfer T] [--figure F] LABEL=RUN ...``;
RUN is a run folder, and all seeds of a run are one curve.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError, readable, seed_spread
from domainnorm.registry import TASKS
from domainnorm.report.figure import (
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    assign_colours,
    clear_frame,
    create_figure,
    literal,
    save_figure,
)
from domainnorm.run.run_folder import read_folder
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


def epochs_to(fraction: float, series: Sequence[float]) -> int | None:
    """Epochs until a metric first reaches ``fraction`` of its final value.

    Args:
        fraction: Part of the last value, in (0, 1].
        series: Values after 1, 2, ... epochs, of a metric whose higher values are better.

    Returns:
        Number of epochs, at least 1; None when the last value is nan or not positive, so that no
        part of it means anything.

    Raises:
        EvaluationError: ``series`` is empty or ``fraction`` is out of range.
    """
    if not series or not 0 < fraction <= 1:
        raise EvaluationError(
            f"epochs_to: fraction={fraction} of {len(series)} values; expected a fraction in "
            "(0, 1] and at least one value"
        )
    if not series[-1] > 0:
        return None
    return next(n for n, value in enumerate(series, 1) if value >= fraction * series[-1])


def save_convergence(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: str | PathLike[str],
    *,
    metric: str,
    fraction: float = 0.9,
    title: str = "",
) -> None:
    """Draw a validation metric against the epoch for several runs.

    Lines are means over seeds and bands ± one sample standard deviation. A dot marks the mean over
    seeds of `epochs_to`, whose number is in the legend.

    Args:
        curves: Name of a run → a series for each seed, each with the values after 1, 2, ... epochs.
        path: File to write; its suffix decides the format.
        metric: Name of the metric, whose higher values are better.
        fraction: Part of the final value, in (0, 1].
        title: Heading.

    Raises:
        EvaluationError: No run, no series, or series of one run that differ in length.
    """
    if not curves:
        raise EvaluationError("save_convergence: no run came, expected at least one")
    figure, ((axes,),) = create_figure(7.4, 3.6)
    colours = assign_colours(curves)
    for name, series in curves.items():
        draw(axes, name, table_of(name, series), fraction, colours[name])
    axes.set_xlabel("epoch", fontsize=NORMAL)
    axes.set_ylabel(readable(metric), fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    clear_frame(axes)
    seeds = sorted({len(series) for series in curves.values()})
    band = f"; line and band: mean ± standard deviation of {' or '.join(map(str, seeds))} seeds"
    figure.legend(
        loc="outside right upper",
        fontsize=SMALL,
        frameon=False,
        title=f"epochs to {100 * fraction:g} %\nof the final value",
        title_fontsize=SMALL,
    )
    dots = f"dots: {100 * fraction:g} % of the final value"
    figure.supxlabel(dots + (band if seeds != [1] else "; one seed"), fontsize=SMALL, color=MUTED)
    if title:
        axes.set_title(literal(title), fontsize=LARGE, loc="left")
    save_figure(figure, path)


def draw(axes: Axes, name: str, table: NDArray[np.float64], fraction: float, colour: str) -> None:
    epochs = np.arange(1, table.shape[1] + 1)
    spreads = [seed_spread(column.tolist()) for column in table.T]
    mean = np.array([spread.mean for spread in spreads])
    std = np.nan_to_num([spread.std for spread in spreads])
    known = [epochs_to(fraction, series.tolist()) for series in table]
    needed = seed_spread([math.nan if n is None else n for n in known])
    label = f"{name}: {needed.mean:.1f}" if needed.n else f"{name}: –"
    if needed.n > 1:
        label += f" ± {needed.std:.1f}"
    axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.plot(epochs, mean, color=colour, linewidth=1.6, label=literal(label))
    if needed.n:
        height = np.interp(needed.mean, epochs, mean)
        axes.plot(needed.mean, height, "o", color=colour, markeredgecolor="white", markersize=7)


def table_of(name: str, series: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Series as rows (seeds, epochs)."""
    lengths = sorted({len(one) for one in series})
    if len(lengths) != 1 or lengths[0] == 0:
        raise EvaluationError(
            f"save_convergence: the series of '{name}' have {lengths} values; expected one series "
            "or more, all of the same length"
        )
    return np.asarray(series, dtype=np.float64)


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
