"""Converted layers fitted to the layers that they replaced."""

import copy

import pytest
import torch
from torch import nn

from domainnorm.backbones import (
    CalibratedLayer,
    Calibration,
    add_domain,
    calibrate,
    convert_norms,
    fold_domain,
)
from tests.backbones.networks import DOMAINS, plain, randomize
from tests.reference.calibration import affine_fit, batch_normalized, calibrated, input_of
from tests.reference.calibration import instance_normalized as normalized

IMAGE = torch.randn(8, 3, 32, 32, dtype=torch.float64) * torch.rand(8, 3, 1, 1).double() * 2 + 0.3
LABELS = torch.tensor([0, 2, 0, 0, 2, 2, 0, 2])
ALL = {"all": "cin"}
MODULATIONS = ["table", "shared", "lowrank", "hyper"]


def batches(size=8, image=IMAGE, labels=LABELS):
    starts = range(0, len(image), size)
    return [
        {"image": image[start : start + size], "domain": labels[start : start + size]}
        for start in starts
    ]


def small(dtype=torch.float64):
    """Three norms in a row; the last keeps its function."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.BatchNorm2d(5)]
    return randomize(nn.Sequential(*layers)).to(dtype).eval()


def converted(network=None, norm="cin", domains=DOMAINS):
    network = small() if network is None else network
    return convert_norms(network, {"1": norm, "4": norm, "6": None}, domains)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_every_layer_is_the_least_squares_fit_behind_those_before_it(name):
    original = plain(name).eval()
    example = torch.rand(1, 3, 32, 32).double()
    model = convert_norms(copy.deepcopy(original), ALL, DOMAINS, example=example)
    slow = copy.deepcopy(model)
    report = calibrate(model, batches())
    paths = [layer.path for layer in report.layers]
    calibrated(slow, original, paths, IMAGE, LABELS)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, slow.state_dict()[key], rtol=1e-6, atol=1e-8, msg=key)


@torch.no_grad()
def test_report_is_the_share_of_variance_that_is_missed():
    original = small()
    model = converted(copy.deepcopy(original))
    before = copy.deepcopy(model)
    report = calibrate(model, batches())
    assert [layer.path for layer in report.layers] == ["1", "4"]
    y = [batch_normalized(one, original[1]) for one in input_of(original, original[1], IMAGE)]
    y = torch.stack(y)
    whole = (y - y.mean((0, 2, 3), keepdim=True)).square().sum()
    x = input_of(original, original[1], IMAGE)
    for found, one in ((report.layers[0].before, before), (report.layers[0].after, model)):
        with one.slot.holding(one._condition(x, LABELS)):
            rest = (one.backbone[1](x) - y).square().sum()
        assert found == pytest.approx(float(rest / whole), rel=1e-6)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_no_layer_misses_more_than_before(modulation):
    norm = {"statistics": "instance", "modulation": modulation}
    report = calibrate(converted(norm=norm), batches())
    assert len(report.layers) == 2
    for layer in report.layers:
        assert 0 <= layer.after < layer.before


@torch.no_grad()
@pytest.mark.parametrize("modulation", MODULATIONS[1:])
def test_modulations_without_a_row_per_domain_get_the_pair_of_all_images(modulation):
    original = small()
    norm = {"statistics": "instance", "modulation": modulation}
    model = converted(copy.deepcopy(original), norm)
    calibrate(model, batches())
    x = input_of(original, original[1], IMAGE)
    z = [normalized(one, original[1].eps) for one in x]
    scale, shift = affine_fit(z, [batch_normalized(one, original[1]) for one in x])
    for domain in DOMAINS:
        with model.condition(IMAGE, domain) as backbone:
            condition = model.slot.read("1", len(IMAGE))
            found = backbone[1].modulation(condition, x)
        torch.testing.assert_close(found[0], scale.expand_as(found[0]))
        torch.testing.assert_close(found[1], shift.expand_as(found[1]))


@torch.no_grad()
def test_domain_does_not_depend_on_images_of_others():
    model = converted()
    alone = copy.deepcopy(model)
    calibrate(model, batches())
    calibrate(alone, batches(image=IMAGE[LABELS == 2], labels=LABELS[LABELS == 2]))
    for path in ("1", "4"):
        both, one = (m.backbone.get_submodule(path).modulation for m in (model, alone))
        torch.testing.assert_close(both.scale[2], one.scale[2])
        torch.testing.assert_close(both.shift[2], one.shift[2])
        assert (both.scale[0] - one.scale[0]).abs().max() > 1e-3


def test_domain_without_images_gets_the_pair_of_all():
    network = small()
    model = converted(copy.deepcopy(network))
    shared = converted(network, {"statistics": "instance", "modulation": "shared"})
    report = calibrate(model, batches())
    assert report.images == {"a": 4, "b": 0, "c": 4}
    calibrate(shared, batches())
    found, wanted = (m.backbone[1].modulation for m in (model, shared))
    torch.testing.assert_close(found.scale[1:2], wanted.scale)
    torch.testing.assert_close(found.shift[1:2], wanted.shift)


@pytest.mark.parametrize("size", [1, 3])
def test_result_does_not_depend_on_the_size_of_batches(size):
    model = converted()
    other = copy.deepcopy(model)
    calibrate(model, batches())
    calibrate(other, batches(size))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_no_more_batches_are_read_than_asked_for():
    model = converted()
    other = copy.deepcopy(model)
    report = calibrate(model, batches(2), max_batches=2)
    assert sum(report.images.values()) == 4
    calibrate(other, batches(4, IMAGE[:4], LABELS[:4]))
    assert torch.equal(model.backbone[4].modulation.scale, other.backbone[4].modulation.scale)


@pytest.mark.parametrize(
    "batch",
    [(IMAGE, LABELS), [IMAGE, ["acaaccac"[n] for n in range(8)]], {"image": IMAGE, "domain": "a"}],
    ids=["tuple", "names", "one name"],
)
def test_domains_are_given_as_to_the_model(batch):
    model = converted()
    other = copy.deepcopy(model)
    calibrate(model, [batch])
    labels = LABELS if not isinstance(batch, dict) else torch.zeros_like(LABELS)
    calibrate(other, batches(labels=labels))
    assert torch.equal(model.backbone[4].modulation.scale, other.backbone[4].modulation.scale)


def test_model_of_one_domain_needs_no_labels():
    model = converted(domains=["only"])
    assert calibrate(model, [{"image": IMAGE}]).images == {"only": 8}


def test_only_pairs_of_inexact_layers_change():
    model = converted().train()
    model.backbone[4].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    calibrate(model, batches())
    after = model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {
        f"backbone.{layer}.modulation.{name}" for layer in (1, 4) for name in ("scale", "shift")
    }
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert model.slot.current is None


class Windows(nn.Module):
    """Four windows of an image are rows of its norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        windows = x.reshape(len(x), 3, 4, x.shape[2] // 4, -1).transpose(1, 2).flatten(0, 1)
        return self.norm(windows).reshape(len(x), -1)


class Tied(nn.Module):
    """Uses one norm twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(x)))


@pytest.mark.parametrize(
    ("network", "norm", "image"),
    [
        (nn.BatchNorm2d(3), "cin", torch.randn(6, 3, 5, 4)),
        (nn.BatchNorm2d(3), "ibn_a", torch.randn(6, 3, 5, 4)),
        (nn.BatchNorm1d(5), "cln", torch.randn(6, 5)),
        (nn.BatchNorm3d(3), "cin", torch.randn(6, 3, 2, 3, 4)),
        (nn.LayerNorm(5), "crms", torch.randn(6, 7, 5) + 1),
        (nn.GroupNorm(2, 4), "cin", torch.randn(6, 4, 5, 4)),
        (Windows(), "cgn", torch.randn(6, 3, 8, 8)),
        (Tied(), "cin", torch.randn(6, 3, 8, 8)),
    ],
    ids=["map", "mixed", "vector", "volume", "tokens", "group", "windows", "tied"],
)
def test_calibrated_network_is_nearer_to_the_one_before_the_conversion(network, norm, image):
    scale = torch.rand(1, *image.shape[1:]) * 2
    image = (image * scale * torch.rand(6, *(1,) * (image.ndim - 1)) + 0.5).double()
    network = randomize(network).double().eval()
    rule = {"all": {"name": norm, "num_groups": 1}} if norm == "cgn" else {"all": norm}
    original = copy.deepcopy(network)
    example = image[:1] if isinstance(network, Windows) else None
    model = convert_norms(network, rule, DOMAINS, example=example).eval()
    labels = torch.arange(6) % 3
    apart = (model(image, labels) - original(image)).square().mean()
    (layer,) = calibrate(model, [(image, labels)]).layers
    assert layer.after < layer.before
    assert (model(image, labels) - original(image)).square().mean() < apart


def test_exact_layer_behind_calibrated_ones_passes_both_networks_on():
    original = small()
    model = converted(copy.deepcopy(original))
    seen = []
    hook = model.backbone[6].register_forward_hook(lambda *parts: seen.append(parts[2]))
    calibrate(model, batches())
    hook.remove()
    taught, own = seen[0].chunk(2)
    torch.testing.assert_close(taught, original(IMAGE))
    torch.testing.assert_close(own, model.eval()(IMAGE, LABELS))


def test_channel_that_is_constant_keeps_its_scale():
    layer = randomize(nn.BatchNorm2d(3)).eval()
    image = torch.randn(4, 3, 6, 6)
    image[:, 1] = 0.7
    wanted = layer(image)
    scale = layer.weight.detach().clone()
    model = convert_norms(layer, ALL, ["a"]).eval()
    calibrate(model, [(image, None)])
    torch.testing.assert_close(model.backbone.modulation.scale[0, 1], scale[1])
    torch.testing.assert_close(model(image)[:, 1], wanted[:, 1], rtol=1e-4, atol=1e-4)


def test_learned_row_for_unknown_domains_gets_the_pair_of_all_images():
    norm = {"statistics": "instance", "modulation": "table", "dropout": 0.2}
    network = small()
    model = converted(copy.deepcopy(network), norm)
    shared = converted(network, {"statistics": "instance", "modulation": "shared"})
    for one in (model, shared):
        calibrate(one, batches())
    found, wanted = model.backbone[1].modulation.unconditional, shared.backbone[1].modulation
    torch.testing.assert_close(found.scale, wanted.scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dtype_is_kept(dtype):
    model = converted(small(dtype))
    report = calibrate(model, batches(image=IMAGE.to(dtype)))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(layer.after < layer.before for layer in report.layers)


def test_copies_can_be_calibrated_and_folded():
    model = copy.deepcopy(converted())
    add_domain(model, "d")
    calibrate(model, batches())
    folded = fold_domain(model, "c").eval()
    torch.testing.assert_close(folded(IMAGE), model.eval()(IMAGE, "c"))


TABLE = """\
layer          missed before  missed now
(the network)          1.500       0.250
images: a 3, b 0"""


def test_calibration_prints_as_a_table():
    report = Calibration((CalibratedLayer("", 1.5, 0.25),), {"a": 3, "b": 0})
    assert str(report) == TABLE
