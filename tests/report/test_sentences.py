from __future__ import annotations

from dataclasses import replace

import pytest

from domainnorm.report import Result, caption, sentences
from tests.report.conftest import result

METRIC = "balanced_accuracy"


def of(method: str, value: float, low: float, high: float, **changes: object) -> Result:
    made = result(method, value, intervals={METRIC: (low, high)})
    numbers = {"n": 28.0} | made.metrics
    return replace(made, role="target", metrics=numbers, **changes)  # type: ignore[arg-type]


def test_a_sentence_says_what_was_reached_and_with_what_labels():
    said = sentences(
        [
            of("source_only", 0.51, 0.40, 0.59),
            of("adabn", 0.60, 0.50, 0.70),
            of("tent", 0.78, 0.65, 0.90),
            of("oracle", 0.86, 0.80, 0.90, supervised=True),
        ],
        METRIC,
    )
    (text,) = said
    assert "(28 test images)" in text
    assert (
        "`tent` (the best of 2 methods without its labels) is right for 78 of 100 images, if each "
        "class counts the same; `source_only` (without adaptation) for 51; `oracle` (which saw its "
        "labels) for 86. `tent` helps here."
    ) in text


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.6, 0.55, 0.7, "overlap: this may be chance."),
        (0.2, 0.1, 0.3, "`tent` harms here."),
        (0.9, 0.8, 0.95, "`tent` helps here."),
    ],
)
def test_a_difference_is_called_one_where_ranges_do_not_overlap(value, low, high, verdict):
    (text,) = sentences([of("source_only", 0.5, 0.4, 0.6), of("tent", value, low, high)], METRIC)
    assert text.endswith(verdict)


def test_one_value_without_an_interval_is_not_judged():
    base, own = of("source_only", 0.5, 0, 1), of("tent", 0.6, 0, 1)
    (text,) = sentences([replace(one, intervals={}) for one in (base, own)], METRIC)
    assert text.endswith("does not tell whether that is chance.")
    (text,) = sentences([base, replace(base, method="tent")], METRIC)
    assert text.endswith("are the same here.")


def test_few_images_are_uncertain_however_alike_the_seeds_are():
    def seeds(method, value):
        both = (of(method, value, value - 0.1, value + 0.1) for _ in range(2))
        return [replace(one, seed=seed) for seed, one in enumerate(both)]

    (text,) = sentences([*seeds("source_only", 0.9), *seeds("tent", 0.95)], METRIC)
    assert text.endswith("overlap: this may be chance.")


def test_methods_that_all_saw_labels_are_told_as_that():
    seen = of("joint", 0.9, 0.85, 0.95, supervised=True, shots=2)
    (text,) = sentences([of("source_only", 0.5, 0.4, 0.6), seen], METRIC)
    assert "`joint` (which saw 2 labels of each class, or so many masks) is right for 90" in text
    (text,) = sentences([seen], METRIC)
    assert "joint" in text


def test_a_target_without_labels_is_said_to_be_not_measured():
    unscored = [
        replace(of(name, 0.5, 0, 1), metrics={"n": 0.0}) for name in ("source_only", "tent")
    ]
    (text,) = sentences(unscored, METRIC)
    assert "no test image has a label" in text


def test_captions_of_a_matrix_say_what_rows_and_columns_are():
    assert caption("figures/matrix_norms/balanced_accuracy.png") == (
        "Balanced accuracy. Test images of each domain (columns) under the norms of each (rows)."
    )


def test_captions_of_figures_are_sentences():
    assert caption("confusion_a-to-b_seed0_tent.png").endswith("class. a → b seed0 tent")
    assert caption("balanced_accuracy.png") == (
        "Balanced accuracy of each method on the test images."
    )
