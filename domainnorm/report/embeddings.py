"""Where a domain encoder puts the images of each domain."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError
from domainnorm.report.canvas import (
    INK,
    LARGE,
    NORMAL,
    SMALL,
    assign_colours,
    create_figure,
    literal,
    save_figure,
)


def save_embeddings(
    points: Mapping[str, NDArray[Any]], path: str | PathLike[str], title: str = ""
) -> None:
    """Draw embeddings on their first two principal axes, a colour and a mean for each domain.

    The axes are those of all points together (singular vectors of the centred points); their labels
    give the share of the variance that lies along each.

    Args:
        points: Domain -> embeddings (N, E), E ≥ 2.
        path: File to write; its suffix decides the format.
        title: Heading.

    Raises:
        EvaluationError: Fewer than two points in all, or points of one axis.
    """
    everything = np.concatenate([np.asarray(one, dtype=float) for one in points.values()])
    if len(everything) < 2 or everything.shape[1] < 2:
        raise EvaluationError(
            f"save_embeddings: got points {everything.shape}, expected at least two of two axes"
        )
    centre = everything.mean(0)
    _, sizes, axes_of = np.linalg.svd(everything - centre, full_matrices=False)
    shares = sizes**2 / max(float((sizes**2).sum()), 1e-30)
    figure = create_figure(6.4, 4.8)
    axes = figure.add_subplot()
    for name, colour in assign_colours(points).items():
        places = (np.asarray(points[name], dtype=float) - centre) @ axes_of[:2].T
        label = f"{literal(name)} ({len(places)})"
        across, up = places.T
        axes.scatter(across, up, s=14, color=colour, alpha=0.55, linewidths=0, label=label)
        mean = float(across.mean()), float(up.mean())
        axes.scatter(*mean, 70, color=colour, marker="X", edgecolors=INK, zorder=3)
    axes.set_xlabel(f"first axis, {shares[0]:.0%} of the variance", fontsize=NORMAL)
    axes.set_ylabel(f"second axis, {shares[1]:.0%}", fontsize=NORMAL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="best")
    figure.suptitle(literal(title), fontsize=LARGE)
    save_figure(figure, path)
