from __future__ import annotations

import pytest

from domainnorm.report import Result, judge, validators_markdown
from tests.reference.validators import spearman
from tests.report.conftest import result

METRIC = "balanced_accuracy"
VALUES = {"source_only": 0.5, "tent": 0.7, "mcc": 0.8, "shot": 0.7}
SCORES = {"source_only": 0.1, "tent": 0.9, "mcc": 0.3, "shot": 0.2}


@pytest.fixture
def scored() -> list[Result]:
    return [
        result(method, value, scores={"infomax": SCORES[method], "snd": 1.0})
        for method, value in VALUES.items()
    ]


def test_correlation_is_that_of_ranks(scored: list[Result]) -> None:
    found = judge(scored, METRIC)["infomax"]
    expected = spearman(list(SCORES.values()), list(VALUES.values()))
    assert found.correlation == pytest.approx(expected)


def test_regret_is_what_the_pick_lacks_to_the_best(scored: list[Result]) -> None:
    found = judge(scored, METRIC)["infomax"]
    assert found.pick == ("tent", 0)
    assert found.regret == pytest.approx(0.1)


def test_lower_is_better_for_errors(scored: list[Result]) -> None:
    assert judge(scored, "ece")["infomax"].regret == pytest.approx(0.1)
    correlations = [judge(scored, metric)["infomax"].correlation for metric in (METRIC, "ece")]
    assert correlations[0] == pytest.approx(correlations[1])


def test_score_that_is_the_same_for_all_has_no_correlation(scored: list[Result]) -> None:
    assert "| snd | – | 0.300 | source_only, seed 0 |" in validators_markdown(scored, METRIC)


def test_methods_that_saw_target_labels_are_no_candidates(scored: list[Result]) -> None:
    oracle = result("oracle", 0.99, scores={"infomax": 5.0, "snd": 1.0})
    assert judge([*scored, oracle], METRIC) == judge(scored, METRIC)


def test_targets_without_labels_and_sources_do_not_count(scored: list[Result]) -> None:
    other = [
        result("tent", 0.1, domain="c", metrics={"n": 0.0}, scores={"infomax": -9.0}),
        result("tent", 0.1, domain="a", role="source", scores={"infomax": -9.0}),
    ]
    assert judge([*scored, *other], METRIC) == judge(scored, METRIC)


def test_two_candidates_are_too_few_for_a_table(scored: list[Result]) -> None:
    assert validators_markdown(scored[:2], METRIC) == ""
