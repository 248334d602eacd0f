"""What methods gain over the source model in several runs: a table, and a map of colours.

``python -m tests.benchmarks.gains [--figure FILE] LABEL=RUN ...``; a column for each target of each
label, the mean over seeds of a method's metric minus that of ``source_only``. Runs of one label are
taken together; what several have, from the last.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from domainnorm.evaluation import seed_spread
from domainnorm.registry import TASKS
from domainnorm.report import Result, load_results
from domainnorm.report.figure import NORMAL, SMALL, create_figure, literal, save_figure
from domainnorm.run.run_folder import read_folder
from tests.benchmarks.table import render

_MOST = 0.2  # gain or loss of the strongest colour


def gains_of(runs: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Method -> target -> gain."""
    recipe, _ = read_folder(runs[0])
    metric = TASKS.load(recipe.task.name).metric
    results: list[Result] = []
    for run in runs:
        for file in sorted(run.glob("stages/*/seed*/*/results.json")):
            results += load_results(file)
    values: dict[tuple[str, str], dict[int, float]] = {}
    for one in results:
        if one.role == "target" and not one.supervised:
            found = values.setdefault((one.method, f"→ {one.domain}"), {})
            found[one.seed] = one.metrics[metric]
    means = {key: seed_spread(list(found.values())).mean for key, found in values.items()}
    gains: dict[str, dict[str, float]] = {}
    for (method, target), mean in means.items():
        if method != "source_only":
            gains.setdefault(method, {})[target] = mean - means["source_only", target]
    return gains


def table_of(runs: Mapping[str, Sequence[Path]]) -> tuple[list[str], list[str], np.ndarray]:
    """Methods, columns, and gains of each (methods, columns); nan where there is none."""
    found = {label: gains_of(own) for label, own in runs.items()}
    methods = list(dict.fromkeys(name for gains in found.values() for name in gains))
    columns = [
        (label, target)
        for label, gains in found.items()
        for target in dict.fromkeys(name for of in gains.values() for name in of)
    ]
    values = [
        [found[label].get(method, {}).get(target, np.nan) for label, target in columns]
        for method in methods
    ]
    return methods, [f"{label} {target}" for label, target in columns], np.array(values)


def draw(methods: Sequence[str], columns: Sequence[str], values: np.ndarray, file: Path) -> None:
    """Blue where a method gains, red where it loses; losses below the scale are as strong."""
    figure, ((axes,),) = create_figure(2.4 + 0.9 * len(columns), 1.4 + 0.3 * len(methods))
    image = axes.imshow(values, cmap="RdBu", vmin=-_MOST, vmax=_MOST, aspect="auto")
    axes.set_xticks(range(len(columns)), map(literal, columns), rotation=30, ha="right")
    axes.set_yticks(range(len(methods)), map(literal, methods))
    axes.tick_params(length=0, labelsize=SMALL)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if abs(value) > 0.7 * _MOST else "black"
            axes.text(
                column, row, f"{value:+.2f}", ha="center", va="center", fontsize=SMALL, color=colour
            )
    bar = figure.colorbar(image, ax=axes, extend="both")
    bar.set_label("gain over the source model", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    save_figure(figure, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    runs: dict[str, list[Path]] = {}
    for label, _, run in (one.rpartition("=") for one in asked.runs):
        runs.setdefault(label, []).append(Path(run))
    methods, columns, values = table_of(runs)
    rows = [
        [f"`{method}`", *("" if np.isnan(value) else f"{value:+.3f}" for value in row)]
        for method, row in zip(methods, values, strict=True)
    ]
    print(render(["method", *columns], rows, markdown=True))
    if asked.figure:
        draw(methods, columns, values, asked.figure)


if __name__ == "__main__":
    main()
