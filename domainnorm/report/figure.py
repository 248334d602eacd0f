"""Figures without global state: sizes, colours and the way they reach the disk.

Figures are drawn on their own Agg canvas. pyplot would keep every figure alive and pick a window
system, neither of which a training run wants.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from domainnorm.data.images import DRAWN_BY
from domainnorm.evaluation import LOWER_IS_BETTER, readable
from domainnorm.storage import whole_file

DPI = 150
SMALL, NORMAL, LARGE = 8, 9, 11  # points
INK, MUTED, MISSING = "#222222", "#666666", "#e6e6e6"
# Okabe and Ito, Color Universal Design, 2008: told apart with any colour vision; yellow is left
# out because lines in it vanish on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539", "#5e548e")
_FIXED = {"source_only": "#9a9a9a", "oracle": "#333333", "train": MUTED}


def create_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any
) -> tuple[Figure, NDArray[Any]]:
    """A white figure of ``width`` × ``height`` inches and its axes, (rows, columns).

    ``layout``: see `matplotlib.figure.Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **layout)


def save_figure(figure: Figure, path: str | PathLike[str], title: str = "") -> None:
    """Write ``figure`` under its heading to ``path`` in one step; missing folders are made.

    A PNG says whose figure it is, so that a search for images passes it over.
    """
    path = Path(path)
    if title:
        figure.suptitle(literal(title), fontsize=LARGE)
    # Other formats know no such key.
    metadata = {"Software": DRAWN_BY} if path.suffix.lower() == ".png" else {}
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=DPI, metadata=metadata)


def panel_grid(count: int, most: int) -> tuple[int, int]:
    """Rows and columns for ``count`` panels, evenly filled, at most ``most`` beside each other."""
    rows = -(-count // most)
    return rows, -(-count // rows)


def assign_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour per name, in order; references (source_only, oracle, train) are always grey."""
    distinct = list(dict.fromkeys(names))
    free = [name for name in distinct if name not in _FIXED]
    chosen = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(free)}
    return {name: _FIXED.get(name) or chosen[name] for name in distinct}


def literal(name: str) -> str:
    """``name`` such that matplotlib prints it as it is, dollar signs included."""
    return name.replace("$", r"\$")


def direction(metric: str) -> str:
    """A metric's name as words, and which side of it is better."""
    side = "lower" if metric in LOWER_IS_BETTER else "higher"
    return f"{readable(metric)} ({side} is better)"


def hide_frame(axes: Axes) -> None:
    """Leave nothing but what is drawn, as for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def clear_frame(axes: Axes) -> None:
    """Keep only the left and lower axis line, and light horizontal guides behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)
