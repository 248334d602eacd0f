"""Heatmaps: the cross-domain matrix, and which classes are taken for which."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from domainnorm.evaluation import (
    LOWER_IS_BETTER,
    CrossDomainMatrix,
    Evaluated,
    EvaluationError,
    MetricSummary,
    Predictions,
    SegmentationCounts,
    confusion_counts,
    readable,
    sentence,
)
from domainnorm.report.figure import (
    INK,
    LARGE,
    MISSING,
    MUTED,
    NORMAL,
    SMALL,
    create_figure,
    direction,
    literal,
    panel_grid,
    save_figure,
)

_CELL_WIDTH, _CELL_HEIGHT = 0.95, 0.62  # inches; "[0.85, 0.90]" at 8 points just fits
_MOST_NUMBERED = 12  # classes; beyond, numbers of 8 points no longer fit into their cells
_MAIN_METRICS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "ece"),
    *("miou", "dice", "boundary_iou"),
    *("auroc", "average_precision"),
)


def save_heatmap(
    matrix: CrossDomainMatrix,
    metric: str,
    path: str | PathLike[str],
    title: str = "",
    row_label: str = "model",
    column_label: str = "test domain",
) -> None:
    """Draw one metric of ``matrix``: mean ± spread over seeds, or value and interval of one seed.

    Cells whose row and column have the same name are outlined, missing cells show a dash. Brighter
    is better for every metric.

    Args:
        matrix: The matrix; up to about 12 × 12 it reads well on one page.
        metric: One of the matrix's ``metrics``.
        path: File to write; its suffix decides the format.
        title: Heading; empty for the metric's name.
        row_label: What a row is.
        column_label: What a column is.

    Raises:
        EvaluationError: The metric is unknown.
    """
    intervals = matrix.intervals(metric)
    summary = matrix.summary()[metric]
    shape = len(matrix.rows), len(matrix.columns), 2
    single = intervals[0] if len(matrix.seeds) == 1 else np.full(shape, np.nan)
    numbers = np.stack([summary.mean, summary.std, *np.moveaxis(single, 2, 0)], axis=2)
    save_grid(
        Names(matrix.rows, matrix.columns, row_label, column_label),
        numbers,
        metric,
        path,
        title=title,
        caption=_caption(matrix, metric, summary),
    )


class Names(NamedTuple):
    """What rows and columns of a grid are, and are called."""

    rows: Sequence[str]
    columns: Sequence[str]
    row_label: str
    column_label: str


def save_grid(
    names: Names,
    numbers: NDArray[np.float64],
    metric: str,
    path: str | PathLike[str],
    *,
    title: str = "",
    caption: str = "",
) -> None:
    """Draw a cell for each row and column, in the colour of its value.

    Args:
        names: Of R rows and C columns.
        numbers: Value, spread, and the lower and upper end of an interval, (R, C, 4); nan for what
            is not there.
        metric: What the value is.
        path: File to write; its suffix decides the format.
        title: Heading; empty for the metric's name.
        caption: Below the figure.
    """
    rows, columns = len(names.rows), len(names.columns)
    longest = max(map(len, [*names.rows, *names.columns]))
    width = max(4.6, columns * _CELL_WIDTH + 1.7 + 0.07 * max(map(len, names.rows)))
    lines = textwrap.wrap(caption, int(width * 14.5))
    height = rows * _CELL_HEIGHT + 1.3 + 0.07 * longest + 0.16 * len(lines)
    figure, ((axes,),) = create_figure(width, height)
    mean = numbers[..., 0]
    colours, scale = _colours(metric, mean)
    image = axes.imshow(np.ma.masked_invalid(mean), cmap=colours, norm=scale, aspect="auto")
    for row in range(rows):
        for column in range(columns):
            ink = INK if np.isnan(mean[row, column]) else _ink(colours(scale(mean[row, column])))
            _write_cell(axes, (row, column), numbers[row, column], ink)
            if names.rows[row] == names.columns[column]:
                _outline(axes, row, column)
    _label_axes(axes, names)
    axes.set_title(literal(title or sentence(readable(metric))), fontsize=LARGE, color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(direction(metric), fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    figure.supxlabel(literal("\n".join(lines)), fontsize=SMALL, color=MUTED)
    save_figure(figure, path)


def save_heatmaps(
    matrix: CrossDomainMatrix,
    folder: str | PathLike[str],
    *,
    row_label: str = "model",
    column_label: str = "test domain",
) -> list[Path]:
    """Draw the main metrics of the matrix as ``<folder>/<metric>.png``.

    Returns:
        The files written.
    """
    shown = [metric for metric in _MAIN_METRICS if metric in matrix.metrics]
    paths = [Path(folder) / f"{metric}.png" for metric in shown]
    for metric, path in zip(shown, paths, strict=True):
        save_heatmap(matrix, metric, path, row_label=row_label, column_label=column_label)
    return paths


def _colours(metric: str, mean: NDArray[np.float64]) -> tuple[Colormap, Normalize]:
    """The whole range of the metric, so that equal colours mean equal values in every figure."""
    lower = metric in LOWER_IS_BETTER
    known = mean[~np.isnan(mean)]
    top = max(float(known.max(initial=0.0)), 0.1) if lower else 1.0
    colours = matplotlib.colormaps["cividis_r" if lower else "cividis"]
    return colours.with_extremes(bad=MISSING), Normalize(0, top)


def _ink(background: tuple[float, float, float, float]) -> str:
    """Black or white, whichever contrasts more with ``background`` (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def _write_cell(axes: Axes, place: tuple[int, int], numbers: NDArray[np.float64], ink: str) -> None:
    row, column = place
    mean, std, low, high = map(float, numbers)
    detail = ""
    if not math.isnan(std):
        detail = f"± {std:.3f}"
    elif not math.isnan(low):
        detail = f"[{low:.2f}, {high:.2f}]"
    value = "–" if math.isnan(mean) else f"{mean:.3f}"
    rise = 0.13 if detail else 0.0
    axes.text(column, row - rise, value, ha="center", va="center", fontsize=LARGE, color=ink)
    axes.text(column, row + 0.2, detail, ha="center", va="center", fontsize=SMALL, color=ink)


def _outline(axes: Axes, row: int, column: int) -> None:
    # White under black shows on dark and on bright cells.
    for colour, width in (("white", 4.0), ("black", 2.0)):
        corner = (column - 0.46, row - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width))


