"""What a stream showed: domains, evidence for new ones and confidence, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError
from domainnorm.report.canvas import (
    INK,
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

_SMOOTHED = 60  # parts of the stream over which confidence is averaged


def save_timeline(
    weights: Mapping[str, Sequence[float]],
    evidence: Sequence[float],
    confidence: Sequence[float],
    alarms: Mapping[int, str],
    run_length: float,
    path: str | PathLike[str],
    title: str = "",
) -> None:
    """Draw the weights of domains, the evidence for a new one, and confidence against the image.

    Args:
        weights: Domain -> its weight at each image, (N,); zero before it was opened.
        evidence: For a new domain, at each image, (N,), > 0.
        confidence: Of the prediction, at each image, (N,); drawn as a running mean.
        alarms: Image -> what came of the alarm there.
        run_length: Evidence at which there is an alarm.
        path: File to write; its suffix decides the format.
        title: Heading.

    Raises:
        EvaluationError: No images.
    """
    number = len(evidence)
    if not number:
        raise EvaluationError("save_timeline: got no images, expected at least one")
    figure = create_figure(9.0, 6.0)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
    images = np.arange(number)
    names, colours = list(weights), assign_colours(weights)
    upper.stackplot(
        images,
        *(np.asarray(weights[name], dtype=float) for name in names),
        labels=[literal(name) for name in names],
        colors=[colours[name] for name in names],
        linewidth=0,
    )
    upper.set_ylim(0, 1)
    upper.set_ylabel("domain weights", fontsize=NORMAL)
    upper.legend(fontsize=SMALL, frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(0, 1))
    middle.semilogy(images, np.maximum(np.asarray(evidence, dtype=float), 0.1), color=INK, lw=1)
    middle.axhline(run_length, color=MUTED, linestyle="--", linewidth=0.8)
    middle.set_ylim(0.1, run_length * 5)
    middle.set_ylabel("evidence for a\nnew domain", fontsize=NORMAL)
    lower.plot(images, running_mean(confidence, max(1, number // _SMOOTHED)), color=INK, lw=1)
    lower.set_ylabel("confidence", fontsize=NORMAL)
    lower.set_xlabel("image", fontsize=NORMAL)
    for axes in (upper, middle, lower):
        clear_frame(axes)
        axes.set_xlim(0, max(1, number - 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for image in alarms:
            axes.axvline(image, color=INK, linestyle=":", linewidth=1)
    for image, label in alarms.items():
        middle.annotate(
            literal(label), (image, run_length), (3, -9), textcoords="offset points", fontsize=SMALL
        )
    figure.suptitle(literal(title), fontsize=LARGE)
    save_figure(figure, path)


def running_mean(values: Sequence[float], width: int) -> NDArray[np.float64]:
    """Mean of the last ``width`` values at each place, of fewer at the start; nan counts not."""
    given = np.asarray(values, dtype=float)
    known = np.isfinite(given)
    total = np.concatenate([[0.0], np.where(known, given, 0.0).cumsum()])
    count = np.concatenate([[0], known.cumsum()])
    places = np.arange(1, len(given) + 1)
    first = np.maximum(0, places - width)
    numbers = np.maximum(1, count[places] - count[first])
    mean: NDArray[np.float64] = (total[places] - total[first]) / numbers
    return mean
