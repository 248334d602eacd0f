"""Arms of a comparison, methods under settings of a grid, side by side on every shift."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from domainnorm.evaluation import (
    LOWER_IS_BETTER,
    Spread,
    readable,
    seed_spread,
    sentence,
    write_json,
)
from domainnorm.report.data_tables import markdown_head, markdown_line
from domainnorm.report.heatmap import Names, save_grid
from domainnorm.report.result_tables import (
    abbreviated,
    cell_text,
    duration,
)
from domainnorm.report.results import Cell, Result, label_mark, label_notes, shots_of
from domainnorm.report.validator_table import validators_markdown
from domainnorm.storage import whole_file

_USUAL = "ensv"  # the score whose ranks the main table has; else those of the first
_LEAST_GAP = 0.02  # of a target: shares of less are shares of noise
_SOURCE, _ORACLE = "source_only", "oracle"


class Shift(NamedTuple):
    """What a model was adapted to and tested on."""

    transfer: str
    domain: str


@dataclass
class Arm:
    """A method under one setting of a grid.

    Args:
        name: Of the method.
        settings: Further keys of the grid → value in words.
        group: Equal for arms that differ in the method alone.
        results: By transfer, domain and seed.
        resident_bytes: Peak memory of the processes that trained it.
        device_bytes: The same of a GPU; 0 where there is none.
    """

    name: str
    settings: dict[str, str]
    group: str
    results: dict[tuple[str, str, int], Result] = field(default_factory=dict)
    resident_bytes: int = 0
    device_bytes: int = 0

    def add_cost(self, cost: Mapping[str, float]) -> None:
        """Take the larger peaks."""
        self.resident_bytes = max(self.resident_bytes, int(cost["resident_bytes"]))
        self.device_bytes = max(self.device_bytes, int(cost["device_bytes"]))

    @property
    def method(self) -> str:
        """What results call it."""
        return next(iter(self.results.values())).method

    @property
    def supervised(self) -> bool:
        """Whether it saw target labels."""
        return any(result.supervised for result in self.results.values())

    @property
    def marked(self) -> str:
        """Its name, and which target labels it saw."""
        return f"{self.name}{label_mark(list(self.results.values()))}"

    def on(self, shift: Shift, metric: str) -> Cell:
        """A metric on one shift, over seeds."""
        found = [one for key, one in self.results.items() if key[:2] == shift]
        values = {one.seed: one.metrics.get(metric, math.nan) for one in found}
        interval = found[0].intervals.get(metric) if len(found) == 1 else None
        if interval is not None and any(map(math.isnan, interval)):
            interval = None
        return Cell({seed: of for seed, of in values.items() if not math.isnan(of)}, interval)

    def scores(self, shifts: Sequence[Shift]) -> dict[str, float]:
        """Mean of each score without target labels over shifts and seeds."""
        found: dict[str, list[float]] = defaultdict(list)
        for key, one in self.results.items():
            if key[:2] in shifts:
                for name, value in one.scores.items():
                    found[name].append(value)
        return {name: seed_spread(values).mean for name, values in found.items()}


@dataclass
class Row:
    """An arm and what the comparison says of it.

    Args:
        arm: With its results.
        cells: The metric by shift, over seeds.
        mean: Mean over shifts of the mean over seeds.
        gaps: Share of the way from ``source_only`` to ``oracle``, by shift, over the seeds that
            all three have; nan where one is missing.
        gap: The same of the sums over shifts.
        worst: Value, shift and seed of the worst result.
        wins: Shifts on which no other arm without target labels is better.
        seconds: Mean time of a stage.
        scores: Mean over shifts and seeds of each label-free score.
        ranks: Place among the arms without target labels by each of these, from 1.
    """

    arm: Arm
    cells: dict[Shift, Cell]
    mean: float
    gaps: dict[Shift, float]
    gap: float
    worst: tuple[float, Shift, int] | None
    seconds: float
    scores: dict[str, float]
    wins: int = 0
    ranks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """Arms side by side.

    Args:
        metric: What is compared.
        keys: Of the grid, beside the method.
        shifts: Target domains with their transfers, and what a column calls them.
        rows: Groups in the order in which they came, ``source_only`` first, ``oracle`` last.
    """

    metric: str
    keys: list[str]
    shifts: dict[Shift, str]
    rows: list[Row]

    @property
    def scores(self) -> list[str]:
        """Names of the label-free scores that some arm has."""
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))


class ComparedCell(NamedTuple):
    """A run of the grid: what it is called, its folder below the comparison's, how it ended."""

    label: str
    folder: Path
    state: str
    error: str


