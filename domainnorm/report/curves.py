"""Training curves, from the metrics.csv that Lightning's CSVLogger writes."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from domainnorm.evaluation import EvaluationError
from domainnorm.report.canvas import (
    LARGE,
    NORMAL,
    SMALL,
    assign_colours,
    clear_frame,
    create_figure,
    literal,
    panel_grid,
    readable,
    save_figure,
    sentence,
)

Curve = dict[float, float]  # epoch → mean over the rows of that epoch
_TRAIN = "train"


def save_curves(metrics_csv: str | PathLike[str], path: str | PathLike[str]) -> None:
    """Draw the losses and every validation metric against the epoch, a panel per metric.

    Rows of ``metrics_csv`` are sparse: each holds what was logged at one step. Several rows of one
    epoch are averaged, and of ``train/loss_step`` and ``train/loss_epoch`` the second one counts.

    Args:
        metrics_csv: File with columns ``epoch``, ``train/loss``, ``val/<domain>/<metric>``.
        path: File to write; its suffix decides the format.

    Raises:
        EvaluationError: The file cannot be read or holds no such column.
    """
    panels = _read_panels(Path(metrics_csv))
    colours = assign_colours(name for curves in panels.values() for name in curves)
    rows, columns = panel_grid(len(panels), 3)
    figure = create_figure(4.2 * columns, 2.9 * rows)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (metric, curves) in zip(places, panels.items(), strict=False):
        _draw_panel(axes, metric, curves, colours)
    for axes in places[len(panels) :]:
        axes.remove()
    save_figure(figure, path)


def _draw_panel(axes: Axes, metric: str, curves: dict[str, Curve], colours: dict[str, str]) -> None:
    drawn, ends = {}, {}
    for name, curve in curves.items():
        # matplotlib leaves out what is not finite; the label says so instead of the curve.
        drawn[name] = {epoch: y for epoch, y in sorted(curve.items()) if math.isfinite(y)}
        ends[name] = "" if max(curve) in drawn[name] else " (then not finite)"
    for name, curve in drawn.items():
        style, marker = "--" if name == _TRAIN else "-", "o" if len(curve) < 3 else ""
        axes.plot(
            list(curve), list(curve.values()), style, marker=marker, color=colours[name], lw=1.6
        )
    lost = ", ".join(name for name, curve in drawn.items() if not curve)
    title = sentence(readable(metric)) + (f" (never finite: {lost})" if lost else "")
    axes.set_title(literal(title), fontsize=LARGE, loc="left")
    axes.set_xlabel("epoch", fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    clear_frame(axes)
    labels = {name + ends[name]: (curve, colours[name]) for name, curve in drawn.items() if curve}
    _label_ends(axes, labels)


def _read_panels(path: Path) -> dict[str, dict[str, Curve]]:
    """Metric → name of the curve → curve; the loss first."""
    sums: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            places = _places(reader.fieldnames or [])
            for row in reader:
                for column, place in places.items():
                    if row[column]:
                        sums[place][float(row["epoch"])].append(float(row[column]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{path}: cannot be read as training metrics ({type(error).__name__}: {error}); "
            "expected the metrics.csv of a run"
        ) from error
    if not sums:
        raise EvaluationError(
            f"{path}: no values under train/loss or val/<domain>/<metric>; expected at least one "
            "finished epoch"
        )
    panels: dict[str, dict[str, Curve]] = defaultdict(dict)
    for metric, name in sorted(sums, key=lambda place: (place[0] != "loss", place[1] != _TRAIN)):
        epochs = sums[metric, name]
        panels[metric][name] = {epoch: sum(v) / len(v) for epoch, v in epochs.items()}
    return panels


def _places(columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Column → (metric, name of the curve), for the columns that are drawn."""
    found = {}
    for column in columns:
        head, _, rest = column.partition("/")
        domain, _, metric = rest.rpartition("/")
        if head == "val" and metric not in ("", "n"):  # n is how many images there are
            found[column] = (metric, domain or "validation")
    for preferred in ("train/loss_epoch", "train/loss", "train/loss_step"):
        if preferred in columns:
            return {preferred: ("loss", _TRAIN), **found}
    return found


def _label_ends(axes: Axes, curves: dict[str, tuple[Curve, str]]) -> None:
    """Write each curve's label at its right end, moved apart vertically where ends are close."""
    low, high = axes.get_ylim()
    # A line of text takes about a fifteenth of a panel's height.
    step = (high - low) / 15
    ends = sorted((curve[max(curve)], max(curve), label) for label, (curve, _) in curves.items())
    heights = [value for value, _, _ in ends]
    for upper in range(1, len(heights)):
        heights[upper] = max(heights[upper], heights[upper - 1] + step)
    for lower in range(len(heights) - 1, -1, -1):
        ceiling = heights[lower + 1] - step if lower + 1 < len(heights) else high
        heights[lower] = min(heights[lower], ceiling)
    for y, (_, epoch, label) in zip(heights, ends, strict=True):
        axes.annotate(
            literal(label),
            (epoch, y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=curves[label][1],
            annotation_clip=False,
        )
