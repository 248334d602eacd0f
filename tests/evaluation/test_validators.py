"""Scores without target labels equal what their papers say."""

import inspect
import math
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close

from domainnorm.evaluation import EvaluationError, Outputs, Predictions, ensv, score
from domainnorm.evaluation.validators import balanced
from domainnorm.registry import VALIDATORS
from tests.reference import validators as reference

every_validator = pytest.mark.parametrize("name", VALIDATORS.names())


def probabilities(number=24, classes=4, sharpness=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(number, classes, generator=generator)
    return logits.softmax(1)


def predictions(probability, target=None):
    index = torch.arange(len(probability))
    target = torch.full_like(index, -1) if target is None else target
    return Predictions(probability, target, index)


def outputs(number=24, classes=4, sharpness=3.0):
    p = probabilities(number, classes, sharpness)
    label = p.argmax(1)
    generator = torch.Generator().manual_seed(5)
    return Outputs(
        p,
        strong=probabilities(number, classes, seed=1) + 2 * p,
        student=probabilities(number, classes, seed=2) + 2 * p,
        features=torch.randn(number, 6, generator=generator) + torch.eye(classes, 6)[label],
        mixed=probabilities(number, classes, seed=3) + p,
        mixed_label=label,
        mixed_same=label == label.roll(1),
        source=[predictions(p, torch.arange(number) % classes)],
        source_features=torch.randn(number + 6, 6, generator=generator),
        source_wrong=torch.arange(number + 6) % 3 == 0,
    )


@every_validator
def test_every_validator_reads_fields_of_outputs(name):
    known = {field.name for field in fields(Outputs)}
    read = VALIDATORS.entry(name).arguments
    assert read
    assert set(read) <= known
    assert read == list(inspect.signature(VALIDATORS.load(name)).parameters)


@every_validator
def test_every_validator_gives_a_number_that_does_not_depend_on_the_last_call(name):
    first, second = (score(name, outputs()) for _ in range(2))
    assert isinstance(first, float)
    assert first == second


@every_validator
def test_what_a_validator_lacks_leaves_it_out(name):
    nothing = Outputs(probabilities())
    reads_more = VALIDATORS.entry(name).arguments != ["probability"]
    assert (score(name, nothing) is None) == reads_more


@every_validator
def test_every_validator_says_where_it_comes_from_and_what_it_reads(name):
    text = VALIDATORS.load(name).__doc__
    assert "Args:" in text
    assert "Reference:" in text or name in ("view_agreement", "teacher_agreement")


@pytest.mark.parametrize("name", ["entropy", "infomax", "bnm", "snd", "corr_c"])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
def test_score_of_probabilities_equals_its_formula(name, sharpness):
    p = probabilities(sharpness=sharpness)
    found = VALIDATORS.load(name)(p)
    assert_close(found, getattr(reference, name)(p.double()), rtol=1e-9, atol=1e-9)


def test_mixval_and_agreements_equal_their_formulas():
    one = outputs()
    given = (one.mixed, one.mixed_label, one.mixed_same)
    assert score("mixval", one) == pytest.approx(reference.mixval(*given))
    for name, other in (("view_agreement", one.strong), ("teacher_agreement", one.student)):
        assert score(name, one) == pytest.approx(reference.agreement(one.probability, other))


def test_mixval_without_pairs_of_one_class_is_that_of_two():
    one, none = outputs(), torch.zeros(24, dtype=torch.bool)
    found = VALIDATORS.load("mixval")(one.mixed, one.mixed_label, none)
    assert found == pytest.approx(reference.agreement(one.mixed, one.probability))


def test_class_ami_equals_mutual_information_adjusted_by_all_permutations():
    label = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    clusters = torch.tensor([0, 0, 1, 1, 1, 0, 1])
    p = torch.nn.functional.one_hot(label, 2).float()
    features = 100.0 * clusters[:, None] + torch.arange(7)[:, None] / 10  # k-means finds these
    expected = reference.adjusted_mutual_information(label.tolist(), clusters.tolist())
    assert VALIDATORS.load("class_ami")(p, features) == pytest.approx(expected)


def test_class_ami_of_fewer_different_features_than_classes_needs_fewer_clusters():
    assert score("class_ami", Outputs(probabilities(8), features=torch.ones(8, 3))) == 0.0


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_dev_equals_its_formula(shift):
    one = outputs(60)
    moved = one.source_features + shift
    found = VALIDATORS.load("dev")(one.features, moved, one.source_wrong)
    expected = reference.dev(one.features, moved, one.source_wrong)
    assert found == pytest.approx(expected, rel=1e-6)


def test_dev_weighs_source_images_by_how_far_they_could_be_the_targets():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(400, 2, generator=generator)
    target = torch.randn(400, 2, generator=generator) + torch.tensor([1.0, 0.0])
    like_target = source[:, 0] > 0.5
    dev = VALIDATORS.load("dev")
    assert dev(target, source, like_target) < dev(target, source, ~like_target) - 0.2


def test_dev_of_equal_domains_is_the_error():
    features = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    wrong = torch.arange(300) % 4 == 0
    assert VALIDATORS.load("dev")(features, features, wrong) == pytest.approx(-0.25, abs=0.02)


def test_dev_of_one_image_is_its_error():
    dev = VALIDATORS.load("dev")
    assert dev(torch.ones(3, 2), torch.ones(1, 2), torch.tensor([True])) == -1
    assert dev(torch.ones(1, 2), torch.ones(3, 2), torch.zeros(3).bool()) == 0


@pytest.mark.parametrize("name", ["infomax", "bnm", "corr_c"])
def test_one_class_for_all_is_the_worst_of_sure_predictions(name):
    """EnsV's code takes the smallest Corr-C: that is this model."""
    sure = torch.eye(4).repeat(6, 1)
    collapsed = torch.eye(4)[:1].repeat(24, 1)
    assert VALIDATORS.load(name)(collapsed) < VALIDATORS.load(name)(sure) - 0.1


@pytest.mark.parametrize(("name", "best"), [("entropy", 0.0), ("snd", math.log(23))])
def test_some_take_one_class_for_all_for_the_best(name, best):
    """What they are known to fail by."""
    collapsed = torch.eye(4)[:1].repeat(24, 1)
    assert score(name, Outputs(collapsed)) == pytest.approx(best)
    assert score(name, outputs()) < best


def test_snd_of_one_sample_is_a_number():
    assert score("snd", Outputs(torch.tensor([[0.2, 0.8]]))) == 0


def test_snd_of_many_pixels_is_that_of_a_balanced_sample():
    p = probabilities(3000)
    assert score("snd", Outputs(p)) == score("snd", Outputs(balanced(p, 1000)))


def test_balanced_rows_have_equally_many_of_each_predicted_class():
    common = torch.eye(3)[:1].repeat(900, 1)
    p = torch.cat([common, torch.eye(3)[1:2].repeat(60, 1), torch.eye(3)[2:].repeat(10, 1)])
    counts = balanced(p, 100).sum(0).tolist()
    assert counts == [45.0, 45.0, 10.0]


def test_ensv_equals_its_formula():
    several = [probabilities(seed=seed) for seed in range(5)]
    found = ensv([predictions(one) for one in several])
    assert found == pytest.approx(reference.ensv(several))


def test_ensv_ranks_the_odd_one_last():
    good = [0.9 * torch.eye(4).repeat(6, 1) + 0.1 * probabilities(seed=seed) for seed in range(3)]
    odd = torch.eye(4).roll(1, 0).repeat(6, 1)
    found = ensv([predictions(one) for one in (*good, odd)])
    assert found == [1.0, 1.0, 1.0, 0.0]


def test_ensv_reads_no_labels():
    several = [probabilities(seed=seed) for seed in range(3)]
    labels = torch.arange(24) % 4
    assert ensv([predictions(one, labels) for one in several]) == ensv(
        list(map(predictions, several))
    )


def test_ensv_refuses_other_samples_and_no_candidate():
    with pytest.raises(EvaluationError, match=r"24 samples that are not the same"):
        ensv([predictions(probabilities()), predictions(probabilities(12))])
    with pytest.raises(EvaluationError, match="no candidate came"):
        ensv([])
