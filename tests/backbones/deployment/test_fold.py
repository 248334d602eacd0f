"""One domain of a model as the plain network again."""

import copy
import pickle

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, LayerNorm2d
from timm.utils.model import reparameterize_model
from torch import nn

from domainnorm.backbones import convert_norms, fold_domain, insert_after
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, ConversionError
from domainnorm.norms import create_norm
from tests.backbones.networks import DOMAINS, converted, randomize_rows
from tests.combinations import covering

IMAGE = torch.rand(3, 3, 64, 64)
ARCHITECTURES = [
    "test_resnet",
    "test_efficientnet",
    "test_byobnet",
    "resnet18",
    "mobilenetv3_small_050",
    "regnetx_002",
    "repvgg_a0",
    "densenet121",
]


def exact(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@covering(1, norm=["dsbn", "cbn", "bn"], name=ARCHITECTURES)
def test_folded_state_loads_strictly_into_the_plain_network_with_the_same_outputs(name, norm):
    model = converted(name, norm).eval()
    fresh = timm.create_model(name, num_classes=5).eval()
    fresh.load_state_dict(fold_domain(model, "b").state_dict())
    exact(fresh(IMAGE), model(IMAGE, "b"))


@pytest.mark.parametrize("modulation", ["lowrank", "hyper", "table", "shared"])
@pytest.mark.parametrize("statistics", ["domain", "batch"])
def test_scale_and_shift_are_those_the_domain_gets(statistics, modulation):
    model = converted(norm={"statistics": statistics, "modulation": modulation}).eval()
    for norm in model.norms():
        for parameter in norm.modulation.parameters():
            nn.init.normal_(parameter, std=0.1)
    assert (model(IMAGE, "c") - model(IMAGE, "a")).abs().max() > 1e-6 or modulation == "shared"
    torch.testing.assert_close(fold_domain(model, "c")(IMAGE), model(IMAGE, "c"))


def test_model_is_left_as_it_was():
    model = converted().train()
    before = copy.deepcopy(model.state_dict())
    fold_domain(model, "b", fuse=True)
    assert all(norm.training for norm in model.norms())
    for key, tensor in model.state_dict().items():
        exact(tensor, before[key])


def test_folded_network_shares_no_memory_with_the_model():
    model = converted()
    taken = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    folded = fold_domain(model, "b").state_dict().values()
    assert not {tensor.untyped_storage().data_ptr() for tensor in folded} & taken


def test_folded_network_needs_nothing_of_the_model_and_trains():
    model = converted()
    insert_after(model, "mixstyle")
    folded = fold_domain(model, "a").train()
    assert not any("domainnorm" in type(module).__module__ for module in folded.modules())
    assert not any(module._forward_hooks for module in folded.modules())
    folded(IMAGE).sum().backward()
    assert all(parameter.grad is not None for parameter in folded.parameters())


def test_running_moments_and_their_constants_come_back():
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)
    layer.num_batches_tracked.fill_(7)
    wanted = copy.deepcopy(layer)
    folded = fold_domain(convert_norms(nn.Sequential(layer), None, DOMAINS), "b")[0]
    assert (type(folded), folded.eps, folded.momentum) == (nn.BatchNorm2d, 1e-3, 0.3)
    for key, tensor in wanted.state_dict().items():
        exact(folded.state_dict()[key], tensor)


