"""Charts of domains: along a stream, in the space of an encoder, and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError
from domainnorm.report.figure import (
    INK,
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
_LEAST = 1e-6  # what is equal is drawn at the lower edge of a logarithmic axis


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
    figure, grid = create_figure(9.0, 6.0, 3, sharex=True, height_ratios=[2, 1, 1])
    upper, middle, lower = grid[:, 0]
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
    save_figure(figure, path, title)


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
    figure, ((axes,),) = create_figure(6.4, 4.8)
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
    save_figure(figure, path, title)


def save_layer_differences(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    paths: Sequence[str],
    path: str | PathLike[str],
    title: str = "",
) -> None:
    """Draw differences of pairs of domains against the layers, one panel for each kind.

    Args:
        curves: Kind of difference -> pair of domains -> a value for each layer, nan for none; a
            kind without any value is left out.
        paths: Module path of each layer, in order.
        path: File to write; its suffix decides the format.
        title: Heading.
    """
    shown = {
        kind: pairs
        for kind, pairs in curves.items()
        if any(np.isfinite(values).any() for values in pairs.values())
    }
    number = max(1, len(shown))
    figure, panels = create_figure(7.4, 0.9 + 1.7 * number, number, sharex=True)
    places = np.arange(len(paths))
    for axes, (kind, pairs) in zip(panels.flat, shown.items(), strict=False):
        for name, colour in assign_colours(pairs).items():
            values = np.maximum(np.asarray(pairs[name], dtype=float), _LEAST)
            axes.plot(places, values, ".-", color=colour, label=literal(name), linewidth=1)
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel(kind, fontsize=NORMAL)
        clear_frame(axes)
    step = max(1, len(paths) // 16)
    panels[-1, 0].set_xticks(places[::step], paths[::step], rotation=60, ha="right", fontsize=SMALL)
    if shown:
        panels[0, 0].legend(fontsize=SMALL, frameon=False, ncols=3)
    save_figure(figure, path, title)
