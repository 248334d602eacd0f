"""Images of domains that differ in style, with the label of each."""

import torch


def images(domain, count, size=48):
    return torch.randn(count, 3, size, size) * (1 + domain) + 2 * domain


class Pairs(list):
    """Batches as `fit_encoder` takes them."""


def pairs(domains, count=12, batches=2):
    return Pairs(
        (images(domain, count), torch.full((count,), domain))
        for domain in domains
        for _ in range(batches)
    )
