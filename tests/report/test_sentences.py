from __future__ import annotations

from dataclasses import replace

import pytest

from domainnorm.report import Result, caption, figure_place, sentences
from domainnorm.report.sentences import best_method
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
    said = caption("confusion_a_1-to-b+c_seed0_tent.png")
    assert said.endswith(" This is tent, a_1 → b + c, seed 0.")
    assert (
        caption("domains.png") == "Training images of each domain, as they are before augmentation."
    )
    assert caption("miou.png") == "Mean IoU of each method on the test images of the targets."


def test_charts_of_metrics_come_first_and_images_before_curves():
    files = ["layers_x.png", "miou.png", "curves_x.png", "confusion_x.png", "domains.png"]
    shown = [file.partition("_")[0] for file in sorted(files, key=figure_place)]
    assert shown == ["miou.png", "confusion", "domains.png", "curves", "layers"]


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({"source_only": 0.9, "tent": 0.5, "adabn": 0.6, "oracle": 0.95}, "adabn"),
        ({"source_only": 0.9, "oracle": 0.95}, "oracle"),
        ({"source_only": 0.9}, None),
    ],
)
def test_best_method_has_adapted_and_saw_labels_only_where_all_did(values, best):
    results = [of(name, value, 0, 1, supervised=name == "oracle") for name, value in values.items()]
    assert best_method(results, "b", METRIC) == best