def compare_arms(arms: Sequence[Arm], metric: str) -> Compared:
    """Put arms side by side on the target domains, or on all where there is no target."""
    results = [(key, one) for arm in arms for key, one in arm.results.items()]
    found = [Shift(*key[:2]) for key, one in results if one.role == "target"]
    shifts = list(dict.fromkeys(found or [Shift(*key[:2]) for key, _ in results]))
    groups = list(dict.fromkeys(arm.group for arm in arms))
    place = {_SOURCE: 0, _ORACLE: 2}
    ordered = sorted(arms, key=lambda a: (groups.index(a.group), place.get(a.method, 1)))
    references = {(arm.group, arm.method): arm for arm in reversed(ordered)}
    rows = []
    for arm in ordered:
        ends = [references.get((arm.group, name)) for name in (_SOURCE, _ORACLE)]
        rows.append(_row(arm, shifts, metric, ends))
    _count_wins(rows, shifts, metric)
    _rank(rows)
    keys = list(dict.fromkeys(key for arm in arms for key in arm.settings))
    return Compared(metric, keys, _names(shifts), rows)


def _names(shifts: Sequence[Shift]) -> dict[Shift, str]:
    """The domain, where it is told apart by that; else what it was adapted from too."""
    domains = [shift.domain for shift in shifts]
    return {
        one: one.domain if domains.count(one.domain) == 1 else f"{one.transfer}: {one.domain}"
        for one in shifts
    }


def _row(arm: Arm, shifts: Sequence[Shift], metric: str, ends: Sequence[Arm | None]) -> Row:
    cells = {shift: arm.on(shift, metric) for shift in shifts}
    sign = -1 if metric in LOWER_IS_BETTER else 1
    every = [
        (value, shift, seed)
        for shift, cell in cells.items()
        for seed, value in cell.by_seed.items()
    ]
    ways = {shift: _way(cells[shift], shift, metric, ends) for shift in shifts}
    return Row(
        arm,
        cells,
        seed_spread([cell.spread.mean for cell in cells.values()]).mean,
        {shift: _share([way]) for shift, way in ways.items()},
        _share(ways.values()),
        min(every, key=lambda one: sign * one[0], default=None),
        seed_spread([one.seconds for one in arm.results.values()]).mean,
        arm.scores(shifts),
    )


def _way(
    cell: Cell, shift: Shift, metric: str, ends: Sequence[Arm | None]
) -> tuple[float, float] | None:
    """What an arm gained on source_only and what oracle did, over the seeds that all have."""
    source, oracle = (None if arm is None else arm.on(shift, metric).by_seed for arm in ends)
    if source is None or oracle is None:
        return None
    seeds = sorted(cell.by_seed.keys() & source.keys() & oracle.keys())
    if not seeds:
        return None
    gained = seed_spread([cell.by_seed[seed] - source[seed] for seed in seeds]).mean
    return gained, seed_spread([oracle[seed] - source[seed] for seed in seeds]).mean


def _share(ways: Iterable[tuple[float, float] | None]) -> float:
    """The part of the gaps that was closed; nan where one is unknown or they are too small."""
    known = list(ways)
    if any(way is None for way in known):
        return math.nan
    gained = sum(way[0] for way in known if way)
    gap = sum(way[1] for way in known if way)
    return gained / gap if abs(gap) >= _LEAST_GAP * len(known) else math.nan


def _count_wins(rows: Sequence[Row], shifts: Sequence[Shift], metric: str) -> None:
    sign = -1 if metric in LOWER_IS_BETTER else 1
    rivals = [row for row in rows if not row.arm.supervised]
    for shift in shifts:
        means = {id(row): sign * row.cells[shift].spread.mean for row in rivals}
        best = max((mean for mean in means.values() if not math.isnan(mean)), default=math.nan)
        for row in rivals:
            row.wins += means[id(row)] == best


