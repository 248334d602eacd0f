import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from domainnorm.encoders import find_domains
from domainnorm.encoders.clusters import Form, prediction_strength, stability
from domainnorm.errors import ConditionError
from tests.combinations import covering
from tests.encoders.slides import features
from tests.reference.clusters import prediction_strength_of

COUNT = 36


@pytest.fixture(scope="module")
def three():
    """Features of three stains, and the truth, which nobody sees who looks for it."""
    every = torch.cat([features(kind, COUNT) for kind in range(3)])
    return every, np.repeat([0, 1, 2], COUNT)


@pytest.fixture(scope="module")
def found(three):
    return find_domains(three[0])


@pytest.mark.slow
def test_three_styles_are_found(three, found):
    assert found.num_domains == 3
    assert adjusted_rand_score(three[1], found.domain.numpy()) > 0.95


def test_each_domain_is_stable_and_apart(found):
    assert found.stability.min() >= 0.8
    assert found.silhouette.min() > 0.2


@pytest.mark.parametrize("kind", range(3))
def test_one_style_is_one_domain(kind):
    found = find_domains(features(kind, COUNT))
    assert found.num_domains == 1
    assert found.stability.item() < 0.8
    assert found.silhouette.isnan().all()


@covering(1, count=[40, 200], kind=["blob", "cigar", "skewed"])
def test_one_blob_is_one_domain_whatever_its_shape(kind, count):
    blob = torch.randn(count, 12)
    blob = {
        "blob": blob,
        "cigar": blob @ torch.randn(1, 12).T @ torch.randn(1, 12) + blob,
        "skewed": blob.exp(),
    }
    assert find_domains(blob[kind]).num_domains == 1


@pytest.mark.slow
def test_the_same_seed_finds_the_same(three, found):
    again = find_domains(three[0])
    assert torch.equal(found.domain, again.domain)
    assert torch.equal(found.distance, again.distance)
    assert torch.equal(found.stability, again.stability)


@pytest.mark.slow
def test_the_order_of_images_does_not_matter(three, found):
    order = torch.randperm(len(three[0]))
    again = find_domains(three[0][order])
    assert torch.equal(again.domain, found.domain[order])


@pytest.mark.slow
def test_images_that_do_not_shape_are_assigned_and_change_nothing(three, found):
    seen, _ = three
    others = torch.cat([seen[:9] + 0.001, torch.full((30, seen.shape[1]), 7.0)])
    shaping = torch.arange(len(seen) + len(others)) < len(seen)
    more = find_domains(torch.cat([seen, others]), shaping=shaping)
    assert torch.equal(more.domain[shaping], found.domain)
    assert torch.equal(more.stability, found.stability)
    assert torch.equal(more.domain[~shaping][:9], found.domain[:9])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_number_that_is_asked_for_is_found(three, count):
    found = find_domains(three[0], count)
    assert found.num_domains == count
    assert found.size.min() > 0


def test_no_more_than_the_largest_number_is_found(three):
    assert find_domains(three[0], max_domains=2).num_domains == 2


@pytest.mark.slow
def test_the_largest_domain_comes_first():
    every = torch.cat([features(0, 30), features(2, 60)])
    found = find_domains(every)
    assert found.size.tolist() == [60, 30]
    assert found.domain[0] == 1


def test_typical_images_are_nearest_to_the_centre(found):
    typical = found.typical(1, 5)
    assert (found.domain[typical] == 1).all()
    own = found.distance[found.domain == 1]
    assert found.distance[typical].tolist() == own.sort().values[:5].tolist()


def test_typical_images_are_taken_from_those_that_may_be(found):
    among = torch.zeros(len(found.domain), dtype=torch.bool)
    places = (found.domain == 0).nonzero().flatten()[:3]
    among[places] = True
    assert sorted(found.typical(0, 9, among)) == places.tolist()


@pytest.mark.parametrize("count", [1, 2, 19])
def test_too_few_images_to_split_are_one_domain(count):
    found = find_domains(torch.randn(count, 5))
    assert (found.num_domains, found.stability.item()) == (1, 0)
    assert found.distance.isfinite().all()


def test_copies_of_one_image_are_one_domain():
    found = find_domains(torch.ones(50, 4))
    assert (found.num_domains, found.distance.max().item()) == (1, 0)


@pytest.mark.slow
def test_a_constant_feature_says_nothing(three, found):
    constant = torch.full((len(three[0]), 1), 3.0)
    again = find_domains(torch.cat([three[0], constant], 1))
    assert adjusted_rand_score(found.domain.numpy(), again.domain.numpy()) == 1


@pytest.mark.parametrize("num_parts", [1, 2, 3])
def test_prediction_strength_equals_the_reference(num_parts):
    own, foretold = np.random.default_rng(num_parts).integers(0, num_parts, (2, 40))
    wanted = prediction_strength_of(own.tolist(), foretold.tolist(), num_parts)
    assert math.isclose(prediction_strength(own, foretold, num_parts), wanted)


def test_a_part_of_one_image_has_no_strength():
    own = np.array([0, 0, 0, 1])
    assert prediction_strength(own, own, 2) == prediction_strength_of(own, own, 2) == 0


def test_mixtures_that_foretell_one_part_for_all_are_not_stable():
    # 20 images of 12 features in each half: full covariances are overfitted.
    assert stability(np.random.default_rng(0).normal(size=(40, 12)), Form(2, "full"), 0) < 0.5


@pytest.mark.parametrize(
    ("every", "options", "message"),
    [
        (torch.zeros(0, 3), {}, r"features \(0, 3\), expected finite ones \(N, F\) of at least"),
        (torch.zeros(4), {}, r"features \(4,\), expected finite ones"),
        (torch.full((4, 2), math.nan), {}, r"features \(4, 2\), expected finite ones"),
        (torch.zeros(4, 2), {"num_domains": 0}, "0 domains, expected 1 or more"),
        (torch.zeros(4, 2), {"max_domains": -1}, "-1 domains, expected 1 or more"),
        (
            torch.zeros(4, 2),
            {"num_domains": 2},
            "2 domains asked for, 1 could be told apart in 4 images; a split needs 10 different",
        ),
        (
            torch.zeros(4, 2),
            {"shaping": torch.zeros(4, dtype=torch.bool)},
            r"shaping \(4,\), 0 of them set; expected \(4,\) and at least one",
        ),
        (torch.zeros(4, 2), {"shaping": torch.ones(3, dtype=torch.bool)}, r"shaping \(3,\), 3 of"),
    ],
)
def test_what_cannot_be_grouped_is_refused(every, options, message):
    with pytest.raises(ConditionError, match=f"^find_domains: {message}"):
        find_domains(every, **options)
