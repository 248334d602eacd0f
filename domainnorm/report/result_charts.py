"""Charts of results: methods side by side on every target domain, and training curves."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from domainnorm.evaluation import EvaluationError, readable, sentence
from domainnorm.report.figure import (
    INK,
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    assign_colours,
    clear_frame,
    create_figure,
    direction,
    literal,
    panel_grid,
    save_figure,
)
from domainnorm.report.results import (
    Cell,
    Result,
    by_transfer,
    check_results,
    collect_cell,
    label_mark,
    label_notes,
    method_order,
)
from domainnorm.storage import DAMAGED

_BAR_WIDTH = 0.36  # inches; "0.87" at 8 points fits above it
_BARS_PER_ROW = 30
_TRAIN = "train"
Curve = dict[float, float]  # epoch → mean over the rows of that epoch


def save_results_bars(results: Sequence[Result], metric: str, path: str | PathLike[str]) -> None:
    """Draw a group of bars per transfer and target domain, a bar per method.

    Bars are means over seeds with ± one standard deviation and a dot per seed; with one seed the
    whisker is its bootstrap interval. Methods that saw target labels are hatched, and marked as in
    tables.

    Args:
        results: Results of a run; those on source domains are left out.
        metric: A metric of the results.
        path: File to write; its suffix decides the format.

    Raises:
        EvaluationError: No results, none on a target, an unknown metric, a repeated result.
    """
    check_results(results, metric)
    methods = method_order(results)
    colours = assign_colours(methods)
    marks = {name: label_mark([one for one in results if one.method == name]) for name in methods}
    hatches = {method: "////" if mark else "" for method, mark in marks.items()}
    groups = _groups(results, metric, methods)
    per_row = max(1, _BARS_PER_ROW // (len(methods) + 1))
    lines = [groups[start : start + per_row] for start in range(0, len(groups), per_row)]
    widest = max(map(len, lines))
    width = max(5.5, widest * (len(methods) + 1) * _BAR_WIDTH + 0.9)
    figure, grid = create_figure(width, 3.1 * len(lines) + 0.8, len(lines))
    for axes, line in zip(grid[:, 0], lines, strict=True):
        for place, (_, cells) in enumerate(line):
            for number, method in enumerate(methods):
                x = place + (number - (len(methods) - 1) / 2) / (len(methods) + 1)
                style = colours[method], hatches[method], len(methods)
                _draw_bar(axes, x, cells[number], style)
        axes.set_xlim(-0.55, widest - 0.45)
        axes.set_xticks(range(len(line)), [literal(name) for name, _ in line])
        axes.set_ylabel(direction(metric), fontsize=SMALL)
        clear_frame(axes)
        axes.tick_params(axis="x", length=0, labelsize=NORMAL)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
    handles = []
    for method, hatch in hatches.items():
        label, fill = f"{method}{marks[method]}", colours[method]
        handles.append(Patch(facecolor=fill, hatch=hatch, edgecolor="white", label=label))
    ncols = max(1, min(len(methods), int(width / 1.9)))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=ncols, fontsize=SMALL, frameon=False
    )
    caption = "\n".join([_caption(results), *label_notes(results)])
    figure.supxlabel(caption, fontsize=SMALL, color=MUTED)
    save_figure(figure, path)


def _groups(
    results: Sequence[Result], metric: str, methods: Sequence[str]
) -> list[tuple[str, list[Cell]]]:
    """A label and one cell per method for every target domain of every transfer."""
    transfers = by_transfer(results)
    groups = []
    for transfer, own in transfers.items():
        for domain in dict.fromkeys(result.domain for result in own if result.role == "target"):
            label = domain if len(transfers) == 1 else f"{domain}\n({transfer})"
            groups.append((label, [collect_cell(own, metric, name, domain) for name in methods]))
    if not groups:
        raise EvaluationError(
            f"save_results_bars: no result on a target domain among {len(results)}; expected at "
            "least one with role 'target'"
        )
    return groups


def _draw_bar(axes: Axes, x: float, cell: Cell, style: tuple[str, str, int]) -> None:
    colour, hatch, siblings = style
    spread, width = cell.spread, 0.92 / (siblings + 1)
    if spread.n == 0:
        axes.text(x, 0.0, "–", ha="center", va="bottom", fontsize=SMALL, color=MUTED)
        return
    axes.bar(x, spread.mean, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    low = high = spread.mean
    if not math.isnan(spread.std):
        low, high = spread.mean - spread.std, spread.mean + spread.std
        dots = [x + width * 0.22] * spread.n
        axes.plot(
            dots, list(cell.by_seed.values()), "o", ms=3.2, mfc="white", mec=INK, mew=0.7, zorder=4
        )
    elif cell.interval is not None:
        low, high = cell.interval
    if high > low:
        axes.plot([x, x], [low, high], color=INK, linewidth=1.1, zorder=3)
    place, text = (x, max(high, spread.high)), f"{spread.mean:.2f}"
    axes.annotate(
        text, place, (0, 3), textcoords="offset points", ha="center", fontsize=SMALL, color=INK
    )


def _caption(results: Sequence[Result]) -> str:
    seeds = len({result.seed for result in results})
    if seeds > 1:
        return f"Whiskers: ± one standard deviation over {seeds} seeds; dots: single seeds"
    return "Whiskers: bootstrap interval over test data; one seed"


def save_curves(
    metrics_csv: str | PathLike[str], path: str | PathLike[str], metrics: Sequence[str] = ()
) -> None:
    """Draw the losses and validation metrics against the epoch, a panel per metric.

    Rows of ``metrics_csv`` are sparse: each holds what was logged at one step. Several rows of one
    epoch are averaged, and of ``train/loss_step`` and ``train/loss_epoch`` the second one counts.

    Args:
        metrics_csv: File with columns ``epoch``, ``train/loss``, ``val/<domain>/<metric>``.
        path: File to write; its suffix decides the format.
        metrics: Which are drawn; all when empty. The losses are drawn in any case.

    Raises:
        EvaluationError: The file cannot be read or holds no such column.
    """
    panels = _read_panels(Path(metrics_csv))
    if metrics:
        panels = {name: of for name, of in panels.items() if name in ("loss", *metrics)}
    colours = assign_colours(name for curves in panels.values() for name in curves)
    rows, columns = panel_grid(len(panels), 3)
    figure, grid = create_figure(4.2 * columns, 2.9 * rows, rows, columns)
    for axes, (metric, curves) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, metric, curves, colours)
    for axes in grid.flat[len(panels) :]:
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
    except DAMAGED as error:
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
