"""Which layers differ between domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.ticker import NullFormatter

from domainnorm.report.canvas import (
    LARGE,
    NORMAL,
    SMALL,
    assign_colours,
    clear_frame,
    create_figure,
    literal,
    save_figure,
)

_LEAST = 1e-6  # what is equal is drawn at the lower edge of a logarithmic axis


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
    figure = create_figure(7.4, 0.9 + 1.7 * max(1, len(shown)))
    panels = figure.subplots(max(1, len(shown)), 1, sharex=True, squeeze=False)[:, 0]
    places = np.arange(len(paths))
    for axes, (kind, pairs) in zip(panels, shown.items(), strict=False):
        for name, colour in assign_colours(pairs).items():
            values = np.maximum(np.asarray(pairs[name], dtype=float), _LEAST)
            axes.plot(places, values, ".-", color=colour, label=literal(name), linewidth=1)
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel(kind, fontsize=NORMAL)
        clear_frame(axes)
    step = max(1, len(paths) // 16)
    panels[-1].set_xticks(places[::step], paths[::step], rotation=60, ha="right", fontsize=SMALL)
    if shown:
        panels[0].legend(fontsize=SMALL, frameon=False, ncols=3)
    figure.suptitle(literal(title), fontsize=LARGE)
    save_figure(figure, path)
