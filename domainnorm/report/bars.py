"""Methods side by side on every target domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from domainnorm.evaluation import LOWER_IS_BETTER, EvaluationError
from domainnorm.report.canvas import (
    INK,
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
from domainnorm.report.results import (
    Cell,
    Result,
    by_transfer,
    check_results,
    collect_cell,
    method_order,
)

_BAR_WIDTH = 0.36  # inches; "0.87" at 8 points fits above it
_BARS_PER_ROW = 30


def save_results_bars(results: Sequence[Result], metric: str, path: str | PathLike[str]) -> None:
    """Draw a group of bars per transfer and target domain, a bar per method.

    Bars are means over seeds with ± one standard deviation and a dot per seed; with one seed the
    whisker is its bootstrap interval. Methods that saw target labels are hatched.

    Args:
        results: Results of a run; those on source domains are left out.
        metric: A metric of the results.
        path: File to write; its suffix decides the format.

    Raises:
        EvaluationError: No results, none on a target, an unknown metric, a repeated result.
    """
    check_results(results, metric)
    methods = method_order(results)
    colours = assign_colours(methods)
    supervised = {result.method for result in results if result.supervised}
    groups = _groups(results, metric, methods)
    per_row = max(1, _BARS_PER_ROW // (len(methods) + 1))
    lines = [groups[start : start + per_row] for start in range(0, len(groups), per_row)]
    widest = max(map(len, lines))
    width = max(5.5, widest * (len(methods) + 1) * _BAR_WIDTH + 0.9)
    figure = create_figure(width, 3.1 * len(lines) + 0.8)
    for axes, line in zip(figure.subplots(len(lines), squeeze=False)[:, 0], lines, strict=True):
        for place, (_, cells) in enumerate(line):
            for number, method in enumerate(methods):
                x = place + (number - (len(methods) - 1) / 2) / (len(methods) + 1)
                hatch = "////" if method in supervised else ""
                _draw_bar(axes, x, cells[number], (colours[method], hatch, len(methods)))
        axes.set_xlim(-0.55, widest - 0.45)
        axes.set_xticks(range(len(line)), [literal(name) for name, _ in line])
        side = "lower" if metric in LOWER_IS_BETTER else "higher"
        axes.set_ylabel(f"{readable(metric)} ({side} is better)", fontsize=SMALL)
        clear_frame(axes)
        axes.tick_params(axis="x", length=0, labelsize=NORMAL)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
    handles = [
        Patch(
            facecolor=colours[method],
            hatch="////" if method in supervised else "",
            edgecolor="white",
            label=f"{method} (saw target labels)" if method in supervised else method,
        )
        for method in methods
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=max(1, min(len(methods), int(width / 1.9))),
        fontsize=SMALL,
        frameon=False,
    )
    figure.supxlabel(_caption(results), fontsize=SMALL, color=MUTED)
    save_figure(figure, path)


def _groups(
    results: Sequence[Result], metric: str, methods: Sequence[str]
) -> list[tuple[str, list[Cell]]]:
    """A label and one cell per method for every target domain of every transfer."""
    transfers = by_transfer(results)
    groups = []
    for transfer, own in transfers.items():
        for domain in dict.fromkeys(result.domain for result in own if result.role == "target"):
            label = domain if len(transfers) == 1 else f"{domain}\n({transfer})"
            groups.append((label, [collect_cell(own, metric, name, domain) for name in methods]))
    if not groups:
        raise EvaluationError(
            f"save_results_bars: no result on a target domain among {len(results)}; expected at "
            "least one with role 'target'"
        )
    return groups


def _draw_bar(axes: Axes, x: float, cell: Cell, style: tuple[str, str, int]) -> None:
    colour, hatch, siblings = style
    spread, width = cell.spread, 0.92 / (siblings + 1)
    if spread.n == 0:
        axes.text(x, 0.0, "–", ha="center", va="bottom", fontsize=SMALL, color=MUTED)
        return
    axes.bar(x, spread.mean, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    low = high = spread.mean
    if not math.isnan(spread.std):
        low, high = spread.mean - spread.std, spread.mean + spread.std
        dots = [x + width * 0.22] * spread.n
        axes.plot(
            dots, list(cell.by_seed.values()), "o", ms=3.2, mfc="white", mec=INK, mew=0.7, zorder=4
        )
    elif cell.interval is not None:
        low, high = cell.interval
    if high > low:
        axes.plot([x, x], [low, high], color=INK, linewidth=1.1, zorder=3)
    top = max(high, spread.high)
    axes.annotate(
        f"{spread.mean:.2f}",
        (x, top),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=SMALL,
        color=INK,
    )


def _caption(results: Sequence[Result]) -> str:
    seeds = len({result.seed for result in results})
    if seeds > 1:
        return f"Whiskers: ± one standard deviation over {seeds} seeds; dots: single seeds"
    return "Whiskers: bootstrap interval over test data; one seed"
