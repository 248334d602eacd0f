"""Matrix of models (or of norms) against domains."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.errors import CheckpointError, unknown
from domainnorm.evaluation.evaluated import Evaluated, EvaluationError
from domainnorm.evaluation.intervals import seed_spread
from domainnorm.evaluation.single_label import LOWER_IS_BETTER
from domainnorm.storage import DAMAGED, number_of, whole_file, write_json

Values = NDArray[np.float64]
_FORMAT = "domainnorm.matrix"


@dataclass(frozen=True)
class MetricSummary:
    """One metric of a matrix, over seeds.

    Args:
        mean: Mean over the seeds that have the cell, (R, C); nan where none has.
        std: Sample standard deviation over seeds, (R, C); nan for fewer than two.
        count: Seeds that have the cell, (R, C).
        diagonal: Mean of the cells whose row and column have the same name; nan for none.
        off_diagonal: Mean of all other cells; nan for none.
        worst: For each row its worst column and the value there, missing cells left out: the
            lowest mean, for ``ece`` and ``nll`` the highest.
        best_row: The row with the best mean over all columns and that mean. Rows with a missing
            cell do not compete; None when none is complete.
    """

    mean: Values
    std: Values
    count: NDArray[np.int64]
    diagonal: float
    off_diagonal: float
    worst: dict[str, tuple[str, float]]
    best_row: tuple[str, float] | None


class CrossDomainMatrix:
    """Metrics of every row's model on every column's domain, for several seeds.

    Rows are models fine-tuned per domain, or the norms of the domains of one model. Cells that
    were never added are nan everywhere: in arrays, files and means.

    Args:
        rows: Names of the rows.
        columns: Names of the domains.
        confidence: Mass of the bootstrap intervals.
        resamples: Resamples of the bootstrap.
        options: Of the metrics, see `Evaluated.metrics`.

    Raises:
        EvaluationError: Rows or columns are empty or hold a name twice.
    """

    def __init__(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        confidence: float = 0.95,
        resamples: int = 1000,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        for kind, names in (("rows", rows), ("columns", columns)):
            if not names or len(set(names)) != len(names):
                raise EvaluationError(
                    f"CrossDomainMatrix: {kind}={list(names)}, expected one or more distinct names"
                )
        self.rows = list(rows)
        self.columns = list(columns)
        self.confidence = confidence
        self.resamples = resamples
        self.options = dict(options or {})
        self._grouped: dict[tuple[int, str, str], bool] = {}
        self._cells: dict[tuple[int, str, str], dict[str, tuple[float, float, float]]] = {}

    @property
    def seeds(self) -> list[int]:
        """Seeds in the order in which their first cell came."""
        return list(dict.fromkeys(seed for seed, _, _ in self._cells))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the cells have."""
        return list(dict.fromkeys(metric for cell in self._cells.values() for metric in cell))

    @property
    def interval_unit(self) -> str:
        """What the intervals resample: ``samples``, ``groups``, or both in different cells."""
        kinds = set(self._grouped.values()) or {False}
        return " or ".join(
            word for kind, word in ((False, "samples"), (True, "groups")) if kind in kinds
        )

    def add(
        self,
        seed: int,
        row: str,
        column: str,
        predictions: Evaluated,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Compute one cell: the predictions of ``row`` on the data of ``column``.

        Args:
            seed: Seed of the run that the model comes from.
            row: A name of ``rows``.
            column: A name of ``columns``.
            predictions: Predictions of N samples.
            groups: Group of each of the N samples, for intervals over groups.

        Raises:
            EvaluationError: An unknown name, a cell that is already there, no labelled sample.
        """
        for kind, name, known in (("row", row, self.rows), ("column", column, self.columns)):
            if name not in known:
                raise EvaluationError(f"CrossDomainMatrix.add: {unknown(kind, name, known)}")
        if (seed, row, column) in self._cells:
            raise EvaluationError(
                f"CrossDomainMatrix.add: cell (seed {seed}, {row}, {column}) came twice; "
                "each row, column and seed has one set of predictions"
            )
        values = predictions.metrics(**self.options)
        intervals = predictions.intervals(
            confidence=self.confidence, resamples=self.resamples, groups=groups, **self.options
        )
        self._cells[seed, row, column] = {
            metric: (values[metric], *intervals[metric]) for metric in intervals
        }
        self._grouped[seed, row, column] = groups is not None

    def values(self, metric: str) -> Values:
        """Point values (S, R, C), nan where missing."""
        return self._array(metric)[..., 0]

    def intervals(self, metric: str) -> Values:
        """Lower and upper ends of the bootstrap intervals (S, R, C, 2), nan where missing."""
        return self._array(metric)[..., 1:]

    def _array(self, metric: str) -> Values:
        if metric not in self.metrics:
            raise EvaluationError(f"CrossDomainMatrix: {unknown('metric', metric, self.metrics)}")
        array = np.full((len(self.seeds), len(self.rows), len(self.columns), 3), np.nan)
        for (seed, row, column), cell in self._cells.items():
            place = self.seeds.index(seed), self.rows.index(row), self.columns.index(column)
            # A class that a domain lacks has no metric of its own there.
            array[place] = cell.get(metric, np.nan)
        return array

    def summary(self) -> dict[str, MetricSummary]:
        """What to read off the matrix, for each of its `metrics`."""
        return {metric: self._summarize(metric) for metric in self.metrics}

    def _summarize(self, metric: str) -> MetricSummary:
        values = self.values(metric)
        spreads = [
            [seed_spread(values[:, row, column].tolist()) for column in range(len(self.columns))]
            for row in range(len(self.rows))
        ]
        mean = np.array([[spread.mean for spread in line] for line in spreads])
        same = np.array([[row == column for column in self.columns] for row in self.rows])
        # One comparison for both directions: the worst is always the smallest of these.
        goodness = -mean if metric in LOWER_IS_BETTER else mean
        worst = {}
        for row, name in enumerate(self.rows):
            if not np.isnan(mean[row]).all():
                column = int(np.nanargmin(goodness[row]))
                worst[name] = (self.columns[column], float(mean[row, column]))
        overall = goodness.mean(axis=1)
        best = None if np.isnan(overall).all() else int(np.nanargmax(overall))
        return MetricSummary(
            mean=mean,
            std=np.array([[spread.std for spread in line] for line in spreads]),
            count=np.array([[spread.n for spread in line] for line in spreads]),
            diagonal=seed_spread(mean[same].tolist()).mean,
            off_diagonal=seed_spread(mean[~same].tolist()).mean,
            worst=worst,
            best_row=None if best is None else (self.rows[best], float(mean[best].mean())),
        )

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write a line per metric, row, column and seed: value, low, high; empty if missing."""
        with whole_file(path) as made, made.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["metric", "row", "column", "seed", "value", "low", "high"])
            places = product(self.metrics, self.rows, self.columns, self.seeds)
            for metric, row, column, seed in places:
                numbers = self._cells.get((seed, row, column), {}).get(metric, (math.nan,) * 3)
                shown = ["" if math.isnan(number) else number for number in numbers]
                writer.writerow([metric, row, column, seed, *shown])

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write the cells and what `summary` says of them; nan is null."""
        names = ("seed", "row", "column")
        cells = [
            {**dict(zip(names, key, strict=True)), "grouped": self._grouped[key], "metrics": cell}
            for key, cell in self._cells.items()
        ]
        content = {
            "format": _FORMAT,
            "rows": self.rows,
            "columns": self.columns,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "options": self.options,
            "cells": cells,
            "summary": {name: vars(summary) for name, summary in self.summary().items()},
        }
        write_json(content, path)

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> CrossDomainMatrix:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: The file is missing, truncated or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            settings = {key: content[key] for key in ("confidence", "resamples", "options")}
            matrix = cls(content["rows"], content["columns"], **settings)
            for cell in content["cells"]:
                key = cell["seed"], cell["row"], cell["column"]
                matrix._grouped[key] = cell["grouped"]
                matrix._cells[key] = {
                    name: (number_of(value), number_of(low), number_of(high))
                    for name, (value, low, high) in cell["metrics"].items()
                }
        except (*DAMAGED, EvaluationError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as a matrix ({type(error).__name__}: {error}); "
                "expected a file written by CrossDomainMatrix.to_json"
            ) from error
        return matrix
