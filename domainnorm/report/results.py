"""Results of a run: one record per transfer, method, tested domain and seed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, Literal

from domainnorm.errors import CheckpointError, counted, unknown
from domainnorm.evaluation import EvaluationError, Spread, seed_spread, write_json
from domainnorm.storage import DAMAGED, number_of, whole_file

# What JSON has for fields of a `Result` that are no mappings.
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("transfer", "method", "domain", "role", "stream"), str),
    **dict.fromkeys(("seed", "supervised", "trained_parameters", "trained_bytes"), int),
    "shots": (int, NoneType),
    "seconds": (int, float),
}


@dataclass(frozen=True)
class Result:
    """How one method did on one domain of one transfer with one seed.

    Args:
        transfer: What was adapted to what, as ``source → target``.
        method: Name of the method.
        domain: Domain it was tested on.
        role: Role of that domain in the transfer.
        seed: Seed of the run.
        metrics: Name → value; of a domain without labels ``n``, which is 0, and what needs none.
        scores: Name of a validator → value, higher is better: on training images of a target,
            without labels, to choose by where nothing can be measured. Empty for sources.
        intervals: Name → lower and upper end of the bootstrap interval.
        supervised: Whether the method saw labels of the target.
        shots: Labels per class, or masks, of each target that it saw; None for all or none.
        trained_parameters: Number of parameters the method trained.
        trained_bytes: Their size in bytes.
        seconds: Time of the whole stage, all domains together.
        stream: How test images came to a method that adapts while it predicts, such as ``shuffled,
            batches of 64``; empty for others.
    """

    transfer: str
    method: str
    domain: str
    role: Literal["source", "target"]
    seed: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    supervised: bool = False
    shots: int | None = None
    trained_parameters: int = 0
    trained_bytes: int = 0
    seconds: float = 0.0
    stream: str = ""

    @property
    def is_scored(self) -> bool:
        """Whether there were labels to compare with: ``n``, their number, is not 0."""
        return self.metrics.get("n") != 0


def results_csv(results: Sequence[Result], path: str | PathLike[str]) -> None:
    """Write one line per result and metric, with its interval; empty where there is none.

    Scores follow as ``score/<validator>``.
    """
    with whole_file(path) as made, made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["transfer", "method", "supervised", "shots", "stream", "domain", "role", "seed"]
        tail = ["trained_parameters", "trained_bytes", "seconds"]
        writer.writerow([*head, "metric", "value", "low", "high", *tail])
        for result in results:
            scores = {f"score/{name}": value for name, value in result.scores.items()}
            for metric, value in {**result.metrics, **scores}.items():
                numbers = (value, *result.intervals.get(metric, (math.nan, math.nan)))
                shown = ["" if math.isnan(number) else number for number in numbers]
                before = [getattr(result, name) for name in head]
                after = [getattr(result, name) for name in tail]
                writer.writerow([*before, metric, *shown, *after])


def results_json(results: Sequence[Result], path: str | PathLike[str]) -> None:
    """Write the results as a list of objects; nan is null. `load_results` reads them again."""
    write_json([asdict(result) for result in results], path)


def load_results(path: str | PathLike[str]) -> list[Result]:
    """Read what `results_json` wrote.

    Raises:
        CheckpointError: The file is missing, truncated or holds something else.
    """
    names = {part.name for part in fields(Result)}
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
        # Runs of before there were scores, shots and streams have none.
        later: dict[str, Any] = {"scores": {}, "shots": None, "stream": ""}
        if not records:
            raise ValueError("no result in it")
        records = [{**later, **record} for record in records]
        return [_result({name: record[name] for name in names}) for record in records]
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: cannot be read as results ({type(error).__name__}: {error}); "
            "expected a file written by results_json"
        ) from error


def _result(record: dict[str, Any]) -> Result:
    for key, kind in _KINDS.items():
        if not isinstance(record[key], kind):
            raise TypeError(f"{key} is {record[key]!r}")
    metrics = {name: number_of(value) for name, value in record["metrics"].items()}
    intervals = {
        name: (number_of(low), number_of(high)) for name, (low, high) in record["intervals"].items()
    }
    scores = {name: number_of(value) for name, value in record.get("scores", {}).items()}
    return Result(**{**record, "metrics": metrics, "intervals": intervals, "scores": scores})


@dataclass(frozen=True)
class Cell:
    """One metric of one method on one domain, over seeds.

    Args:
        by_seed: Seed → value; seeds without a value are absent.
        interval: Bootstrap interval when there is exactly one seed and it has one.
        images: Mean of the bootstrap intervals of all seeds, where each has one.
    """

    by_seed: dict[int, float]
    interval: tuple[float, float] | None
    images: tuple[float, float] | None = None

    @property
    def spread(self) -> Spread:
        """Mean, standard deviation and range over seeds."""
        return seed_spread(list(self.by_seed.values()))

    @property
    def range(self) -> tuple[float, float]:
        """What the value may as well be: over seeds (± standard deviation), and over images."""
        spread = self.spread
        std = spread.std if spread.n > 1 else 0.0
        low, high = self.images or (spread.mean, spread.mean)
        return min(low, spread.mean - std), max(high, spread.mean + std)


def collect_cell(results: Sequence[Result], metric: str, method: str, domain: str) -> Cell:
    """The cell of ``method`` and ``domain`` among the results of one transfer."""
    found = [result for result in results if (result.method, result.domain) == (method, domain)]
    values = {result.seed: result.metrics.get(metric, math.nan) for result in found}
    by_seed = {seed: value for seed, value in values.items() if not math.isnan(value)}
    ends = [result.intervals.get(metric, (math.nan, math.nan)) for result in found]
    known = bool(ends) and not any(math.isnan(end) for pair in ends for end in pair)
    images = (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if known else None
    return Cell(by_seed, images if len(found) == 1 else None, images)


def check_results(results: Sequence[Result], metric: str) -> None:
    """Refuse results that no table or figure can show.

    Raises:
        EvaluationError: There are none; no result has the metric, though there are labels for
            some; a record came twice.
    """
    if not results:
        raise EvaluationError("results: none came, expected at least one; test a method first")
    known = list(dict.fromkeys(name for result in results for name in result.metrics))
    if metric not in known and any(result.is_scored for result in results):
        raise EvaluationError(f"results: {unknown('metric', metric, known)}")
    seen = set()
    for result in results:
        key = (result.transfer, result.method, result.domain, result.seed)
        if key in seen:
            raise EvaluationError(
                f"results: {key} came twice; expected one result per transfer, method, domain "
                "and seed"
            )
        seen.add(key)


def by_transfer(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each transfer, in the order in which transfers first came."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.transfer, []).append(result)
    return groups


def method_order(results: Sequence[Result]) -> list[str]:
    """Methods in the order of the run, ``source_only`` first and ``oracle`` last."""
    methods = dict.fromkeys(result.method for result in results)
    rank = {"source_only": -1, "oracle": 1}
    return sorted(methods, key=lambda method: rank.get(method, 0))


def label_mark(results: Sequence[Result]) -> str:
    """What follows the name of a method that saw target labels: `` †``, or `` † 5 shots``."""
    if not any(result.supervised for result in results):
        return ""
    shots = shots_of(results)
    return " †" if shots is None else f" † {counted(shots, 'shot')}"


def shots_of(results: Sequence[Result]) -> int | None:
    """How few labels per class a method saw; None for none, or all."""
    return next((result.shots for result in results if result.shots is not None), None)


def stream_notes(results: Sequence[Result]) -> list[str]:
    """Which methods adapted while they predicted, and in which order images came to them."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        if result.stream:
            found.setdefault(result.stream, {})[result.method] = None
    return [
        f"online, test images in one pass, {stream}: {', '.join(methods)}"
        for stream, methods in found.items()
    ]


def label_notes(results: Sequence[Result]) -> list[str]:
    """What the marks of `label_mark` mean, as far as they came."""
    notes = []
    if any(result.supervised for result in results):
        notes.append("† saw target labels")
    if any(result.shots is not None for result in results):
        notes.append("shots: saw those of so many images of each class of a target, or masks of it")
    return notes