def _label_axes(axes: Axes, names: Names) -> None:
    room = int(_CELL_WIDTH * 13)  # characters of a horizontal label that fit over one cell
    axes.set_xticks(range(len(names.columns)), [literal(name) for name in names.columns])
    axes.set_yticks(range(len(names.rows)), [literal(name) for name in names.rows])
    axes.tick_params(labelsize=NORMAL, length=0)
    if max(map(len, names.columns)) > room:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlabel(literal(names.column_label), fontsize=NORMAL, fontweight="bold")
    axes.set_ylabel(literal(names.row_label), fontsize=NORMAL, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(names.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(names.rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)


def _caption(matrix: CrossDomainMatrix, metric: str, summary: MetricSummary) -> str:
    parts = []
    if not math.isnan(summary.off_diagonal):
        cells = "over all cells" if math.isnan(summary.diagonal) else "off-diagonal"
        parts.append(f"mean {cells} {summary.off_diagonal:.3f}")
    if not math.isnan(summary.diagonal):
        parts.append(f"mean diagonal {summary.diagonal:.3f}")
    if summary.worst:
        pick = max if metric in LOWER_IS_BETTER else min
        row, (column, value) = pick(summary.worst.items(), key=lambda item: item[1][1])
        parts.append(f"worst {value:.3f} ({row} on {column})")
    count = len(matrix.seeds)
    if count == 1:
        parts.append("1 seed")
        parts.append(
            f"[ ] = {100 * matrix.confidence:g} % bootstrap interval over {matrix.interval_unit}"
        )
    else:
        fewest = int(summary.count[summary.count > 0].min(initial=count))
        parts.append(f"{count} seeds" if fewest == count else f"{fewest} to {count} seeds")
        parts.append("±\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}standard deviation over seeds")
    return sentence("\N{NO-BREAK SPACE}· ".join(parts))


def save_confusions(
    predictions: Mapping[str, Evaluated], class_names: Sequence[str], path: str | PathLike[str]
) -> None:
    """Draw a confusion matrix per domain, each row divided by its number of samples, or pixels.

    Classes without samples have an empty row with a dash. Cells below half a percent carry no
    number.

    Args:
        predictions: Domain → `Predictions` or `SegmentationCounts`; samples and pixels without a
            label are left out.
        class_names: Names of the K classes.
        path: File to write; its suffix decides the format.

    Raises:
        EvaluationError: There is no domain, the number of classes is not K, or samples have
            several findings, which exclude each other in no confusion matrix.
    """
    classes = len(class_names)
    if not predictions:
        raise EvaluationError("save_confusions: no domain came, expected at least one")
    confusions = {domain: _fractions(domain, one) for domain, one in predictions.items()}
    for domain, one in confusions.items():
        if len(one) != classes:
            raise EvaluationError(
                f"save_confusions: {classes} class names for the {len(one)} classes of "
                f"'{domain}'; give one name per class"
            )
    rows, columns = panel_grid(len(predictions), 3)
    size = min(max(1.9, 0.37 * classes), 6.0)
    margin = 0.5 + 0.075 * max(map(len, class_names))
    width, height = columns * (size + 0.35) + margin, rows * (size + 0.45) + margin
    figure, grid = create_figure(width, height, rows, columns, sharex=True, sharey=True)
    for axes, (domain, one) in zip(grid.ravel(), confusions.items(), strict=False):
        _draw(axes, one)
        axes.set_title(literal(domain), fontsize=LARGE)
    for axes in grid.ravel()[len(predictions) :]:
        axes.set_axis_off()
    slant = 0 if max(map(len, class_names)) <= 2 else 90
    ticks, labels = range(classes), [literal(name) for name in class_names]
    if classes <= 3 * _MOST_NUMBERED:
        for axes in grid.ravel()[: len(predictions)]:
            axes.set_yticks(ticks, labels, fontsize=SMALL)
            axes.set_xticks(ticks, labels, fontsize=SMALL, rotation=slant)
    for axes in grid.ravel()[max(0, len(predictions) - columns) : len(predictions)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("predicted class (% of each true class)", fontsize=NORMAL, fontweight="bold")
    figure.supylabel("true class", fontsize=NORMAL, fontweight="bold")
    save_figure(figure, path)


def _fractions(domain: str, evaluated: Evaluated) -> NDArray[np.float64]:
    """Fraction of each true class (rows) predicted as each class, (K, K); nan without samples."""
    if isinstance(evaluated, Predictions):
        guess, truth = evaluated.probabilities.argmax(dim=1), evaluated.target
        counts = confusion_counts(guess[None, None], truth[None, None], evaluated.num_classes)
    elif isinstance(evaluated, SegmentationCounts):
        counts = evaluated.confusion
    else:
        raise EvaluationError(
            f"save_confusions: '{domain}' has {evaluated.kind} predictions, expected one class "
            "per sample or pixel"
        )
    total = counts.sum(dim=0).double()
    return (total / total.sum(dim=1, keepdim=True)).numpy()


def _draw(axes: Axes, confusion: NDArray[np.float64]) -> None:
    axes.imshow(np.ma.masked_invalid(confusion), cmap="Blues", vmin=0, vmax=1)
    axes.tick_params(length=0)
    if len(confusion) > _MOST_NUMBERED:
        return
    for row, fractions in enumerate(confusion):
        if np.isnan(fractions).all():
            axes.text((len(confusion) - 1) / 2, row, "–", ha="center", va="center", fontsize=SMALL)
            continue
        for column in np.flatnonzero(fractions >= 0.005).tolist():
            share = fractions[column]
            ink, percent = "white" if share > 0.55 else "black", f"{100 * share:.0f}"
            axes.text(column, row, percent, ha="center", va="center", fontsize=SMALL, color=ink)
