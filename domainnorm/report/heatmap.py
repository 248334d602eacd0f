"""The cross-domain matrix as a picture."""

from __future__ import annotations

import math
import textwrap
from os import PathLike
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle

from domainnorm.evaluation import LOWER_IS_BETTER, CrossDomainMatrix, MetricSummary
from domainnorm.report.canvas import (
    INK,
    LARGE,
    MISSING,
    MUTED,
    NORMAL,
    SMALL,
    create_figure,
    literal,
    readable,
    save_figure,
    sentence,
)

_CELL_WIDTH, _CELL_HEIGHT = 0.95, 0.62  # inches; "[0.85, 0.90]" at 8 points just fits


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
        metric: One of the matrix.
        path: File to write; its suffix decides the format.
        title: Heading; empty for the metric's name.
        row_label: What a row is.
        column_label: What a column is.

    Raises:
        EvaluationError: The metric is unknown.
    """
    intervals = matrix.intervals(metric)
    summary = matrix.summary()[metric]
    rows, columns = len(matrix.rows), len(matrix.columns)
    longest = max(map(len, [*matrix.rows, *matrix.columns]))
    width = max(4.6, columns * _CELL_WIDTH + 1.7 + 0.07 * max(map(len, matrix.rows)))
    caption = textwrap.wrap(_caption(matrix, metric, summary), int(width * 14.5))
    figure = create_figure(width, rows * _CELL_HEIGHT + 1.3 + 0.07 * longest + 0.16 * len(caption))
    axes = figure.add_subplot()
    colours, scale = _colours(metric, summary)
    image = axes.imshow(np.ma.masked_invalid(summary.mean), cmap=colours, norm=scale, aspect="auto")
    single = intervals[0] if len(matrix.seeds) == 1 else np.full((rows, columns, 2), np.nan)
    for row in range(rows):
        for column in range(columns):
            mean, std = summary.mean[row, column], summary.std[row, column]
            ink = INK if math.isnan(mean) else _ink(colours(scale(mean)))
            _write_cell(axes, (row, column), (mean, std, *single[row, column]), ink)
            if matrix.rows[row] == matrix.columns[column]:
                _outline(axes, row, column)
    _label_axes(axes, matrix, row_label, column_label)
    axes.set_title(literal(title or sentence(readable(metric))), fontsize=LARGE, color=INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(_direction(metric), fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    figure.supxlabel(literal("\n".join(caption)), fontsize=SMALL, color=MUTED)
    save_figure(figure, path)


def save_heatmaps(
    matrix: CrossDomainMatrix,
    folder: str | PathLike[str],
    *,
    row_label: str = "model",
    column_label: str = "test domain",
) -> list[Path]:
    """Draw each metric as ``<folder>/<metric>.png``, but those of single classes and the NLL.

    Returns:
        The files written.
    """
    metrics = [metric for metric in matrix.metrics if "/" not in metric and metric != "nll"]
    paths = [Path(folder) / f"{metric}.png" for metric in metrics]
    for metric, path in zip(metrics, paths, strict=True):
        save_heatmap(matrix, metric, path, row_label=row_label, column_label=column_label)
    return paths


def _colours(metric: str, summary: MetricSummary) -> tuple[Colormap, Normalize]:
    """The whole range of the metric, so that equal colours mean equal values in every figure."""
    lower = metric in LOWER_IS_BETTER
    known = summary.mean[~np.isnan(summary.mean)]
    top = max(float(known.max(initial=0.0)), 0.1) if lower else 1.0
    colours = matplotlib.colormaps["cividis_r" if lower else "cividis"]
    return colours.with_extremes(bad=MISSING), Normalize(0, top)


def _ink(background: tuple[float, float, float, float]) -> str:
    """Black or white, whichever contrasts more with ``background`` (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def _write_cell(
    axes: Axes, place: tuple[int, int], numbers: tuple[float, float, float, float], ink: str
) -> None:
    row, column = place
    mean, std, low, high = numbers
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


def _label_axes(axes: Axes, matrix: CrossDomainMatrix, row_label: str, column_label: str) -> None:
    room = int(_CELL_WIDTH * 13)  # characters of a horizontal label that fit over one cell
    slanted = max(map(len, matrix.columns)) > room
    axes.set_xticks(range(len(matrix.columns)), [literal(name) for name in matrix.columns])
    axes.set_yticks(range(len(matrix.rows)), [literal(name) for name in matrix.rows])
    axes.tick_params(labelsize=NORMAL, length=0)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlabel(literal(column_label), fontsize=NORMAL, fontweight="bold")
    axes.set_ylabel(literal(row_label), fontsize=NORMAL, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(1, len(matrix.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(matrix.rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)


def _direction(metric: str) -> str:
    side = "lower" if metric in LOWER_IS_BETTER else "higher"
    return f"{readable(metric)} ({side} is better)"


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
