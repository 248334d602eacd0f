import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

from domainnorm.report import (
    Arm,
    ComparedCell,
    Result,
    cells_markdown,
    compare_arms,
    comparison_csv,
    comparison_json,
    comparison_markdown,
    comparison_table,
    ranks_markdown,
    results_markdown,
    save_comparison,
    save_results_bars,
)

VALUES = {  # method → target → by seed
    "oracle": {"b": [0.9, 0.9], "c": [0.8, 0.8]},
    "tent": {"b": [0.7, 0.8], "c": [0.2, 0.4]},
    "source_only": {"b": [0.5, 0.7], "c": [0.4, 0.4]},
    "adabn": {"b": [0.6, 0.6], "c": [0.5, 0.3]},
}


def arm(name, values, settings=None, group="g", **more):
    one = Arm(name, settings or {}, group, resident_bytes=2_000_000_000)
    for domain, seeds in values.items():
        for seed, value in enumerate(seeds):
            result = Result(
                *("a → b + c", name, domain, "target", seed, {"accuracy": value}),
                supervised=name == "oracle",
                trained_parameters=1000,
                seconds=60.0,
            )
            one.results["a → b + c", domain, seed] = result
    one.__dict__.update(more)
    return one


@pytest.fixture
def compared():
    return compare_arms([arm(name, values) for name, values in VALUES.items()], "accuracy")


def row(compared, name):
    return next(row for row in compared.rows if row.arm.name == name)


def test_source_model_comes_first_and_oracle_last(compared):
    assert [row.arm.name for row in compared.rows] == ["source_only", "tent", "adabn", "oracle"]


def test_closed_gap_is_of_sums_over_targets_and_of_each(compared):
    tent = row(compared, "tent")
    assert list(tent.gaps.values()) == pytest.approx([0.15 / 0.3, -0.1 / 0.4])
    assert tent.gap == pytest.approx((0.15 - 0.1) / (0.3 + 0.4))
    assert row(compared, "source_only").gap == 0
    assert row(compared, "oracle").gap == pytest.approx(1)


def test_gap_counts_the_seeds_that_all_have():
    values = {**VALUES, "tent": {"b": [0.7, 0.8], "c": [0.2]}}
    compared = compare_arms([arm(name, of) for name, of in values.items()], "accuracy")
    assert list(row(compared, "tent").gaps.values())[1] == pytest.approx(-0.2 / 0.4)


def test_gap_of_another_setting_is_no_reference():
    arms = [arm("tent", VALUES["tent"]), arm("oracle", VALUES["oracle"], group="other")]
    assert math.isnan(row(compare_arms(arms, "accuracy"), "tent").gap)


def test_worst_is_over_targets_and_seeds(compared):
    value, shift, seed = row(compared, "tent").worst
    assert (value, shift.domain, seed) == (0.2, "c", 0)


def test_wins_leave_out_who_saw_labels(compared):
    wins = {one.arm.name: one.wins for one in compared.rows}
    assert wins == {"source_only": 1, "tent": 1, "adabn": 1, "oracle": 0}  # a tie on c counts twice


def test_lower_is_better_where_it_is():
    values = {name: {"b": seeds["b"]} for name, seeds in VALUES.items()}
    arms = [arm(name, of) for name, of in values.items()]
    for one in arms:
        for key, result in one.results.items():
            metrics = {"ece": 1 - result.metrics["accuracy"]}
            one.results[key] = Result(*key[:1], one.name, *key[1:2], "target", key[2], metrics)
    compared = compare_arms(arms, "ece")
    assert row(compared, "tent").gap == pytest.approx(0.5)
    assert row(compared, "tent").worst[0] == pytest.approx(0.3)


def test_arms_are_ranked_by_scores_without_labels():
    arms = [arm(name, of) for name, of in VALUES.items()]
    scores = {"tent": 0.3, "source_only": 0.5, "adabn": 0.4, "oracle": 0.9}
    for one in arms:
        for key, result in one.results.items():
            of = {"snd": scores[one.name], "ensv": -scores[one.name]}
            one.results[key] = replace(result, scores=of)
    compared = compare_arms(arms, "accuracy")
    assert row(compared, "tent").ranks == {"snd": 3, "ensv": 1}
    assert row(compared, "oracle").ranks == {}
    assert "| rank by ensv |" in comparison_markdown(compared)
    assert "| tent | 3 | 1 |" in ranks_markdown(compared)


def test_places_are_judged_where_target_labels_allow_it():
    arms = [arm(name, {"b": of["b"]}) for name, of in VALUES.items()]
    for one in arms:
        for key, result in one.results.items():
            of = {"snd": result.metrics["accuracy"], "ensv": -result.metrics["accuracy"]}
            one.results[key] = replace(result, scores=of)
    said = ranks_markdown(compare_arms(arms, "accuracy")).splitlines()
    line = {
        name: next(one for one in said if one.startswith(f"| {name} | "))
        for name in ("snd", "ensv")
    }
    assert line["snd"].startswith("| snd | +1.00 | 0.000 | tent, seed ")
    assert line["ensv"].startswith("| ensv | -1.00 |")
    assert not any("oracle" in one for one in line.values())


