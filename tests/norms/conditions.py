"""Norms of the catalogue away from their start, and a condition that feeds each of them."""

import copy

import torch

from domainnorm.condition import Condition
from domainnorm.norms import CATALOGUE, create_norm
from domainnorm.norms.catalogue import norm_options
from tests.reference.norms import reference_norm

DOMAIN = torch.tensor([0, 2, 0, 2, 2, 0, 2])


def halves(name):
    """Names of the statistics and the modulation."""
    if name in CATALOGUE:
        return CATALOGUE[name].statistics, CATALOGUE[name].modulation
    statistics, _, modulation = name.partition("*")
    return statistics, modulation


def make(name, num_features, num_domains=4, dtype=torch.float32, axes=2, **options):
    """A norm with random parameters."""
    wanted = {
        "num_groups": 2 if num_features % 2 == 0 else 1,
        "spatial_axes": max(axes, 1),
        "hidden": 3,
        "num_clusters": 2,
    }
    small = {key: value for key, value in wanted.items() if key in norm_options(name)}
    norm = create_norm(name, num_features, num_domains, **{**small, **options}).to(dtype)
    with torch.no_grad():
        for key, parameter in norm.named_parameters():
            if key == "modulation.scale":
                parameter.uniform_(0.5, 1.5)
            elif key.startswith("statistics."):
                parameter.uniform_(0.2, 0.8)
            else:
                parameter.normal_(std=0.3)
    return norm


def condition_for(name, x, domain=DOMAIN):
    """What the norm called ``name`` needs to know of the samples of ``x``."""
    modulation = halves(name)[1]
    generator = torch.Generator().manual_seed(1)
    given = {}
    if modulation == "style":
        moments = (torch.rand(1, x.shape[1], generator=generator) + 0.5 for _ in range(2))
        given["style"] = {"norm": tuple(moment.to(x.dtype) for moment in moments)}
    if modulation == "spatial":
        sizes = (3, 2, 4)[: x.ndim - 2]
        image_map = torch.rand(4, 1, *sizes, generator=generator, dtype=torch.float64)
        given["map"] = image_map[domain].to(x.dtype)
    return Condition(domain=domain, **given)


def apply(norm, name, x, domain=DOMAIN):
    """One pass under the condition the norm needs."""
    with norm.slot.holding(condition_for(name, x, domain)):
        return norm(x)


def assert_equals_reference(norm, name, x):
    """Output and all gradients of a training step are those of the reference."""
    weight = torch.randn_like(x, memory_format=torch.contiguous_format)
    results = []
    for function in (
        lambda norm, x: apply(norm, name, x),
        lambda norm, x: reference_norm(norm, condition_for(name, x), x),
    ):
        own = copy.deepcopy(norm)
        value = x.clone(memory_format=torch.preserve_format).requires_grad_()
        output = function(own, value)
        (output * weight).sum().backward()
        results.append([output.detach(), value.grad, *(p.grad for p in own.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)
