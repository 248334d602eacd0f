import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from domainnorm.evaluation import (
    EvaluationError,
    StyleJudge,
    Translations,
    TranslationStore,
    load_evaluated,
    sliced_wasserstein,
    style_distances,
)


def translations(domain=0, number=6, shift=0.0):
    features = torch.randn(number, 3, 4)
    features[:, 1] += shift
    return Translations(
        torch.full((number,), domain),
        torch.tensor([[[0, 0], [1, 1], [0, 2]]] * (number - 1) + [[[1, 0], [1, 0], [2, 2]]]),
        torch.rand(number, 3),
        features,
        torch.arange(number),
    )


def test_style_is_what_others_are_taken_for():
    values = translations().metrics(domain_names=["a", "b", "c"])
    assert values["style_accuracy/b"] == 1
    assert values["style_accuracy/c"] == pytest.approx(1 / 6)
    assert values["style_accuracy"] == pytest.approx((1 + 1 / 6) / 2)
    assert values["style_accuracy_real"] == pytest.approx(5 / 6)
    assert values["look_accuracy_real"] == 1
    assert values["look_accuracy/b"] == pytest.approx(5 / 6)
    assert values["look_accuracy/c"] == 1
    assert "style_accuracy/a" not in values


def test_structure_is_the_mean_over_other_domains():
    one = translations(domain=1)
    values = one.metrics(domain_names=["a", "b", "c"])
    means = one.similarity.double().mean(0)
    assert values["round_trip_ssim/a"] == pytest.approx(float(means[0]))
    assert values["round_trip_ssim"] == pytest.approx(float(means[[0, 2]].mean()))
    assert values["own_style_ssim"] == pytest.approx(float(means[1]))


def test_intervals_hold_the_values():
    one = translations(number=40)
    values, intervals = one.metrics(), one.intervals(resamples=200)
    assert set(intervals) == set(values) - {"n"}
    low, high = intervals["round_trip_ssim"]
    assert low < values["round_trip_ssim"] < high


def test_file_gives_back_what_was_stored(tmp_path):
    one = translations()
    one.save(tmp_path / "one.safetensors")
    other = load_evaluated(tmp_path / "one.safetensors")
    assert isinstance(other, Translations)
    assert other.metrics() == one.metrics()
    assert other.real().equal(one.features[:, 0])


def test_store_counts_each_image_once():
    store, said = TranslationStore(), torch.rand(3, 2, 7).round()
    for order in ([2, 0], [1, 2]):
        index = torch.tensor(order)
        store.update(said[index], torch.zeros(2), index)
    found = store.compute()
    assert found.index.tolist() == [0, 1, 2]
    assert found.features.equal(said[..., 3:])
    assert found.judged.equal(said[..., :2].long())


def test_store_refuses_other_shapes():
    with pytest.raises(EvaluationError, match=r"\(N, D, 3 \+ F\)"):
        TranslationStore().update(torch.rand(3, 2), torch.zeros(3), torch.arange(3))


@pytest.mark.parametrize(("number", "other"), [(7, 7), (5, 9)])
def test_distance_along_one_axis_is_that_of_scipy(number, other):
    """In one dimension every direction is that axis, forwards or backwards."""
    one, two = torch.randn(number, 1), torch.randn(other, 1) + 0.3
    expected = wasserstein_distance(one[:, 0].numpy(), two[:, 0].numpy())
    assert sliced_wasserstein(one, two) == pytest.approx(expected, rel=1e-6)


def test_equal_sets_have_no_distance():
    one = torch.randn(9, 5)
    assert sliced_wasserstein(one, one.flip(0)) == pytest.approx(0, abs=1e-12)


def test_distance_grows_with_a_shift():
    one = torch.randn(50, 5)
    assert sliced_wasserstein(one, one + 1) < sliced_wasserstein(one, one + 2)


def test_empty_set_has_an_unknown_distance():
    assert math.isnan(sliced_wasserstein(torch.zeros(0, 3), torch.randn(2, 3)))


def test_distances_stand_beside_what_they_are_to_be_compared_with():
    one, other = translations(0), translations(1, shift=5.0)
    found = style_distances({"a": one, "b": other}, ["a", "b", "c"])
    real = other.real()
    assert found["a"]["distance/b"] == sliced_wasserstein(one.features[:, 1], real)
    assert found["a"]["distance_before/b"] == sliced_wasserstein(one.real(), real)
    assert found["a"]["distance_halves/b"] == sliced_wasserstein(real[::2], real[1::2])
    assert found["a"]["distance"] == found["a"]["distance/b"]
    assert set(found["b"]) == {key.replace("/b", "/a") for key in found["a"]}


def test_judge_tells_domains_that_differ():
    domain = torch.tensor([0, 1] * 20)
    features = torch.randn(40, 3) + 5 * domain[:, None]
    judge = StyleJudge(features, domain)
    assert judge(judge.scaled(features)).tolist() == domain.tolist()
    scaled = judge.scaled(features)
    assert scaled.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_feature_that_hardly_varies_is_no_obstacle():
    """A test image that differs in it is no thousand deviations away."""
    features = torch.zeros(4, 2)
    features[:, 0] = torch.tensor([0.0, 1, 0, 1])
    judge = StyleJudge(features, torch.tensor([0, 1, 0, 1]))
    assert float(judge.scaled(torch.tensor([[0.5, 0.1]])).abs().max()) < 10
