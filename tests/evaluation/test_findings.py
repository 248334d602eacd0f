from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torchmetrics.functional.classification import (
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
)

from domainnorm.evaluation import EvaluationError, MultiLabelPredictions
from tests.reference import multilabel as reference


def random_findings(
    count: int = 120, classes: int = 4, unknown: float = 0.2, ties: bool = False, seed: int = 0
) -> MultiLabelPredictions:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 2, (count, classes), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + 1.2 * target - 0.6
    probabilities = logits.sigmoid()
    if ties:
        probabilities = (probabilities * 7).round() / 7
    hidden = torch.rand(count, classes, generator=generator) < unknown
    return MultiLabelPredictions(probabilities, target.masked_fill(hidden, -1), torch.arange(count))


def with_column(value: int) -> MultiLabelPredictions:
    """The answer to the second finding is always ``value``."""
    one = random_findings(seed=5)
    target = one.target.clone()
    target[:, 1] = value
    return MultiLabelPredictions(one.probabilities, target, one.index)


CASES = {
    "usual": random_findings(),
    "all known": random_findings(unknown=0.0, seed=1),
    "tied scores": random_findings(ties=True, seed=2),
    "one finding": random_findings(classes=1, seed=3),
    "always present": with_column(1),
    "never present": with_column(0),
    "never known": with_column(-1),
}
cases = pytest.mark.parametrize("findings", CASES.values(), ids=CASES.keys())
METRICS = ("auroc", "average_precision", "macro_f1", "accuracy")


@cases
@pytest.mark.parametrize("metric", METRICS)
def test_metric_equals_slow_reference(findings: MultiLabelPredictions, metric: str) -> None:
    rows, target = findings.probabilities.tolist(), findings.target.tolist()
    expected = getattr(reference, metric)(rows, target)
    assert findings.metrics()[metric] == pytest.approx(expected, abs=1e-9)


@cases
def test_auroc_of_a_finding_equals_scikit_learn(findings: MultiLabelPredictions) -> None:
    found = findings.metrics()
    for k, (score, target) in enumerate(
        zip(findings.probabilities.T, findings.target.T, strict=True)
    ):
        known = target >= 0
        if len(target[known].unique()) == 2:
            expected = roc_auc_score(target[known], score[known])
            assert found[f"auroc/{k}"] == pytest.approx(expected)
        else:
            assert math.isnan(found[f"auroc/{k}"])


@pytest.mark.parametrize("name", ["all known", "tied scores", "usual"])
def test_average_precision_equals_scikit_learn(name: str) -> None:
    findings = CASES[name]
    expected = []
    for score, target in zip(findings.probabilities.T, findings.target.T, strict=True):
        known = target >= 0
        expected.append(average_precision_score(target[known], score[known]))
    assert findings.metrics()["average_precision"] == pytest.approx(np.mean(expected))


def test_macro_f1_equals_scikit_learn() -> None:
    findings = CASES["all known"]
    expected = f1_score(findings.target, findings.probabilities > 0.5, average="macro")
    assert findings.metrics()["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["usual", "all known", "tied scores"])
@pytest.mark.parametrize(
    ("metric", "function", "average"),
    [
        ("auroc", multilabel_auroc, "macro"),
        ("average_precision", multilabel_average_precision, "macro"),
        ("macro_f1", multilabel_f1_score, "macro"),
        ("accuracy", multilabel_accuracy, "micro"),
    ],
)
def test_metric_equals_torchmetrics(name: str, metric: str, function, average: str) -> None:
    findings = CASES[name]
    expected = function(
        findings.probabilities,
        findings.target,
        num_labels=findings.num_classes,
        average=average,
        ignore_index=-1,
    )
    assert findings.metrics()[metric] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("name", ["usual", "tied scores"])
@pytest.mark.parametrize("metric", [*METRICS, "auroc/1"])
def test_integer_weights_equal_repeated_samples(name: str, metric: str) -> None:
    findings, times = CASES[name], torch.arange(120) % 4
    weighted = findings.weighted().metrics(times.double()[:, None])
    rows = torch.repeat_interleave(torch.arange(120), times)
    repeated = MultiLabelPredictions(findings.probabilities[rows], findings.target[rows], rows)
    assert float(weighted[metric]) == pytest.approx(repeated.metrics()[metric], rel=1e-12)


@pytest.mark.parametrize("metric", [*METRICS, "auroc/0"])
def test_interval_equals_a_loop_over_resamples(metric: str) -> None:
    findings, generator, values = CASES["tied scores"], np.random.default_rng(3), []
    for rows in generator.integers(120, size=(40, 120)):
        drawn = MultiLabelPredictions(
            findings.probabilities[rows], findings.target[rows], torch.arange(120)
        )
        values.append(drawn.metrics()[metric])
    interval = findings.intervals(confidence=0.8, resamples=40, seed=3)[metric]
    np.testing.assert_allclose(interval, np.quantile(values, [0.1, 0.9]), rtol=1e-9)


def test_names_of_findings_are_those_given() -> None:
    names = ["edema", "effusion", "nodule", "mass"]
    found = CASES["usual"].metrics(class_names=names)
    assert [name for name in found if "/" in name] == [f"auroc/{name}" for name in names]


def test_samples_of_which_nothing_is_known_do_not_count() -> None:
    one = CASES["usual"]
    more = MultiLabelPredictions(
        torch.cat([one.probabilities, torch.ones(3, 4)]),
        torch.cat([one.target, torch.full((3, 4), -1)]),
        torch.arange(123),
    )
    assert more.metrics() == one.metrics()


def test_no_finding_with_both_answers_has_no_auroc() -> None:
    one = MultiLabelPredictions(torch.rand(5, 2), torch.ones(5, 2).long(), torch.arange(5))
    assert math.isnan(one.metrics()["auroc"])


@pytest.mark.parametrize(
    ("probabilities", "target", "message"),
    [
        (torch.rand(3, 2), torch.zeros(3).long(), r"target: shape \(3,\), expected \(3, 2\)"),
        (torch.rand(3, 2), torch.full((3, 2), 2), "target: labels from 2 to 2"),
        (torch.rand(3, 2) + 1.1, torch.zeros(3, 2).long(), "expected sigmoid outputs"),
        (
            torch.full((3, 2), torch.nan),
            torch.zeros(3, 2).long(),
            r"that are nan, .*diverged: lower method\.lr",
        ),
    ],
)
def test_malformed_findings_are_refused(
    probabilities: torch.Tensor, target: torch.Tensor, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        MultiLabelPredictions(probabilities, target, torch.arange(3))


def test_scores_of_findings_are_their_aurocs_and_the_samples_with_them() -> None:
    findings = random_findings()
    found, metrics = findings.by_class(), findings.metrics()
    expected = [metrics[f"auroc/{k}"] for k in range(findings.num_classes)]
    assert found.values.tolist() == pytest.approx(expected, nan_ok=True)
    rows = findings.target.T.tolist()
    assert found.images.tolist() == [sum(value == 1 for value in row) for row in rows]