def _rank(rows: Sequence[Row]) -> None:
    rivals = [row for row in rows if not row.arm.supervised]
    for name in dict.fromkeys(name for row in rivals for name in row.scores):
        scores = [row.scores[name] for row in rivals if name in row.scores]
        for row in rivals:
            if name in row.scores:
                row.ranks[name] = 1 + sum(other > row.scores[name] for other in scores)


def comparison_table(compared: Compared) -> Table:
    """The comparison for the terminal."""
    table = Table(title=compared.metric, title_justify="left", caption_justify="left")
    table.caption = escape("\n".join(label_notes(_results(compared)))) or None
    for number, name in enumerate(_head(compared)):
        first = number <= len(compared.keys)
        table.add_column(escape(name), justify="left" if first else "right", overflow="fold")
    for row in compared.rows:
        table.add_row(*map(escape, _texts(row, compared)))
    return table


def comparison_markdown(compared: Compared) -> str:
    """The table of `comparison_table` as Markdown, with what its columns are."""
    lines = [f"**{compared.metric}**", "", *markdown_head(_head(compared))]
    lines += [markdown_line(_texts(row, compared)) for row in compared.rows]
    return "\n".join([*lines, "", *(f"{note}  " for note in _notes(compared))]) + "\n"


def _head(compared: Compared) -> list[str]:
    several = ["mean"] if len(compared.shifts) > 1 else []
    facts = ["gap closed", "worst", "wins", "time", "peak memory", "trained"]
    ranks = [f"rank by {name}" for name in _main_scores(compared)]
    keys = [key.rpartition(".")[2] for key in compared.keys]
    return ["method", *keys, *compared.shifts.values(), *several, *facts, *ranks]


def _texts(row: Row, compared: Compared) -> list[str]:
    arm = row.arm
    several = [_number(row.mean)] if len(compared.shifts) > 1 else []
    trained = max(result.trained_parameters for result in arm.results.values())
    return [
        arm.marked,
        *(arm.settings.get(key, "–") for key in compared.keys),
        *(cell_text(row.cells[shift]) for shift in compared.shifts),
        *several,
        "–" if math.isnan(row.gap) or arm.method in (_SOURCE, _ORACLE) else f"{row.gap:.0%}",
        _worst(row, compared),
        "–" if arm.supervised else str(row.wins),
        duration(row.seconds),
        _memory(arm),
        abbreviated(trained),
        *(str(row.ranks.get(name, "–")) for name in _main_scores(compared)),
    ]


def _main_scores(compared: Compared) -> list[str]:
    names = compared.scores
    return [_USUAL] if _USUAL in names else names[:1]


def _worst(row: Row, compared: Compared) -> str:
    if row.worst is None:
        return "–"
    value, shift, seed = row.worst
    where = [compared.shifts[shift]] if len(compared.shifts) > 1 else []
    seeds = {one.seed for one in row.arm.results.values()}
    words = ", ".join([*where, *([f"seed {seed}"] if len(seeds) > 1 else [])])
    return f"{value:.3f} ({words})" if words else f"{value:.3f}"


def _memory(arm: Arm) -> str:
    device = f", GPU {arm.device_bytes / 1e9:.2f} GB" if arm.device_bytes else ""
    return f"{arm.resident_bytes / 1e9:.2f} GB{device}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _notes(compared: Compared) -> list[str]:
    return [
        _uncertainty(compared),
        "gap closed: from source_only to oracle of the same setting, summed; – for gaps below 0.02",
        "worst: over targets and seeds; wins: targets on which no arm without labels is better",
        "time: of a stage; peak memory: of the process that trained it",
        *label_notes(_results(compared)),
    ]


def ranks_markdown(compared: Compared) -> str:
    """Places of the arms without target labels by every score, and how true these places are.

    Empty where there is no score.
    """
    if not compared.scores:
        return ""
    head = ["rank by a score without target labels", *compared.scores]
    lines = markdown_head(head)
    for row in compared.rows:
        if row.ranks:
            ranks = [str(row.ranks.get(name, "–")) for name in compared.scores]
            lines.append(markdown_line([_title(row), *ranks]))
    named = [
        replace(one, method=_title(row))
        for row in compared.rows
        for one in row.arm.results.values()
    ]
    judged = validators_markdown(named, compared.metric)
    return "\n".join([*lines, "", judged]) if judged else "\n".join(lines) + "\n"


