"""How fast runs get where they end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from domainnorm.evaluation import EvaluationError, seed_spread
from domainnorm.report.canvas import (
    LARGE,
    MUTED,
    NORMAL,
    SMALL,
    assign_colours,
    clear_frame,
    create_figure,
    literal,
    readable,
    save_figure,
)


def epochs_to(fraction: float, series: Sequence[float]) -> int | None:
    """Epochs until a metric first reaches ``fraction`` of its final value.

    Args:
        fraction: Part of the last value, in (0, 1].
        series: Values after 1, 2, ... epochs, of a metric whose higher values are better.

    Returns:
        Number of epochs, at least 1; None when the last value is nan or not positive, so that no
        part of it means anything.

    Raises:
        EvaluationError: ``series`` is empty or ``fraction`` is out of range.
    """
    if not series or not 0 < fraction <= 1:
        raise EvaluationError(
            f"epochs_to: fraction={fraction} of {len(series)} values; expected a fraction in "
            "(0, 1] and at least one value"
        )
    if not series[-1] > 0:
        return None
    return next(n for n, value in enumerate(series, 1) if value >= fraction * series[-1])


def save_convergence(
    curves: Mapping[str, Sequence[Sequence[float]]],
    path: str | PathLike[str],
    *,
    metric: str,
    fraction: float = 0.9,
    title: str = "",
) -> None:
    """Draw a validation metric against the epoch for several runs.

    Lines are means over seeds and bands ± one sample standard deviation. A dot marks the mean over
    seeds of `epochs_to`, whose number is in the legend.

    Args:
        curves: Name of a run → a series for each seed, each with the values after 1, 2, ... epochs.
        path: File to write; its suffix decides the format.
        metric: Name of the metric, whose higher values are better.
        fraction: Part of the final value, in (0, 1].
        title: Heading.

    Raises:
        EvaluationError: No run, no series, or series of one run that differ in length.
    """
    if not curves:
        raise EvaluationError("save_convergence: no run came, expected at least one")
    figure = create_figure(7.4, 3.6)
    axes = figure.add_subplot()
    colours = assign_colours(curves)
    for name, series in curves.items():
        _draw(axes, name, _table(name, series), fraction, colours[name])
    axes.set_xlabel("epoch", fontsize=NORMAL)
    axes.set_ylabel(readable(metric), fontsize=NORMAL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    clear_frame(axes)
    seeds = sorted({len(series) for series in curves.values()})
    band = f"; line and band: mean ± standard deviation of {' or '.join(map(str, seeds))} seeds"
    figure.legend(
        loc="outside right upper",
        fontsize=SMALL,
        frameon=False,
        title=f"epochs to {100 * fraction:g} %\nof the final value",
        title_fontsize=SMALL,
    )
    dots = f"dots: {100 * fraction:g} % of the final value"
    figure.supxlabel(dots + (band if seeds != [1] else "; one seed"), fontsize=SMALL, color=MUTED)
    if title:
        axes.set_title(literal(title), fontsize=LARGE, loc="left")
    save_figure(figure, path)


def _draw(axes: Axes, name: str, table: NDArray[np.float64], fraction: float, colour: str) -> None:
    epochs = np.arange(1, table.shape[1] + 1)
    spreads = [seed_spread(column.tolist()) for column in table.T]
    mean = np.array([spread.mean for spread in spreads])
    std = np.nan_to_num([spread.std for spread in spreads])
    known = [epochs_to(fraction, series.tolist()) for series in table]
    needed = seed_spread([math.nan if n is None else n for n in known])
    label = f"{name}: {needed.mean:.1f}" if needed.n else f"{name}: –"
    if needed.n > 1:
        label += f" ± {needed.std:.1f}"
    axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.plot(epochs, mean, color=colour, linewidth=1.6, label=literal(label))
    if needed.n:
        height = np.interp(needed.mean, epochs, mean)
        axes.plot(needed.mean, height, "o", color=colour, markeredgecolor="white", markersize=7)


def _table(name: str, series: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Series as rows (seeds, epochs)."""
    lengths = sorted({len(one) for one in series})
    if len(lengths) != 1 or lengths[0] == 0:
        raise EvaluationError(
            f"save_convergence: the series of '{name}' have {lengths} values; expected one series "
            "or more, all of the same length"
        )
    return np.asarray(series, dtype=np.float64)
