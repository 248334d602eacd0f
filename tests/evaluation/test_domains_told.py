import math

import torch

from domainnorm.encoders import Estimate
from domainnorm.evaluation import DomainsTold


def test_shares_are_of_all_images_over_batches():
    told = DomainsTold()
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    known = torch.tensor([True, False, True])
    estimate = Estimate(torch.zeros(3, 2), weights, torch.zeros(3, 2), known)
    told.update(estimate, torch.tensor([0, 1, 1]))
    told.update(Estimate(*(tensor[:1] for tensor in estimate)), torch.tensor([1]))
    assert told.compute() == {"domain_accuracy": 0.5, "domain_known": 0.75}


def test_domains_that_the_encoder_has_not_seen_are_no_mistakes():
    told, weights = DomainsTold(), torch.tensor([[1.0, 0.0]] * 3)
    distance = torch.tensor([[1.0, torch.inf]] * 3)
    estimate = Estimate(torch.zeros(3, 2), weights, distance, torch.tensor([True] * 3))
    told.update(estimate, torch.tensor([0, 1, 0]))
    assert told.compute() == {"domain_accuracy": 1.0, "domain_known": 1.0}
    told.reset()
    told.update(estimate, torch.tensor([1, 1, 1]))
    assert math.isnan(told.compute()["domain_accuracy"])
