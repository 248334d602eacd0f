"""Every class in the table of kinds is folded back into its own class."""

import copy

import pytest
import timm
import torch
from timm.layers import LayerNorm2d, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from domainnorm.backbones import convert_norms, fold_domain, register_norm_class
from domainnorm.backbones.conversion import kinds
from domainnorm.backbones.conversion.kinds import KINDS
from domainnorm.errors import ConversionError
from tests.backbones.layers import SIZE, can_be_affine_free, input_of, layer_of, randomized
from tests.backbones.networks import DOMAINS

BOTH = [
    (cls, affine) for cls in KINDS for affine in (True, False) if affine or can_be_affine_free(cls)
]
every_kind = pytest.mark.parametrize(("cls", "affine"), BOTH)
WITHOUT_SHIFT = [cls for cls, kind in KINDS.items() if kind.shift is None]
MAPS = [cls for cls, kind in KINDS.items() if not kind.channels_last]
TOKENS = [cls for cls, kind in KINDS.items() if kind.channels_last]
# Beside classes that compute in float32 whatever comes in.
close = {"rtol": 1e-5, "atol": 1e-5}


def convert(layer, norm=None):
    return convert_norms(nn.Sequential(copy.deepcopy(layer)), norm, DOMAINS).eval()


@torch.no_grad()
def perturb(model):
    """Give domains rows of their own, shifts where the old classes have a place for one."""
    for norm in model.norms():
        rows = [norm.modulation.scale]
        kind = KINDS[type(norm.origin)]
        rows += [norm.modulation.shift] if kind.shift else []
        rows += [table for table in norm.statistics.buffers() if table.is_floating_point()]
        for row in rows:
            row.uniform_(0.5, 1.5)
    return model


@every_kind
def test_layer_comes_back_as_its_class_with_the_rows_of_the_domain(cls, affine):
    model = perturb(convert(layer_of(cls, affine)))
    folded = fold_domain(model, "b")
    assert type(folded[0]) is cls
    x = input_of(cls).to(model.backbone[0].modulation.scale.dtype)
    torch.testing.assert_close(folded(x), model(x, "b"), **close)
    assert (folded(x) - model(x, "a")).abs().max() > 0.01


@every_kind
def test_state_of_an_untouched_layer_comes_back_and_loads_strictly(cls, affine):
    layer = layer_of(cls, affine)
    state = fold_domain(convert(layer), "b")[0].state_dict()
    assert list(state) == list(layer.state_dict())
    for key, tensor in layer.state_dict().items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=0)
    fresh = randomized(copy.deepcopy(layer)).eval()
    fresh.load_state_dict(state)
    x = input_of(cls).to(next(iter(state.values()), torch.empty(())).dtype)
    torch.testing.assert_close(fresh(x), layer.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("cls", KINDS)
def test_folded_layer_trains_what_the_old_one_did(cls):
    layer = layer_of(cls)
    folded = fold_domain(convert(layer).train(), "b")[0]
    assert folded.training
    flags = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
    assert {name: p.requires_grad for name, p in folded.named_parameters()} == flags


@pytest.mark.parametrize("cls", WITHOUT_SHIFT)
def test_shift_without_a_place_is_refused_by_path(cls):
    model = convert(layer_of(cls))
    nn.init.normal_(model.backbone[0].modulation.shift)
    message = rf"^0: {cls.__name__} has no shift, but the shift of the domain is not 0; "
    with pytest.raises(ConversionError, match=message):
        fold_domain(model, "b")


@pytest.mark.parametrize("cls", MAPS)
def test_instance_statistics_in_place_of_any_layer_of_maps_can_be_folded(cls):
    model = convert(layer_of(cls), {"all": "cin"})
    nn.init.uniform_(model.backbone[0].modulation.scale)
    nn.init.normal_(model.backbone[0].modulation.shift)
    x = input_of(cls)
    torch.testing.assert_close(fold_domain(model, "b")(x), model(x, "b"), **close)


@pytest.mark.parametrize(
    ("norm", "plain"),
    [("cln", nn.LayerNorm), ("crms", nn.RMSNorm), ("deviation*table", SimpleNorm)],
)
@pytest.mark.parametrize("cls", TOKENS)
def test_statistics_of_another_family_on_tokens_become_plain_layers(cls, norm, plain):
    model = convert(layer_of(cls), {"all": norm})
    nn.init.zeros_(model.backbone[0].modulation.shift)
    nn.init.uniform_(model.backbone[0].modulation.scale)
    folded, x = fold_domain(model, "b"), input_of(cls)
    assert any(type(module) in (plain, cls) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x, "b"), **close)


