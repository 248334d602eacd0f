import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from domainnorm.encoders import DomainGaussians
from domainnorm.encoders.gaussians import shrunk_covariance
from domainnorm.errors import ConditionError
from tests.reference.encoders import mahalanobis

LABELS = torch.arange(60) % 2


def embeddings(size=4, apart=6.0):
    offset = torch.zeros(60, size)
    offset[:, 0] = LABELS * apart
    return torch.randn(60, size) + offset


def fitted(num_domains=3, **options):
    gaussians = DomainGaussians(num_domains, 4)
    gaussians.fit(embeddings(**options), LABELS)
    return gaussians


def test_distances_are_those_under_the_pooled_shrunk_covariance():
    gaussians, embedding = DomainGaussians(2, 4).double(), embeddings().double()
    gaussians.fit(embedding, LABELS)
    means = [embedding[label == LABELS].mean(0).numpy() for label in (0, 1)]
    apart = np.stack([e - means[d] for e, d in zip(embedding.numpy(), LABELS, strict=True)])
    covariance = shrunk_covariance(torch.from_numpy(apart.T @ apart / 58), 58).numpy()
    wanted = mahalanobis(embedding.numpy(), means, covariance)
    assert_close(gaussians(embedding), torch.from_numpy(wanted))


def test_weights_are_posteriors_with_equal_priors():
    gaussians, embedding = fitted(2), embeddings()
    distance = gaussians(embedding)
    density = (-distance / 2).exp()
    assert_close(gaussians.weights(distance), density / density.sum(1, keepdim=True))


def test_shrinkage_keeps_the_trace_and_makes_singular_matrices_regular():
    vector = torch.randn(5, 1, dtype=torch.float64)
    shrunk = shrunk_covariance(vector @ vector.T, 3)
    assert_close(shrunk.trace(), vector.square().sum())
    assert torch.linalg.eigvalsh(shrunk).min() > 0


def test_shrinkage_vanishes_with_many_samples():
    covariance = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    assert_close(shrunk_covariance(covariance, 10**9), covariance)


def test_domain_without_images_is_infinitely_far_and_has_no_weight():
    distance = fitted(3)(embeddings())
    assert distance[:, 2].isinf().all()
    assert (fitted(3).weights(distance)[:, 2] == 0).all()


def test_added_domain_leaves_the_others_as_they_are():
    gaussians = fitted(3)
    before = gaussians(embeddings())[:, :2]
    torch.manual_seed(0)
    gaussians = fitted(3)
    torch.manual_seed(1)
    new = torch.randn(20, 4) - 20
    gaussians.add(new, 2)
    assert_close(gaussians.mean[2], new.mean(0))
    torch.manual_seed(0)
    embeddings()
    assert_close(gaussians(embeddings())[:, :2], before)
    assert gaussians.weights(gaussians(new)).argmax(1).eq(2).all()


def test_one_image_of_each_domain_is_refused():
    with pytest.raises(ConditionError, match="2 images of 2 domains to learn from, expected at"):
        DomainGaussians(2, 4).fit(torch.randn(2, 4), torch.tensor([0, 1]))


def test_threshold_holds_its_rate_of_false_alarms():
    alarms = []
    for seed in range(40):
        torch.manual_seed(seed)
        gaussians = fitted(2)
        gaussians.fit_thresholds(embeddings(), LABELS, false_alarms=0.1)
        distance = gaussians(embeddings())
        own = distance[torch.arange(60), LABELS] <= gaussians.threshold[LABELS]
        alarms.append(1 - own.float().mean())
    # The expected rate is at most 0.1; its mean over 40 draws has a standard error of 0.01.
    assert 0.03 < float(torch.stack(alarms).mean()) < 0.13


def test_far_images_are_not_known():
    gaussians = fitted(2)
    gaussians.fit_thresholds(embeddings(), LABELS)
    assert not gaussians.is_known(gaussians(embeddings() + 30)).any()


def test_temperature_grows_where_held_out_images_are_confused():
    sure, unsure = fitted(2), fitted(2)
    sure.fit_thresholds(embeddings(), LABELS)
    unsure.fit_thresholds(embeddings(), LABELS.roll(1) * (torch.rand(60) < 0.5))
    assert float(sure.temperature) < 2 < float(unsure.temperature)


def test_temperature_never_sharpens():
    gaussians = fitted(2, apart=100.0)
    gaussians.fit_thresholds(embeddings(apart=100.0), LABELS)
    assert float(gaussians.temperature) == pytest.approx(1.0)


def test_domain_without_held_out_images_gets_the_threshold_of_all():
    gaussians = fitted(2)
    gaussians.fit_thresholds(embeddings()[LABELS == 0], LABELS[LABELS == 0])
    assert math.isfinite(gaussians.threshold[1])
    assert gaussians.threshold[1] == gaussians.threshold[0]


def test_the_former_name_of_fitting_thresholds_still_works():
    first, second = fitted(), fitted()
    second.load_state_dict(first.state_dict())
    held_out = embeddings()
    first.fit_thresholds(held_out, LABELS)
    with pytest.warns(FutureWarning, match="fit_thresholds"):
        second.calibrate(held_out, LABELS)
    assert torch.equal(first.threshold, second.threshold)
