"""Norms of every modulation with random parameters, and conditions that feed them."""

import torch

from domainnorm.condition import Condition
from domainnorm.norms import create_norm

N, C, D = 5, 3, 4
SHAPES = {1: (N, C, 7), 2: (N, C, 4, 5), 3: (N, C, 2, 3, 4)}
DOMAIN = torch.tensor([0, 3, 0, 2, 3])
TRAINED = ("table", "lowrank", "hyper", "spatial", "shared")


def double(*shape):
    return torch.rand(shape, dtype=torch.float64)


def make(modulation, statistics="instance", path="layer", **options):
    """A float64 norm, away from its start."""
    norm = create_norm(f"{statistics}*{modulation}", C, D, path=path, **options).double()
    with torch.no_grad():
        for parameter in norm.modulation.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return norm


def conditions(axes=2, path="layer"):
    """A condition of every kind, by name."""
    image_map = double(N, 1, *(6, 3, 5)[:axes])
    weights = double(N, D).softmax(1)
    style = {path: (double(N, C), double(N, C) + 0.5)}
    return {
        "labels": Condition(domain=DOMAIN, map=image_map),
        "weights": Condition(weights=weights, map=image_map),
        "embedding": Condition(domain=DOMAIN, map=image_map, embedding=double(N, 16)),
        "style": Condition(domain=DOMAIN, map=image_map, style=style),
    }


def apply(norm, x, condition):
    with norm.slot.holding(condition):
        return norm(x)
