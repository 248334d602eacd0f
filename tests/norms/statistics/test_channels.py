"""Layer, RMS and deviation statistics: moments over the channels at each position."""

import copy
from functools import partial

import pytest
import torch
from timm.layers import SimpleNorm
from torch import nn

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms import create_norm
from domainnorm.norms.kernels.positions import position_norm
from tests.norms.conditions import DOMAIN, apply, make
from tests.reference.norms import reference_norm

pair = pytest.mark.parametrize("name", ["ln", "cln", "rms", "crms", "deviation*table"])
# Small samples are normalized together, large ones one by one.
TOKENS = [(7, 6), (7, 5, 6), (7, 3, 4, 6), (7, 160, 101)]


@pair
@pytest.mark.parametrize("shape", TOKENS)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_tokens_equal_channels_that_were_moved(name, shape, mean):
    norm = make(name, shape[-1], dtype=torch.float64)
    tokens = make(name, shape[-1], dtype=torch.float64, tokens=True)
    tokens.load_state_dict(norm.state_dict())
    x = torch.randn(shape, dtype=torch.float64) + mean
    weight, results = torch.randn(shape, dtype=torch.float64), []
    for module, axis in ((tokens, -1), (norm, 1)):
        value = x.clone().requires_grad_()
        output = apply(module, name, value.movedim(-1, axis)).movedim(axis, -1)
        (output * weight).sum().backward()
        results.append([output, value.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pair
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_samples_normalized_one_by_one_equal_the_reference(name, mean):
    norm = make(name, 130, dtype=torch.float64, tokens=True)
    x = torch.randn(7, 126, 130, dtype=torch.float64) + mean
    plain = make(name, 130, dtype=torch.float64)
    plain.load_state_dict(norm.state_dict())
    wanted = reference_norm(plain, Condition(domain=DOMAIN), x[:, :3].movedim(1, -1))
    found = apply(norm, name, x)[:, :3].movedim(1, -1)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-8)


STOCK = {
    **dict.fromkeys(["ln", "cln"], nn.LayerNorm),
    **dict.fromkeys(["rms", "crms"], partial(nn.RMSNorm, eps=1e-6)),
    "deviation*table": SimpleNorm,
}


@pair
@pytest.mark.parametrize("shape", [(6, 5, 8), (6, 170, 100)])
def test_one_domain_equals_the_stock_layer_over_three_steps(name, shape):
    norm, stock = create_norm(name, shape[-1], tokens=True), STOCK[name](shape[-1])
    norm.modulation.shift.requires_grad_(name in ("ln", "cln"))  # others have none
    domain = torch.zeros(6, dtype=torch.long)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.01) for module in (norm, stock)]
    for _ in range(3):
        x, weight = torch.randn(shape), torch.randn(shape)
        outputs = apply(norm, name, x, domain), stock(x)
        torch.testing.assert_close(*outputs)
        for optimizer, output in zip(optimizers, outputs, strict=True):
            optimizer.zero_grad()
            (output * weight).sum().backward()
            optimizer.step()
    torch.testing.assert_close(norm.modulation.scale[0], stock.weight)
    if name in ("ln", "cln"):
        torch.testing.assert_close(norm.modulation.shift[0], stock.bias)


# Deviation statistics are plain operations, which keep more.
@pytest.mark.parametrize("name", ["ln", "cln", "rms", "crms"])
@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 6, 170, 17)])
def test_nothing_of_the_size_of_the_input_is_kept_beyond_the_input(name, shape):
    norm, x = make(name, shape[1]), torch.randn(shape, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        apply(norm, name, x)
    kept.pop(x.untyped_storage().data_ptr())
    positions, rows = x[:, 0].numel(), 7 * shape[1]
    assert sum(kept.values()) <= 4 * (2 * positions + 6 * rows)


@pair
def test_second_derivatives_of_tokens_are_right(name):
    norm = make(name, 3, num_domains=2, dtype=torch.float64, tokens=True)
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 1])
    assert torch.autograd.gradgradcheck(lambda value: apply(norm, name, value, domain), x)


def test_recorded_moments_of_tokens_are_those_of_channels():
    norm, x = create_norm("cln", 6, tokens=True, path="blocks.0.norm1"), torch.randn(2, 5, 6)
    with norm.slot.recording() as recorded:
        apply(norm, "cln", x, torch.zeros(2, dtype=torch.long))
    mean, var = recorded["blocks.0.norm1"]
    torch.testing.assert_close(mean, x.mean(1))
    torch.testing.assert_close(var, x.var(1, unbiased=False))


@pair
def test_bfloat16_tokens_stay_close_to_float32(name):
    norm = make(name, 6, tokens=True)
    x = torch.randn(7, 5, 6).bfloat16()
    output = apply(copy.deepcopy(norm), name, x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), apply(norm, name, x.float()), rtol=0.02, atol=0.05)


def test_deviation_of_a_single_channel_is_refused():
    with pytest.raises(DomainNormError, match="num_features: 1 channel has no standard deviation"):
        create_norm("deviation*table", 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("rows", [1, 3])
def test_scales_of_other_types_than_the_input(dtype, rows):
    given = [torch.randn(3, 197, 96), torch.rand(rows, 96) + 0.5, torch.randn(rows, 96)]
    weight, found = torch.randn(3, 197, 96), []
    for x_type, scale_type in ((dtype, dtype), (dtype, torch.float32), (torch.float64,) * 2):
        leaves = [
            one.to(kind).detach().requires_grad_()
            for one, kind in zip(given, (x_type, scale_type, scale_type), strict=True)
        ]
        y = position_norm(*leaves, eps=1e-5, axis=-1, centred=True)
        assert y.dtype == x_type
        y.backward(weight.to(x_type))
        assert [leaf.grad.dtype for leaf in leaves] == [x_type, scale_type, scale_type]
        found.append([y.detach().double(), *(leaf.grad.double() for leaf in leaves)])
    for narrow in found[:2]:
        for one, exact in zip(narrow, found[2], strict=True):
            error = (one - exact).norm() / exact.norm()
            assert error < (1e-6 if dtype == torch.float64 else 0.04)
