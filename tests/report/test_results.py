from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from domainnorm.errors import CheckpointError
from domainnorm.report import Result, load_results, results_csv, results_json
from tests.report.conftest import result


def test_json_round_trip_keeps_every_field(tmp_path: Path) -> None:
    written = [result("tent", 0.7, intervals={"balanced_accuracy": (0.6, 0.8)})]
    results_json(written, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == written


def test_missing_number_survives_the_round_trip(tmp_path: Path) -> None:
    results_json([result("tent", math.nan)], tmp_path / "results.json")
    loaded = load_results(tmp_path / "results.json")[0]
    assert math.isnan(loaded.metrics["balanced_accuracy"])


@pytest.mark.parametrize("text", ["", "[]", "[1]", '[{"method": "tent"}]', "3"])
def test_foreign_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"results\.json: cannot be read as results"):
        load_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("key", "value"), [("domain", 3), ("transfer", None), ("seed", "x"), ("seconds", "x")]
)
def test_value_of_another_kind_is_named(tmp_path: Path, key: str, value: object) -> None:
    results_json([result("tent", 0.7, **{key: value})], tmp_path / "results.json")
    with pytest.raises(CheckpointError, match=rf"results\.json: .*{key} is {value!r}"):
        load_results(tmp_path / "results.json")


def test_csv_has_one_line_per_result_and_metric(tmp_path: Path, results: list[Result]) -> None:
    results_csv(results, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(results)
    assert (rows[0]["method"], rows[0]["metric"], rows[0]["value"]) == (
        "oracle",
        "balanced_accuracy",
        "0.9",
    )


def test_csv_leaves_a_missing_interval_empty(tmp_path: Path) -> None:
    results_csv([result("tent", 0.7)], tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [row["low"] for row in csv.DictReader(file)] == ["", ""]