def test_nothing_is_said_of_scores_that_are_not_there(compared):
    assert ranks_markdown(compared) == ""
    assert "rank" not in comparison_markdown(compared)


def test_table_says_what_was_measured(compared):
    lines = comparison_markdown(compared).splitlines()
    tent = next(line for line in lines if line.startswith("| tent |"))
    assert tent == (
        "| tent | 0.750 ± 0.071 | 0.300 ± 0.141 | 0.525 | 7% | 0.200 (c, seed 0) | 1 | 1.0 min | "
        "2.00 GB | 1.0 k |"
    )
    assert any(line.startswith("| oracle † |") and "| – |" in line for line in lines)
    assert "† saw target labels" in lines[-1]


@pytest.fixture
def few():
    """Arms of which tent saw five labels of each class."""
    arms = [arm(name, of) for name, of in VALUES.items()]
    tent = arms[1].results
    tent |= {key: replace(one, supervised=True, shots=5) for key, one in tent.items()}
    return arms


def test_table_says_how_many_labels_were_seen_as_that_of_a_run(few):
    results = [one for arm in few for one in arm.results.values()]
    for text in (
        comparison_markdown(compare_arms(few, "accuracy")),
        results_markdown(results, "accuracy"),
    ):
        assert "| tent † 5 shots |" in text
        assert "| oracle † |" in text
        assert "† saw target labels  \nshots: saw those of so many images of each class" in text


def test_figure_says_how_many_labels_were_seen_as_that_of_a_run(few, tmp_path):
    results = [one for arm in few for one in arm.results.values()]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_comparison(compare_arms(few, "accuracy"), tmp_path / "compared.svg")
        save_results_bars(results, "accuracy", tmp_path / "run.svg")
    for file in tmp_path.glob("*.svg"):
        text = file.read_text()
        assert "tent † 5 shots" in text
        assert "oracle †" in text
        assert "shots: saw" in text


def test_terminal_says_what_marks_mean_and_nothing_without_any(few, compared):
    assert "shots: saw those" in str(comparison_table(compare_arms(few, "accuracy")).caption)
    plain = compare_arms([arm("tent", VALUES["tent"])], "accuracy")
    assert comparison_table(plain).caption is None


def test_files_hold_the_number_of_shots(few, tmp_path):
    compared = compare_arms(few, "accuracy")
    comparison_json(compared, [], tmp_path / "c.json")
    comparison_csv(compared, tmp_path / "c.csv")
    stored = json.loads((tmp_path / "c.json").read_text())["arms"]
    assert {one["method"]: one["shots"] for one in stored}["tent"] == 5
    with (tmp_path / "c.csv").open(newline="") as file:
        assert {one["method"]: one["shots"] for one in csv.DictReader(file)} == {
            **dict.fromkeys(VALUES, ""),
            "tent": "5",
        }


def test_settings_have_columns_by_the_last_part_of_their_key():
    arms = [arm("tent", VALUES["tent"], {"norm": norm, "method.lr": "0.1"}, norm) for norm in "xy"]
    compared = compare_arms(arms, "accuracy")
    assert (
        comparison_markdown(compared).splitlines()[2].startswith("| method | norm | lr | b | c |")
    )
    assert comparison_table(compared).row_count == 2


def test_equal_domains_of_several_transfers_are_told_apart():
    one = arm("tent", {"b": [0.5]})
    one.results["c → b", "b", 0] = Result("c → b", "tent", "b", "target", 0, {"accuracy": 0.1})
    names = list(compare_arms([one], "accuracy").shifts.values())
    assert names == ["a → b + c: b", "c → b: b"]


def test_files_hold_what_the_table_shows(compared, tmp_path):
    cells = [ComparedCell("tent seed 0", Path("cells/1"), "failed", "why")]
    comparison_json(compared, cells, tmp_path / "c.json")
    comparison_csv(compared, tmp_path / "c.csv")
    stored = json.loads((tmp_path / "c.json").read_text())
    tent = next(one for one in stored["arms"] if one["method"] == "tent")
    assert tent["shifts"][0]["by_seed"] == {"0": 0.7, "1": 0.8}
    assert stored["cells"] == [
        {"label": "tent seed 0", "folder": "cells/1", "state": "failed", "error": "why"}
    ]
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = [one for one in csv.DictReader(file) if one["method"] == "tent"]
    assert [float(one["mean"]) for one in rows] == pytest.approx([0.75, 0.3])
    assert [float(one["gap_closed"]) for one in rows] == pytest.approx([0.5, -0.25])


def test_failed_cells_are_named_and_finished_ones_lead_to_their_pages():
    text = cells_markdown(
        [
            ComparedCell("tent", Path("cells/01_tent"), "finished", ""),
            ComparedCell("dann", Path("cells/02_dann"), "failed", "ValueError: a | b"),
        ]
    )
    assert "| [tent](cells/01_tent/report.html) | finished |" in text
    assert "| dann | failed: ValueError: a \\| b |" in text


def test_heatmap_has_a_row_for_each_arm(compared, tmp_path):
    save_comparison(compared, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
