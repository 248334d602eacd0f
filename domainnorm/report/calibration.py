"""Reliability diagrams: how often a prediction of given confidence is right."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from matplotlib.axes import Axes

from domainnorm.evaluation import (
    EvaluationError,
    Predictions,
    calibration_bins,
)
from domainnorm.report.canvas import (
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    create_figure,
    literal,
    panel_grid,
    save_figure,
)

_ACCURACY, _GAP = "#0072b2", "#d55e00"


def save_reliability(
    predictions: Mapping[str, Predictions], path: str | PathLike[str], bins: int = 15
) -> None:
    """Draw accuracy against confidence per domain, over a histogram of the confidences.

    Points below the diagonal are overconfident. Their distance to it, weighted by the share of
    samples, is the expected calibration error.

    Args:
        predictions: Domain → predictions; samples without a label are left out.
        path: File to write; its suffix decides the format.
        bins: Number of equal-width bins.

    Raises:
        EvaluationError: There is no domain, a domain has no labelled sample, ``bins`` < 1.
    """
    if not predictions:
        raise EvaluationError("save_reliability: no domain came, expected at least one")
    rows, columns = panel_grid(len(predictions), 4)
    figure = create_figure(2.7 * columns + 0.4, 3.4 * rows + 0.2)
    ratios = [3.0, 1.0] * rows
    grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=ratios)
    for number, (domain, one) in enumerate(predictions.items()):
        row, column = divmod(number, columns)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        _draw(upper, lower, one, bins)
        upper.set_title(literal(domain), fontsize=LARGE)
        if column == 0:
            upper.set_ylabel("accuracy", fontsize=NORMAL)
            lower.set_ylabel("share of\nsamples", fontsize=SMALL)
        lower.set_xlabel("confidence", fontsize=NORMAL)
        lower.tick_params(labelbottom=True)
    for number in range(len(predictions), rows * columns):
        row, column = divmod(number, columns)
        grid[2 * row, column].remove()
        grid[2 * row + 1, column].remove()
    save_figure(figure, path)


def _draw(upper: Axes, lower: Axes, predictions: Predictions, bins: int) -> None:
    found = calibration_bins(predictions, bins)
    values = predictions.metrics(bins=bins)
    filled = (found.count > 0).nonzero().squeeze(1)
    x, y = found.confidence[filled].numpy(), found.accuracy[filled].numpy()
    share = (found.count / found.count.sum()).numpy()
    upper.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=0.9)
    upper.vlines(x, y, x, color=_GAP, linewidth=2.2, alpha=0.6)
    upper.plot(x, y, "o-", color=_ACCURACY, markersize=4, linewidth=1.4, clip_on=False)
    text = f"ECE {values['ece']:.3f}\naccuracy {values['accuracy']:.3f}\nn = {values['n']:.0f}"
    upper.text(0.03, 0.97, text, transform=upper.transAxes, va="top", fontsize=SMALL)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    edges = found.edges.numpy()
    lower.bar(edges[:-1], share, width=1 / bins, align="edge", color="#a9bcd0", edgecolor="white")
    lower.set_ylim(0, None)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SMALL)