def test_frozen_layer_is_frozen_again():
    layer = nn.BatchNorm2d(3)
    layer.weight.requires_grad_(False)
    folded = fold_domain(convert_norms(nn.Sequential(layer), None, DOMAINS), "b")[0]
    assert (folded.weight.requires_grad, folded.bias.requires_grad) == (False, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_folded_layers_have_the_dtype_of_the_model(dtype):
    folded = fold_domain(converted().to(dtype), "b")
    assert {tensor.dtype for tensor in folded.parameters()} == {dtype}


def test_activation_and_dropout_come_back():
    layer = BatchNormAct2d(3, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    folded = fold_domain(convert_norms(nn.Sequential(layer), None, DOMAINS), "b")[0]
    assert (type(folded), type(folded.act), type(folded.drop)) == (
        BatchNormAct2d,
        nn.SiLU,
        nn.Dropout,
    )


@pytest.mark.parametrize("trained", [False, True])
def test_norm_without_affine_gets_one_only_if_the_domain_has_it(trained):
    layer = nn.BatchNorm2d(3, affine=False)
    model = convert_norms(nn.Sequential(layer), "dsbn", DOMAINS).eval()
    if trained:
        randomize_rows(model)
    folded = fold_domain(model, "b")
    assert ("0.weight" in folded.state_dict()) == trained
    torch.testing.assert_close(folded(IMAGE), model(IMAGE, "b"))


def test_tied_norms_stay_tied():
    norm = nn.BatchNorm2d(3)
    model = randomize_rows(convert_norms(nn.Sequential(norm, norm), "dsbn", DOMAINS)).eval()
    folded = fold_domain(model, "b")
    assert folded[0] is folded[1]
    exact(folded(IMAGE), model(IMAGE, "b"))


def test_network_that_is_a_norm_itself_is_folded():
    model = randomize_rows(convert_norms(nn.BatchNorm2d(3), "dsbn", DOMAINS)).eval()
    exact(fold_domain(model, "b")(IMAGE), model(IMAGE, "b"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copy_can_be_folded(copied):
    model = converted().eval()
    exact(fold_domain(copied(model), "b")(IMAGE), model(IMAGE, "b"))


def test_replaced_layers_are_no_part_of_the_model():
    model = converted()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert {norm.origin.weight.device.type for norm in model.norms()} == {"meta"}


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("norm", ["cin", {"all": "cin"}, {"all": "in"}, {"all": "tin"}])
def test_instance_statistics_become_instance_norms(name, norm):
    model = converted(name, norm).eval()
    folded = fold_domain(model, "b")
    assert any(isinstance(module, nn.InstanceNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(IMAGE), model(IMAGE, "b"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "axes"), [(nn.BatchNorm1d, 1), (nn.BatchNorm2d, 2), (nn.BatchNorm3d, 3)]
)
def test_instance_norm_has_the_axes_of_the_layer_before(layer, axes):
    x = torch.rand(2, 4, *[5, 6, 7][:axes])
    model = convert_norms(nn.Sequential(layer(4)), {"all": "cin"}, DOMAINS, example=x).eval()
    randomize_rows(model)
    torch.testing.assert_close(fold_domain(model, "b")(x), model(x, "b"))


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("cgn", nn.GroupNorm), ("cln", LayerNorm2d)],
)
def test_statistics_over_channels_become_plain_layers_with_the_activation_kept(norm, kind):
    norm = {"name": norm, "num_groups": 2} if norm == "cgn" else {"all": norm}
    model = convert_norms(nn.Sequential(BatchNormAct2d(4)), norm, DOMAINS).eval()
    randomize_rows(model)
    x = torch.randn(2, 4, 5, 5)
    folded = fold_domain(model, "b")
    assert [type(module) for module in folded[0]] == [kind, nn.ReLU]
    torch.testing.assert_close(folded(x), model(x, "b"))


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("adain", r"scale and shift depend on the style of each image, not only"),
        ("spade", r"scale and shift depend on the map of each image, not only"),
        ("ibn_a", "no plain layer of torch or timm has mixed statistics in place of a BatchNorm2d"),
        ("cluster_in", "no plain layer of torch or timm has cluster statistics"),
        ({"name": "cin", "stride": 2}, "stride above 1: no plain layer computes such"),
    ],
)
def test_what_a_domain_does_not_decide_is_refused_by_path(norm, message):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    norm = norm if isinstance(norm, dict) else {"all": norm}
    model = convert_norms(network, norm, DOMAINS)
    with pytest.raises(ConversionError, match=f"^1: {message}"):
        fold_domain(model, "b")


def test_norm_that_replaced_nothing_is_refused():
    model = convert_norms(nn.Sequential(nn.BatchNorm2d(4)), None, DOMAINS)
    model.backbone[0] = create_norm("dsbn", 4, len(DOMAINS), slot=model.slot)
    with pytest.raises(ConversionError, match=r"^0: this norm replaced no layer"):
        fold_domain(model, "b")


def test_unknown_domain_is_answered_with_the_list():
    with pytest.raises(ConditionError, match="unknown domain 'd': known: a, b, c"):
        fold_domain(converted(), "d")


@pytest.mark.parametrize("name", ["repvgg_a0", "repvit_m0_9", "levit_128s"])
def test_folded_network_can_be_reparameterized(name):
    size = 224 if name == "levit_128s" else 64
    model = converted(name, size=size, dtype=torch.float32).eval()
    x = torch.rand(2, 3, size, size)
    folded = fold_domain(model, "b")
    found = reparameterize_model(folded.eval())(x)
    wanted = model(x, "b").detach()
    size = wanted.abs().max()
    torch.testing.assert_close(found.detach() / size, wanted / size, rtol=0, atol=1e-4)


def test_condition_is_not_left_in_the_slot_of_the_model():
    model = converted()
    with model.slot.holding(Condition(domain=torch.zeros(1, dtype=torch.long))):
        held = model.slot.current
        fold_domain(model, "b")
        assert model.slot.current is held
