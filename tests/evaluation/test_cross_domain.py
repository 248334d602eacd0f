from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import (
    CrossDomainMatrix,
    EvaluationError,
    Predictions,
    SegmentationCounts,
)


def predictions(right: int, count: int = 10) -> Predictions:
    """``right`` of ``count`` samples correct, with confidence 0.9."""
    target = torch.arange(count) % 2
    guess = torch.where(torch.arange(count) < right, target, 1 - target)
    probabilities = torch.full((count, 2), 0.1).scatter(1, guess[:, None], 0.9)
    return Predictions(probabilities, target, torch.arange(count))


def two_by_two() -> CrossDomainMatrix:
    """Accuracy seed 0: a→a .9, a→b .5, b→b .8; seed 1: a→a .7; b→a is missing."""
    matrix = CrossDomainMatrix(["a", "b"], ["a", "b"], resamples=50)
    for seed, row, column, right in [
        (0, "a", "a", 9),
        (0, "a", "b", 5),
        (0, "b", "b", 8),
        (1, "a", "a", 7),
    ]:
        matrix.add(seed, row, column, predictions(right))
    return matrix


def test_values_have_axes_seed_row_column() -> None:
    nan = math.nan
    expected = [[[0.9, 0.5], [nan, 0.8]], [[0.7, nan], [nan, nan]]]
    np.testing.assert_allclose(two_by_two().values("accuracy"), expected)


def test_intervals_are_those_of_the_predictions() -> None:
    expected = predictions(5).intervals(resamples=50)["ece"]
    np.testing.assert_allclose(two_by_two().intervals("ece")[0, 0, 1], expected)


def test_groups_reach_the_intervals() -> None:
    matrix = CrossDomainMatrix(["a"], ["a"], resamples=50)
    groups = ["x"] * 5 + ["y"] * 5
    matrix.add(0, "a", "a", predictions(7), groups=groups)
    expected = predictions(7).intervals(resamples=50, groups=groups)["accuracy"]
    np.testing.assert_allclose(matrix.intervals("accuracy")[0, 0, 0], expected)


def test_summary_averages_over_seeds() -> None:
    summary = two_by_two().summary()["accuracy"]
    np.testing.assert_allclose(summary.mean, [[0.8, 0.5], [math.nan, 0.8]])
    np.testing.assert_allclose(summary.std[0, 0], 0.2 / math.sqrt(2))
    assert summary.count.tolist() == [[2, 1], [0, 1]]


def test_missing_cell_is_left_out_of_diagonal_and_off_diagonal() -> None:
    summary = two_by_two().summary()["accuracy"]
    assert summary.diagonal == pytest.approx(0.8)
    assert summary.off_diagonal == pytest.approx(0.5)


def test_diagonal_is_matched_by_name() -> None:
    matrix = CrossDomainMatrix(["b", "a"], ["a", "c"], resamples=5)
    for row in matrix.rows:
        for column in matrix.columns:
            matrix.add(0, row, column, predictions(9 if row == column else 4))
    summary = matrix.summary()["accuracy"]
    assert summary.diagonal == pytest.approx(0.9)
    assert summary.off_diagonal == pytest.approx(0.4)


def test_no_common_name_has_no_diagonal() -> None:
    matrix = CrossDomainMatrix(["model"], ["a"], resamples=5)
    matrix.add(0, "model", "a", predictions(9))
    assert math.isnan(matrix.summary()["accuracy"].diagonal)


@pytest.mark.parametrize(("metric", "column"), [("accuracy", "b"), ("nll", "b"), ("ece", "b")])
def test_worst_domain_is_lowest_or_for_errors_highest(metric: str, column: str) -> None:
    assert two_by_two().summary()[metric].worst["a"][0] == column


def test_row_with_missing_cell_cannot_be_best() -> None:
    assert two_by_two().summary()["accuracy"].best_row == ("a", pytest.approx(0.65))


def test_no_complete_row_has_no_best() -> None:
    matrix = CrossDomainMatrix(["a"], ["a", "b"], resamples=5)
    matrix.add(0, "a", "a", predictions(9))
    assert matrix.summary()["accuracy"].best_row is None


def test_json_round_trip_keeps_values_and_intervals(tmp_path: Path) -> None:
    matrix = two_by_two()
    matrix.to_json(tmp_path / "matrix.json")
    loaded = CrossDomainMatrix.from_json(tmp_path / "matrix.json")
    np.testing.assert_array_equal(loaded.values("nll"), matrix.values("nll"))
    np.testing.assert_array_equal(loaded.intervals("nll"), matrix.intervals("nll"))


def test_json_round_trip_keeps_what_intervals_resample(tmp_path: Path) -> None:
    matrix = CrossDomainMatrix(["a"], ["a"], resamples=5)
    matrix.add(0, "a", "a", predictions(7), groups=["x", "y"] * 5)
    matrix.to_json(tmp_path / "matrix.json")
    assert CrossDomainMatrix.from_json(tmp_path / "matrix.json").interval_unit == "groups"


def test_json_holds_null_for_a_missing_cell(tmp_path: Path) -> None:
    two_by_two().to_json(tmp_path / "matrix.json")
    summary = json.loads((tmp_path / "matrix.json").read_text())["summary"]
    assert summary["accuracy"]["mean"] == [[pytest.approx(0.8), 0.5], [None, 0.8]]


def test_csv_has_one_line_per_cell_and_empty_fields_where_missing(tmp_path: Path) -> None:
    two_by_two().to_csv(tmp_path / "matrix.csv")
    with (tmp_path / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 4 * 2
    assert list(rows[0].values())[:5] == ["accuracy", "a", "a", "0", "0.9"]
    missing = [r["value"] for r in rows if (r["row"], r["column"]) == ("b", "a")]
    assert missing == [""] * 10


@pytest.mark.parametrize("text", ["", "{}", '{"rows": 3}', "[1]"])
def test_foreign_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "matrix.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"matrix\.json: cannot be read as a matrix"):
        CrossDomainMatrix.from_json(path)


def test_metrics_are_those_of_the_kind_and_options_reach_them(tmp_path: Path) -> None:
    ones = torch.ones(2, 2, 2).long()
    counts = SegmentationCounts(ones, ones, torch.arange(2))
    matrix = CrossDomainMatrix(["a"], ["a"], resamples=5, options={"class_names": ["sky", "road"]})
    matrix.add(0, "a", "a", counts)
    matrix.to_json(tmp_path / "matrix.json")
    for one in (matrix, CrossDomainMatrix.from_json(tmp_path / "matrix.json")):
        assert one.metrics[0] == "miou"
        assert one.values("iou/sky").item() == pytest.approx(1 / 3)
        assert one.options == {"class_names": ["sky", "road"]}


def test_unknown_domain_answers_with_the_nearest() -> None:
    matrix = CrossDomainMatrix(["clean"], ["clean", "textured"])
    with pytest.raises(EvaluationError, match="unknown column 'texture': did you mean 'textured'"):
        matrix.add(0, "clean", "texture", predictions(5))


def test_unknown_metric_answers_with_the_nearest() -> None:
    with pytest.raises(EvaluationError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        two_by_two().values("acuracy")


def test_cell_cannot_be_added_twice() -> None:
    with pytest.raises(EvaluationError, match=r"cell \(seed 0, a, a\) came twice"):
        two_by_two().add(0, "a", "a", predictions(5))


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_names_must_be_distinct_and_some(names: list[str]) -> None:
    with pytest.raises(EvaluationError, match="expected one or more distinct names"):
        CrossDomainMatrix(names, ["a"])
