from __future__ import annotations

import math

import torch

from domainnorm.evaluation import ClassScores
from domainnorm.report import Result, classes_markdown
from tests.report.conftest import result

NAMES = ["cat", "dog", "cow"]
METRIC = "balanced_accuracy"


def scores(*values: float) -> ClassScores:
    return ClassScores("recall", torch.tensor(values, dtype=torch.float64), torch.tensor([9, 1, 0]))


def told(found: list[tuple[Result, ClassScores]]) -> str:
    return classes_markdown(found, NAMES, METRIC)


def test_row_of_a_class_has_its_images_and_the_mean_over_seeds_of_each_method() -> None:
    text = told(
        [
            (result("source_only", 0.5, 0), scores(0.2, 0.5, math.nan)),
            (result("source_only", 0.5, 1), scores(0.4, 0.5, math.nan)),
            (result("tent", 0.7, 0), scores(0.6, 0.25, math.nan)),
        ]
    )
    assert "| class | images | source_only | tent |" in text
    assert "| cat | 9 | 0.30 | 0.60 |" in text
    assert "| cow | 0 | – | – |" in text
    assert "means over 2 seeds" in text


def test_sentence_names_the_worst_class_of_the_best_method() -> None:
    found = [
        (result("source_only", 0.9), scores(0.2, 0.5, math.nan)),
        (result("tent", 0.7), scores(0.6, 0.25, math.nan)),
        (result("adabn", 0.6), scores(0.0, 0.1, math.nan)),
    ]
    assert told(found).startswith(
        "On `b`, `tent` is worst on `dog`: recall 0.25 (1 test image); `source_only` has 0.50 "
        "there.\n\n**b** · recall of each class\n"
    )


def test_classes_that_are_equally_bad_are_named_together() -> None:
    text = told([(result("source_only", 0.9), scores(0.0, 0.0, 0.5))])
    assert "On `b`, `source_only` is worst on `cat`, `dog`: recall 0.00.\n" in text


def test_no_class_is_worst_where_all_are_equal() -> None:
    assert told([(result("tent", 0.9), scores(1.0, 1.0, math.nan))]).startswith("**b** · recall")


def test_tables_of_several_transfers_say_which_they_are_of() -> None:
    text = told(
        [(result("tent", 0.7, transfer=one), scores(0, 1, 1)) for one in ("a → b", "c → b")]
    )
    assert "**b (a → b)** · recall" in text
    assert "**b (c → b)** · recall" in text
    assert text.count("recall: share") == 1, "what a word means is said once"


def test_there_is_no_table_of_nothing() -> None:
    assert told([]) == ""


def test_findings_are_called_findings() -> None:
    text = told([(result("tent", 0.7), scores(0.5, 0.6, 0.7)._replace(metric="auroc"))])
    assert "**b** · AUROC of each finding" in text
    assert "AUROC: how well images with a finding" in text
