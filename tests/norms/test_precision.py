"""Norms of the catalogue where numbers are hard: narrow, large, constant."""

import copy

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.norms import list_norms
from tests.combinations import covering
from tests.norms.conditions import apply, condition_for, halves, make
from tests.reference.modulations import reference_scale_shift
from tests.reference.norms import reference_norm

SHAPE, LARGE = (7, 4, 6, 5), (7, 64, 21, 23)
every_norm = pytest.mark.parametrize("name", list_norms())


@covering(name=list_norms(), channels_last=[False, True], mean=[0.0, 1000.0])
def test_float32_stays_close_to_float64_on_large_maps(name, channels_last, mean):
    norm = make(name, 64)
    x = torch.randn(LARGE) + mean
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    exact = apply(copy.deepcopy(norm).double(), name, x.double()).float()
    tolerance = 1e-5 if mean == 0 else 5e-3  # of 1000: what float32 itself resolves
    torch.testing.assert_close(apply(norm, name, x), exact, rtol=tolerance, atol=tolerance)


@covering(name=list_norms(), dtype=[torch.bfloat16, torch.float16], training=[True, False])
def test_narrow_input_gives_narrow_output_close_to_float32(name, dtype, training):
    norm = make(name, 4).train(training)
    x = torch.randn(SHAPE).to(dtype)
    wide = apply(copy.deepcopy(norm), name, x.float())
    output = apply(norm, name, x)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), wide, rtol=0.02, atol=0.05)


@covering(
    name=["bn", "cbn", "dsbn", "in", "cin", "gn", "cgn", "ibn_a"],
    dtype=[torch.bfloat16, torch.float16],
    training=[True, False],
    channels_last=[False, True],
)
def test_narrow_input_far_from_zero_gives_no_offset(name, dtype, training, channels_last):
    norm = make(name, 16)
    x = (torch.randn(7, 16, 14, 14) + 20).to(dtype)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    for _ in range(40):  # running moments of this batch
        apply(norm, name, x)
    norm.train(training)
    exact = apply(copy.deepcopy(norm).double(), name, x.double())
    offset = (apply(norm, name, x).double() - exact).mean((2, 3))
    assert offset.abs().max() < 3e-3


@pytest.mark.parametrize("name", ["ln", "cln", "rms", "crms"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_narrow_input_gives_the_gradients_of_scale_and_shift_of_wide(name, channels_last):
    norm = make(name, 16)
    x = torch.randn(8, 16, 32, 32).to(torch.bfloat16)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    weight = torch.randn(x.shape).to(torch.bfloat16)
    found = []
    for one in (copy.deepcopy(norm), copy.deepcopy(norm).double()):
        dtype = torch.float64 if one.modulation.scale.dtype == torch.float64 else torch.bfloat16
        output = apply(one, name, x.to(dtype), torch.arange(8) % 4)
        output.backward(weight.to(dtype))
        found.append([parameter.grad.double() for parameter in one.parameters()])
    for narrow, wide in zip(*found, strict=True):
        assert (narrow - wide).norm() < 1e-2 * wide.norm()


@pytest.mark.parametrize("domain", [[0, 0, 0], [0, 1, 0]])
def test_wide_input_of_a_narrow_norm_is_normalized_whatever_its_domains(domain):
    norm = make("dsbn", 4)
    x = torch.randn(3, 4, 5, 5)
    narrow = apply(copy.deepcopy(norm), "dsbn", x, torch.tensor(domain))
    wide = apply(norm, "dsbn", x.double(), torch.tensor(domain))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), narrow)


@every_norm
@pytest.mark.parametrize("training", [True, False])
def test_autocast_keeps_the_dtype_of_the_input_and_computes_as_without_it(name, training):
    norm = make(name, 4).train(training)
    if halves(name)[1] in ("hyper", "spatial"):  # their matrices are what autocast narrows
        tolerance = {"rtol": 0.02, "atol": 0.05}
    else:
        tolerance = {"rtol": 0, "atol": 0}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(SHAPE).to(dtype)
        plain = apply(copy.deepcopy(norm), name, x)
        with torch.autocast("cpu", torch.bfloat16):
            output = apply(copy.deepcopy(norm), name, x)
        assert output.dtype == dtype
        torch.testing.assert_close(output, plain, **tolerance)


SOFT = {
    "domain*table": ({}, Condition(weights=torch.full((7, 4), 0.25))),
    "domain*lowrank": ({}, Condition(weights=torch.full((7, 4), 0.25))),
    "cluster*shared": ({"assignment": "soft"}, Condition()),
}


@pytest.mark.parametrize("name", SOFT)
def test_autocast_does_not_round_what_soft_weights_mix(name):
    options, condition = SOFT[name]
    norm = make(name, 4, **options)
    x = torch.randn(SHAPE) + 1000
    apply(norm, name, x)
    norm.train(name.startswith("cluster"))
    outputs = []
    for enabled in (False, True):
        own = copy.deepcopy(norm)
        with own.slot.holding(condition), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs.append(own(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", [n for n in list_norms() if halves(n)[0] != "rms"])
def test_constant_input_gives_the_shift(name):
    norm = make(name, 3)
    x = torch.full((7, 3, 4, 4), 7.0)
    output = apply(norm, name, x)
    shift = reference_scale_shift(norm, condition_for(name, x), x)[1]
    shift = shift if shift.ndim == 4 else shift[:, :, None, None]
    torch.testing.assert_close(output, shift.expand_as(output), rtol=0, atol=2e-3)


@covering(name=list_norms(), channels_last=[False, True], value=[0.0, 7.0, 1000.0])
def test_constant_input_has_the_values_and_gradients_of_the_reference(name, channels_last, value):
    norm = make(name, 3, dtype=torch.float64)
    x = torch.full((7, 3, 4, 4), value, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    weight, results = torch.randn_like(x), []
    for function in (
        lambda norm, x: apply(norm, name, x),
        lambda norm, x: reference_norm(norm, condition_for(name, x), x),
    ):
        own, given = copy.deepcopy(norm), x.clone(memory_format=torch.preserve_format)
        given.requires_grad_()
        output = function(own, given)
        (output * weight).sum().backward()
        results.append([output, given.grad, *(p.grad for p in own.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