@pytest.mark.parametrize(
    ("norm", "plain"),
    [("cln", LayerNorm2d), ("crms", RmsNorm2d), ("deviation*table", SimpleNorm2d)],
)
@pytest.mark.parametrize("cls", [cls for cls in MAPS if KINDS[cls].axes == 2])
def test_statistics_over_channels_in_place_of_maps_become_plain_layers(cls, norm, plain):
    model = convert(layer_of(cls), {"all": norm})
    nn.init.zeros_(model.backbone[0].modulation.shift)
    folded, x = fold_domain(model, "b"), input_of(cls)
    assert any(type(module) in (plain, cls) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x, "b"), **close)


@pytest.mark.parametrize("cls", [nn.BatchNorm3d, nn.GroupNorm])
def test_statistics_without_a_plain_layer_for_these_axes_are_refused(cls):
    model = convert(layer_of(cls), {"all": "cln"})
    message = rf"^0: no plain layer of torch or timm has layer statistics .* {cls.__name__}; keep"
    with pytest.raises(ConversionError, match=message):
        fold_domain(model, "b")


@pytest.mark.parametrize("layer", [nn.LayerNorm(SIZE), nn.GroupNorm(2, SIZE), nn.BatchNorm2d(SIZE)])
def test_constants_are_those_of_the_norm(layer):
    kin = KINDS[type(layer)].kin
    folded = fold_domain(convert(layer, {"all": {"name": kin, "eps": 0.5}}), "b")[0]
    assert (type(folded), folded.eps) == (type(layer), 0.5)


def test_other_groups_make_another_layer():
    model = convert(nn.GroupNorm(2, SIZE), {"all": {"name": "cgn", "num_groups": 4}})
    assert fold_domain(model, "b")[0].num_groups == 4


def test_default_eps_stays_the_one_of_the_dtype_that_was_converted():
    model = convert(nn.RMSNorm(SIZE)).double()
    assert fold_domain(model, "b")[0].eps == torch.finfo(torch.float32).eps
    assert fold_domain(convert(nn.RMSNorm(SIZE)), "b")[0].eps is None


ARCHITECTURES = [
    "test_vit",
    "test_convnext",
    "test_efficientnet_ln",
    "test_efficientnet_gn",
    "test_vit4",  # RmsNorm
    "test_mambaout",
    "convnext_zepto_rms",  # SimpleNorm2d
    "convnext_atto_rms",  # RmsNorm2d
    "poolformerv2_s12",  # GroupNorm1NoBias, LayerNorm2dNoBias
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folded_state_loads_strictly_into_vanilla_timm_with_the_same_outputs(name):
    network = timm.create_model(name, num_classes=5).double()
    size = network.pretrained_cfg["input_size"][1] if "vit" in name else 64
    model = convert_norms(network, None, DOMAINS).eval()
    for norm in model.norms():
        nn.init.uniform_(norm.modulation.scale, 0.5, 1.5)
        if getattr(norm.origin, "bias", None) is not None:
            nn.init.normal_(norm.modulation.shift)
    fresh = timm.create_model(name, num_classes=5).double().eval()
    fresh.load_state_dict(fold_domain(model, "b").state_dict())
    image = torch.rand(2, 3, size, size, dtype=torch.float64)
    wanted = model(image, "b")
    torch.testing.assert_close(fresh(image), wanted, rtol=1e-9, atol=1e-9)
    assert (model(image, "a") - wanted).abs().max() > 1e-6


class Offset(nn.Module):
    """A norm with a tensor that no kind knows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(SIZE))
        self.register_buffer("offset", torch.zeros(1, dtype=torch.long))
        self.epsilon = 1e-6

    def forward(self, x):
        return nn.functional.rms_norm(x, [SIZE], self.weight, self.epsilon) + self.offset


@pytest.fixture
def _offset(monkeypatch):
    """`Offset` is known as an RMS norm in this test."""
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    names = {"shift": None, "eps": "epsilon"}
    register_norm_class(Offset, "rms", channels_last=True, **names)


@pytest.mark.usefixtures("_offset")
def test_tensor_that_conversion_did_not_keep_is_refused_by_name():
    with pytest.raises(ConversionError, match=r"^0: Offset had offset, which conversion did not"):
        fold_domain(convert(Offset()), "b")


@pytest.mark.usefixtures("_offset")
def test_class_that_is_no_longer_known_is_refused():
    model = convert(Offset())
    del kinds.KINDS[Offset]
    message = r"^0: replaced a layer of the unknown class Offset; .*\.register_norm_class$"
    with pytest.raises(ConversionError, match=message):
        fold_domain(model, "b")
