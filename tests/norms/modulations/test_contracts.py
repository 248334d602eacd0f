"""What every modulation promises."""

import copy

import pytest
import timm
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from domainnorm.backbones import convert_norms
from domainnorm.condition import Condition
from domainnorm.norms import create_norm
from domainnorm.registry import MODULATIONS
from tests.backbones.networks import randomize
from tests.norms.modulations.conditions import (
    DOMAIN,
    SHAPES,
    TRAINED,
    C,
    D,
    N,
    apply,
    conditions,
    double,
    make,
)
from tests.reference.modulations import reference_scale_shift

KINDS = list(conditions())
every_modulation = pytest.mark.parametrize("name", MODULATIONS.names())
every_trained = pytest.mark.parametrize("name", TRAINED)


def options(name, axes):
    return {"spatial_axes": axes} if name == "spatial" else {}


@every_modulation
@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_scale_and_shift_equal_the_reference(name, axes, kind):
    norm, condition = make(name, **options(name, axes)), conditions(axes)[kind]
    x = double(*SHAPES[axes])
    for found, wanted in zip(
        norm.modulation(condition, x), reference_scale_shift(norm, condition, x), strict=True
    ):
        torch.testing.assert_close(found.expand_as(wanted), wanted)


@every_trained
@pytest.mark.parametrize("kind", ["labels", "weights", "embedding"])
def test_gradients_equal_those_of_the_reference(name, kind):
    norm, condition, x = make(name), conditions()[kind], double(*SHAPES[2])
    gradients = []
    for scale, shift in (
        norm.modulation(condition, x),
        reference_scale_shift(norm, condition, x),
    ):
        norm.zero_grad()
        (scale.expand(N, *scale.shape[1:]).sin().sum() + shift.expand(N, C, *shift.shape[2:])
         .cos().sum()).backward()  # fmt: skip
        parameters = list(norm.modulation.parameters())
        gradients.append([parameter.grad for parameter in parameters])
    for found, wanted, parameter in zip(*gradients, parameters, strict=True):
        unused = torch.zeros_like(parameter)  # zero, not None, for DDP
        torch.testing.assert_close(found, unused if wanted is None else wanted)


@every_modulation
@pytest.mark.parametrize("statistics", ["instance", "batch", "domain"])
def test_first_derivatives_of_the_layer_are_right(name, statistics):
    sizes = {"hyper": {"hidden": 3, "embedding_size": 2}, "spatial": {"hidden": 2}}
    norm = make(name, statistics, **sizes.get(name, {}))
    parameters = dict(norm.modulation.named_parameters())
    x = double(3, C, 2, 2).requires_grad_()
    condition = Condition(domain=DOMAIN[:3], map=double(3, 1, 2, 2))

    def function(value, *values):
        with norm.slot.holding(condition):
            named = dict(zip((f"modulation.{key}" for key in parameters), values, strict=True))
            return torch.func.functional_call(norm, named, (value,))

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


@every_trained
@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_starts_with_the_pair_of_the_replaced_layer(name, kind):
    norm, condition, x = make(name), conditions()[kind], double(*SHAPES[2])
    pair = double(C), double(C)
    norm.modulation.start(*pair)
    for found, wanted in zip(norm.modulation(condition, x), pair, strict=True):
        spread = wanted.reshape(1, C, *(1,) * (found.ndim - 2)).expand_as(found)
        torch.testing.assert_close(found, spread, rtol=1e-14, atol=1e-14)


@every_trained
def test_new_layer_has_scale_one_and_shift_zero(name):
    norm = create_norm(f"batch*{name}", C, D)
    condition = Condition(domain=DOMAIN, map=torch.rand(N, 1, 4, 5))
    scale, shift = norm.modulation(condition, torch.rand(SHAPES[2]))
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=0, atol=0)
    torch.testing.assert_close(shift, torch.zeros_like(shift), rtol=0, atol=0)


@every_modulation
def test_parameters_with_a_row_per_domain_are_named(name):
    rows = list(make(name).modulation.rows())
    assert all(len(row) == D for row in rows)
    assert bool(rows) == (name in ("table", "lowrank", "hyper"))


@pytest.mark.parametrize("name", ["table", "lowrank", "hyper"])
def test_absent_domains_have_zero_gradients(name):
    norm = make(name)
    apply(norm, double(*SHAPES[2]), Condition(domain=DOMAIN)).square().sum().backward()
    for row in norm.modulation.rows():
        assert torch.equal(row.grad[1], torch.zeros_like(row[1]))
        assert row.grad[3].abs().sum() > 0


@every_modulation
@pytest.mark.parametrize("kind", KINDS)
def test_copy_and_loaded_state_give_the_same_output(name, kind):
    norm, condition, x = make(name), conditions()[kind], double(*SHAPES[2])
    loaded = make(name)
    loaded.load_state_dict(norm.state_dict())
    wanted = apply(norm, x, condition)
    assert torch.equal(apply(copy.deepcopy(norm), x, condition), wanted)
    assert torch.equal(apply(loaded, x, condition), wanted)


@every_modulation
@pytest.mark.parametrize("axes", [2, 3])
def test_memory_layout_of_the_input_is_kept(name, axes):
    norm = make(name, **options(name, axes))
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[axes]
    x = double(*SHAPES[axes]).to(memory_format=layout)
    assert apply(norm, x, conditions(axes)["labels"]).stride() == x.stride()


@every_modulation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_input_gives_narrow_output(name, dtype):
    norm = make(name).float()
    condition = Condition(domain=DOMAIN, map=torch.rand(N, 1, 4, 5))
    x = torch.randn(SHAPES[2]).to(dtype)
    output = apply(norm, x, condition)
    assert output.dtype == dtype
    torch.testing.assert_close(
        output.float(), apply(norm, x.float(), condition), rtol=0.03, atol=0.1
    )


@every_modulation
def test_parameters_stay_wide_under_autocast(name):
    norm = make(name).float()
    condition = Condition(domain=DOMAIN, map=torch.rand(N, 1, 4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        scale, shift = norm.modulation(condition, torch.randn(SHAPES[2]))
    assert scale.dtype == shift.dtype == torch.float32


@every_trained
def test_conversion_of_a_network_with_batch_statistics_preserves_its_function(name):
    network = randomize(timm.create_model("resnet10t", num_classes=3)).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(image)
        norm = {"statistics": "batch", "modulation": name}
        model = convert_norms(network, norm, ("a", "b"), example=image[:1]).eval()
        found = model(image, domain=torch.tensor([0, 1]), map=torch.rand(2, 1, 16, 16))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [("table", {"dropout": 0.5}), ("lowrank", {}), ("lowrank", {"dropout": 0.5}), ("hyper", {}),
     ("style", {}), ("spatial", {}), ("none", {})],
)  # fmt: skip
def test_compiles_in_one_graph_and_new_labels_do_not_recompile(name, more):
    norm = make(name, **more).float()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(norm, fullgraph=True, backend=counter)
    x, guide, chance = torch.randn(SHAPES[2]), torch.rand(N, 1, 4, 5), torch.rand(N)
    for domain in (DOMAIN, DOMAIN.flip(0), torch.ones_like(DOMAIN)):
        condition = Condition(domain=domain, map=guide, chance=chance)
        wanted = apply(copy.deepcopy(norm), x, condition)
        with norm.slot.holding(condition):
            torch.testing.assert_close(compiled(x), wanted, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
