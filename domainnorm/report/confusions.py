"""Which classes are taken for which, per domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.evaluation import Evaluated, EvaluationError, Predictions, SegmentationCounts
from domainnorm.report.canvas import (
    LARGE,
    NORMAL,
    SMALL,
    create_figure,
    literal,
    panel_grid,
    save_figure,
)

_MOST_NUMBERED = 12  # classes; beyond, numbers of 8 points no longer fit into their cells


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
    figure = create_figure(columns * (size + 0.35) + margin, rows * (size + 0.45) + margin)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
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
        counts = _confusion(evaluated.labelled()).double()
    elif isinstance(evaluated, SegmentationCounts):
        counts = evaluated.confusion.sum(dim=0).double()
    else:
        raise EvaluationError(
            f"save_confusions: '{domain}' has {evaluated.kind} predictions, expected one class "
            "per sample or pixel"
        )
    return (counts / counts.sum(dim=1, keepdim=True)).numpy()


def _confusion(labelled: Predictions) -> Tensor:
    """Samples of each true class (rows) predicted as each class, (K, K)."""
    classes = labelled.num_classes
    cell = labelled.target * classes + labelled.probabilities.argmax(dim=1)
    return torch.bincount(cell, minlength=classes**2).view(classes, classes)


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
            axes.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="white" if share > 0.55 else "black",
            )
