"""What every class in the table of kinds promises."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from timm.layers import norm as timm_norm
from timm.layers import norm_act as timm_norm_act
from timm.models import metaformer
from torch import nn

from domainnorm.backbones import convert_norms
from domainnorm.backbones.conversion.kinds import KINDS
from domainnorm.errors import ConversionError
from tests.backbones.layers import SIZE, can_be_affine_free, input_of, layer_of
from tests.backbones.networks import DOMAINS

every_kind = pytest.mark.parametrize(
    "cls", KINDS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
affine_free = pytest.mark.parametrize(
    "cls", [cls for cls in KINDS if can_be_affine_free(cls)], ids=lambda cls: cls.__name__
)
# Classes that compute in float32 whatever comes in.
WIDE = {cls for cls in KINDS if "Fp32" in cls.__name__}


def close(found, wanted, cls):
    tolerance = 1e-5 if cls in WIDE else 1e-9
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def convert(layer):
    return convert_norms(nn.Sequential(copy.deepcopy(layer)), None, DOMAINS)


def outputs(layer, cls, training):
    """The conversion and the layer: the module, its output, the gradient of the input."""
    x, model = input_of(cls), convert(layer).train(training)
    layer = copy.deepcopy(layer).train(training)
    found = []
    for module, arguments in ((model, ("b",)), (layer, ())):
        value = x.clone().requires_grad_()
        output = module(value, *arguments)
        output.pow(3).sum().backward()
        found.append((module, output.detach(), value.grad))
    return found


@pytest.mark.parametrize("module", [timm_norm, timm_norm_act, metaformer])
def test_every_norm_class_of_timm_layers_is_in_the_table(module):
    classes = {
        cls
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if "Norm" in name and cls.__module__ == module.__name__ and issubclass(cls, nn.Module)
    }
    assert classes <= KINDS.keys()


@every_kind
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_input_gradients_are_those_of_the_layer(cls, training):
    (_, found, gradient), (_, wanted, wanted_gradient) = outputs(layer_of(cls), cls, training)
    close(found, wanted, cls)
    close(gradient, wanted_gradient, cls)


@every_kind
def test_every_domain_starts_with_the_function_of_the_layer(cls):
    layer, x = layer_of(cls).eval(), input_of(cls)
    model = convert(layer).eval()
    close(model(x, ["a", "b", "c", "c", "b", "a"]), layer(x), cls)
    assert [line.exact for line in model.conversion] == [True]


@every_kind
@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_come_out_in_the_memory_format_of_the_replaced_layer(cls, channels_last):
    layer, x = layer_of(cls).eval(), input_of(cls)
    if channels_last and x.ndim == 4 and not KINDS[cls].channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    wanted = layer(x)
    if KINDS[cls].family == "instance":  # torch's loses channels_last
        wanted = x
    assert convert(layer).eval()(x, "a").stride() == wanted.stride()


@every_kind
def test_gradients_reach_the_row_of_the_domain_and_no_other(cls):
    (model, *_), (layer, *_) = outputs(layer_of(cls), cls, training=True)
    modulation = model.backbone[0].modulation
    for name, old in (("scale", "weight"), ("shift", "bias")):
        row = modulation.get_parameter(name)
        wanted = getattr(layer, old, None)
        if isinstance(wanted, nn.Parameter):
            close(row.grad[1], wanted.grad, cls)
        if row.requires_grad:
            assert row.grad[1].abs().min() > 0
            assert not row.grad[[0, 2]].any()


@every_kind
def test_running_moments_go_on_as_in_the_layer(cls):
    (model, *_), (layer, *_) = outputs(layer_of(cls), cls, training=True)
    if KINDS[cls].family != "batch":
        assert not any(True for _ in layer.buffers())
        return
    for name in ("running_mean", "running_var"):
        close(model.backbone[0].statistics.get_buffer(name)[1], layer.get_buffer(name), cls)


@every_kind
def test_domains_differ_once_their_rows_do(cls):
    model, x = convert(layer_of(cls)).eval(), input_of(cls)
    before = model(x, "b")
    with torch.no_grad():
        model.backbone[0].modulation.scale[0] += 1
        model.backbone[0].modulation.shift[0] += 1
    torch.testing.assert_close(model(x, "b"), before)
    assert (model(x, "a") - before).abs().max() > 0.1


@every_kind
def test_drop_and_activation_are_kept_where_the_class_has_them(cls):
    layer = layer_of(cls)
    norm = convert_norms(nn.Sequential(layer), None, DOMAINS).backbone[0]
    carried = [getattr(layer, name) for name in ("drop", "act") if hasattr(layer, name)]
    assert len(carried) == 2 * KINDS[cls].activation
    assert all(a is b for a, b in zip(carried, (norm.drop, norm.act), strict=False))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(cls, dtype):
    layer = layer_of(cls).to(dtype).eval()
    model, x = convert(layer).eval(), input_of(cls).to(dtype)
    output = model(x, "a")
    assert output.dtype == dtype
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(output, layer(x), rtol=tolerance, atol=tolerance)


@every_kind
def test_layer_on_the_meta_device_can_be_converted(cls):
    model = convert(layer_of(cls).to("meta"))
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert model.conversion[0].bytes_per_domain > 0


@affine_free
def test_layer_without_scale_and_shift_gains_rows_of_ones_and_zeros(cls):
    layer = layer_of(cls, affine=False).eval()
    model = convert(layer).eval()
    scale, shift = model.backbone[0].modulation.scale, model.backbone[0].modulation.shift
    assert torch.equal(scale, torch.ones(3, SIZE).to(scale))
    assert torch.equal(shift, torch.zeros(3, SIZE).to(shift))
    x = input_of(cls).to(scale.dtype)
    torch.testing.assert_close(model(x, "c"), layer(x), rtol=1e-5, atol=1e-5)


def rows_of(model, row):
    norm = model.backbone[0]
    moments = [table for table in norm.statistics.buffers() if table.ndim == 2]
    return [table[row] for table in (norm.modulation.scale, norm.modulation.shift, *moments)]


@pytest.mark.parametrize(
    ("cls", "affine"),
    [
        (cls, affine)
        for cls in KINDS
        for affine in (True, False)
        if affine or can_be_affine_free(cls)
    ],
)
def test_emptied_layer_can_be_filled_with_a_domain(cls, affine):
    kind, layer = KINDS[cls], layer_of(cls, affine)
    model = convert(layer).eval()
    scale, shift, *moments = rows_of(model, 1)
    with torch.no_grad():
        for row in (scale, *([shift] if kind.shift else []), *moments):
            row.uniform_(0.5, 1.5)
    emptied = copy.deepcopy(layer).to("meta").eval()
    kind.write(emptied, scale, shift, *moments)
    x = input_of(cls).to(scale.dtype)
    torch.testing.assert_close(emptied(x), model(x, "b"), rtol=1e-5, atol=1e-5)
    assert layer.state_dict().keys() <= emptied.state_dict().keys()


@pytest.mark.parametrize("cls", [cls for cls, kind in KINDS.items() if kind.shift is None])
def test_class_without_shift_refuses_one_that_is_not_zero(cls):
    scale = torch.ones(SIZE)
    with pytest.raises(ConversionError, match=rf"^{cls.__name__} has no shift"):
        KINDS[cls].write(layer_of(cls), scale, scale)


def test_shift_of_zero_leaves_a_layer_without_bias_as_it_was():
    layer = metaformer.LayerNormNoBias(SIZE)
    KINDS[type(layer)].write(layer, torch.full((SIZE,), 2.0), torch.zeros(SIZE))
    assert layer.bias is None
    assert layer.weight.tolist() == [2.0] * SIZE


def test_layer_without_bias_gains_a_shift_that_trains():
    model = convert(metaformer.LayerNormNoBias(SIZE))
    assert model.backbone[0].modulation.shift.requires_grad


def test_frozen_batch_norm_stays_frozen_in_training():
    layer = layer_of(timm_norm_act.FrozenBatchNorm2d)
    model = convert(layer).train()
    before = copy.deepcopy(model.state_dict())
    model(input_of(timm_norm_act.FrozenBatchNorm2d), "a")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_default_eps_of_rms_norm_is_that_of_torch(dtype):
    layer = nn.RMSNorm(SIZE).to(dtype)
    x = (torch.randn(5, SIZE) * 1e-4).to(dtype)  # of the size of sqrt(eps)
    found = convert(layer)(x, "a")
    torch.testing.assert_close(found, F.rms_norm(x, [SIZE]), rtol=0.02, atol=1e-6)