def _uncertainty(compared: Compared) -> str:
    seeds = {one.seed for one in _results(compared)}
    if len(seeds) > 1:
        return f"± standard deviation over {len(seeds)} seeds"
    return "[ ] bootstrap interval over test data, one seed"


def _results(compared: Compared) -> list[Result]:
    return [one for row in compared.rows for one in row.arm.results.values()]


def _title(row: Row) -> str:
    words = [of for of in row.arm.settings.values() if of != "–"]
    return " · ".join([row.arm.marked, *words])


def cells_markdown(cells: Sequence[ComparedCell]) -> str:
    """The runs of a grid, those that failed with what they said."""
    lines = markdown_head(["cell", "state"])
    for cell in cells:
        state = f"{cell.state}: {cell.error}" if cell.error else cell.state
        page = f"[{cell.label}]({cell.folder.as_posix()}/report.html)"
        lines.append(markdown_line([page if cell.state == "finished" else cell.label, state]))
    return "\n".join(lines) + "\n"


def save_comparison(compared: Compared, path: str | PathLike[str]) -> None:
    """Draw the metric of every arm on every shift."""
    numbers = np.full((len(compared.rows), len(compared.shifts), 4), np.nan)
    for row, one in enumerate(compared.rows):
        for column, shift in enumerate(compared.shifts):
            cell = one.cells[shift]
            spread, interval = cell.spread, cell.interval or (math.nan, math.nan)
            numbers[row, column] = (spread.mean, spread.std, *interval)
    names = [_title(row) for row in compared.rows]
    shifts = list(compared.shifts.values())
    title = f"{sentence(readable(compared.metric))} of each method on each target"
    save_grid(
        Names(names, shifts, "method", "target"),
        numbers,
        compared.metric,
        path,
        title=title,
        caption="; ".join([_uncertainty(compared), *label_notes(_results(compared))]),
    )


def comparison_csv(compared: Compared, path: str | PathLike[str]) -> None:
    """Write a line per arm and shift, and what holds for the arm in each; empty for nan."""
    records = []
    for row in compared.rows:
        facts = _facts(row, compared.keys)
        facts |= facts.pop("scores")
        facts |= {f"rank by {name}": rank for name, rank in facts.pop("ranks").items()}
        records += [{**facts, **shift} for shift in _shifts(row)]
    names = dict.fromkeys(name for one in records for name in one if name != "by_seed")
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for one in records:
            values = [one.get(name, "") for name in names]
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])


def comparison_json(
    compared: Compared, cells: Sequence[ComparedCell], path: str | PathLike[str]
) -> None:
    """Write arms with their shifts, and the runs of the grid; nan is null."""
    arms = [{**_facts(row, compared.keys), "shifts": _shifts(row)} for row in compared.rows]
    runs = [{**cell._asdict(), "folder": cell.folder.as_posix()} for cell in cells]
    write_json({"metric": compared.metric, "arms": arms, "cells": runs}, path)


def _facts(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    results = row.arm.results.values()
    value, shift, seed = row.worst or (math.nan, Shift("", ""), None)
    return {
        "method": row.arm.name,
        **{key: row.arm.settings.get(key, "–") for key in keys},
        "supervised": row.arm.supervised,
        "shots": shots_of(list(results)),
        "mean_over_shifts": row.mean,
        "gap_closed_of_all": row.gap,
        "worst": value,
        "worst_domain": shift.domain,
        "worst_seed": seed,
        "wins": row.wins,
        "seconds": row.seconds,
        "resident_bytes": row.arm.resident_bytes,
        "device_bytes": row.arm.device_bytes,
        "trained_parameters": max(one.trained_parameters for one in results),
        "trained_bytes": max(one.trained_bytes for one in results),
        "scores": row.scores,
        "ranks": row.ranks,
    }


def _shifts(row: Row) -> list[dict[str, Any]]:
    found = []
    for shift, cell in row.cells.items():
        spread: Spread = cell.spread
        found.append(
            {
                **shift._asdict(),
                "mean": spread.mean,
                "std": spread.std,
                "seeds": spread.n,
                "gap_closed": row.gaps[shift],
                "by_seed": {str(seed): value for seed, value in cell.by_seed.items()},
            }
        )
    return found
