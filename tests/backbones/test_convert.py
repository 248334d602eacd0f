"""What a conversion keeps, and what it refuses."""

import copy
import functools

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d
from torch import nn

from domainnorm.backbones import DomainModel, convert_norms, create_model
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm
from tests.backbones.networks import DOMAINS, converted, copy_row, plain, randomize

ARCHITECTURES = {
    "test_efficientnet": 64,
    "test_resnet": 64,
    "test_byobnet": 64,
    "resnet10t": 64,
    "resnet18d": 64,
    "mobilenetv3_small_050": 64,
    "densenet121": 32,
    "tf_efficientnet_lite0": 64,
    "resnest14d": 64,
    "regnetz_b16": 64,
    "repvgg_a0": 64,
    "ghostnet_050": 64,
    "dla34": 32,
    "eca_vovnet39b": 32,
    "seresnext26t_32x4d": 64,
    "cspresnet50": 32,
    "resnetv2_18": 64,
    "fasternet_t0": 64,
    "starnet_s1": 64,
    "repvit_m0_9": 64,
    "levit_128s": 224,  # folds tokens into the batch axis
    "efficientvit_m0": 224,  # folds windows into the batch axis
}
# Both norms share the conversion; to be quick, the default run has all under one of them.
FAST = {(name, "dsbn") for name in ARCHITECTURES} | {
    (name, "cbn") for name in [*ARCHITECTURES][::4]
}
every_architecture = pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(name, norm, marks=[] if (name, norm) in FAST else pytest.mark.slow)
        for name in ARCHITECTURES
        for norm in ("dsbn", "cbn")
    ],
)


def exact(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


network = functools.lru_cache(maxsize=2)(plain)


def pair(name, norm):
    torch.manual_seed(0)
    image = torch.randn(3, 3, ARCHITECTURES[name], ARCHITECTURES[name], dtype=torch.float64)
    original = copy.deepcopy(network(name))
    model = convert_norms(copy.deepcopy(original), norm, DOMAINS, example=image[:1])
    return original, model, image


@every_architecture
def test_conversion_is_exact_in_evaluation_for_every_domain(name, norm):
    original, model, image = pair(name, norm)
    wanted = original.eval()(image)
    model.eval()
    exact(model(image, list(DOMAINS)), wanted)


@every_architecture
def test_conversion_is_exact_in_training_and_tracks_the_same_moments(name, norm):
    original, model, image = pair(name, norm)
    outputs = []
    for network, arguments in ((original, ()), (model, ("b",))):
        torch.manual_seed(1)  # dropout
        output = network.train()(image, *arguments)
        # LeViT returns the logits of its two heads while it trains.
        outputs.append(torch.cat(output) if isinstance(output, tuple) else output)
    exact(outputs[1], outputs[0])
    for layer in model.conversion:
        old, new = original.get_submodule(layer.path), model.backbone.get_submodule(layer.path)
        row = 1 if norm == "dsbn" else 0
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            exact(new.statistics.get_buffer(key)[row], old.get_buffer(key))


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "ghostnet_050"])
@pytest.mark.parametrize("training", [False, True])
def test_mixed_batch_equals_a_plain_network_per_domain(name, training):
    size = ARCHITECTURES[name]
    image = torch.randn(6, 3, size, size, dtype=torch.float64)
    domain = torch.tensor([2, 0, 1, 0, 2, 1])
    original = plain(name, drop_rate=0.0)
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS, example=image[:1])
    for row, _ in enumerate(DOMAINS):
        source = randomize(copy.deepcopy(original))
        for layer in model.conversion:
            norm, old = (n.get_submodule(layer.path) for n in (model.backbone, source))
            with torch.no_grad():
                norm.modulation.scale[row], norm.modulation.shift[row] = old.weight, old.bias
                norm.statistics.running_mean[row] = old.running_mean
                norm.statistics.running_var[row] = old.running_var
    alone = [copy_row(model, copy.deepcopy(original), row).train(training) for row in range(3)]
    found = model.train(training)(image, domain)
    for row, network in enumerate(alone):
        exact(found[domain == row], network(image[domain == row]))


def test_activation_and_drop_are_the_same_objects():
    layer = BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Dropout)
    act, drop = layer.act, layer.drop
    norm = convert_norms(nn.Sequential(layer), None, DOMAINS).backbone[0]
    assert norm.act is act
    assert norm.drop is drop


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_dtype_is_kept_and_usable(dtype, affine):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=affine)).to(dtype)
    original = copy.deepcopy(randomize(network))
    model = convert_norms(network, "dsbn", DOMAINS)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.backbone[1].statistics.running_mean.dtype == dtype
    image = torch.randn(4, 3, 8, 8, dtype=dtype)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-9
    output = model(image, ["a", "b", "c", "a"])
    assert output.dtype == dtype
    model.eval()
    torch.testing.assert_close(
        convert_norms(copy.deepcopy(original), "cbn", DOMAINS).eval()(image, "c"),
        original.eval()(image),
        rtol=tolerance,
        atol=tolerance,
    )


def test_device_is_kept():
    with torch.device("meta"):
        network = timm.create_model("test_resnet")
    model = convert_norms(network, "cin", DOMAINS)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_training_flag_of_each_layer_is_kept():
    network = plain("test_resnet").train()
    network.bn1.eval()
    model = convert_norms(network, "dsbn", DOMAINS)
    flags = {path: module.training for path, module in model.backbone.named_modules()}
    assert not flags["bn1"]
    assert not flags["bn1.statistics"]
    assert flags["layer1.0.bn1.statistics"]


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias"), ()])
def test_frozen_scales_and_shifts_stay_frozen(frozen):
    layer = nn.BatchNorm2d(4)
    for name in frozen:
        layer.get_parameter(name).requires_grad_(False)
    modulation = convert_norms(nn.Sequential(layer), "dsbn", DOMAINS).backbone[0].modulation
    assert modulation.scale.requires_grad == ("weight" not in frozen)
    assert modulation.shift.requires_grad == ("bias" not in frozen)


@pytest.mark.parametrize("momentum", [0.3, None, 0.0])
def test_eps_momentum_and_batches_tracked_are_kept(momentum):
    layer = randomize(nn.BatchNorm2d(4, eps=1e-3, momentum=momentum))
    statistics = convert_norms(nn.Sequential(layer), "dsbn", DOMAINS).backbone[0].statistics
    assert (statistics.eps, statistics.momentum) == (1e-3, momentum)
    assert statistics.num_batches_tracked.tolist() == [3, 3, 3]


def test_layer_without_affine_stays_exact():
    original = randomize(nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    image = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(model.eval()(image, "b"), original.eval()(image))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(4), (3, 4)),
        (nn.BatchNorm1d(4), (3, 4, 6)),
        (nn.BatchNorm2d(4), (3, 4, 5, 5)),
        (nn.BatchNorm3d(4), (3, 4, 3, 5, 5)),
        (BatchNormAct2d(4), (3, 4, 5, 5)),
    ],
)
def test_network_that_is_a_single_norm_can_be_converted(layer, shape):
    original = randomize(layer)
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    assert isinstance(model.backbone, ConditionalNorm)
    image = torch.randn(shape)
    torch.testing.assert_close(model(image, "a"), original(image))


class Tied(nn.Module):
    """Uses one norm after both of its convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.first = nn.BatchNorm2d(3)
        self.again = nn.Sequential(self.first)

    def forward(self, x):
        return self.again(self.conv2(self.first(self.conv1(x))))


def test_tied_norm_is_replaced_wherever_it_is_used():
    original = randomize(Tied())
    model = convert_norms(copy.deepcopy(original), "dsbn", DOMAINS)
    assert model.backbone.first is model.backbone.again[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    image = torch.randn(3, 3, 9, 9)
    torch.testing.assert_close(model(image, "c"), original(image))


def test_rows_of_folded_tokens_get_the_label_of_their_image():
    model = converted("levit_128s", dtype=torch.float64, size=224).eval()
    assert any(norm.folded for norm in model.norms())
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    together = model(image, ["c", "a"])
    exact(together, torch.cat([model(image[:1], "c"), model(image[1:], "a")]))


class Interleaved(nn.Module):
    """Folds tokens so that rows of one image are not consecutive."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        tokens = x.flatten(2).permute(2, 0, 1)  # (L, N, C)
        return self.norm(tokens.reshape(-1, 3)).reshape_as(tokens)


def test_rows_that_are_not_consecutive_are_refused_with_the_path():
    model = convert_norms(Interleaved(), "dsbn", DOMAINS, example=torch.rand(1, 3, 4, 4))
    with pytest.raises(Exception, match="norm: 32 rows for 2 domain labels"):
        model(torch.rand(2, 3, 4, 4), ["a", "b"])


class ScaledBatchNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class HomemadeNorm(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_features))

    def forward(self, x):
        return x * self.gain[:, None, None]


@pytest.mark.parametrize(
    "layer",
    [
        ScaledBatchNorm(4),
        HomemadeNorm(4),
        FrozenBatchNormAct2d(4),
        nn.SyncBatchNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_unknown_norm_is_refused_with_its_path(layer):
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), layer))
    message = rf"1\.1 \({type(layer).__name__}\): not a norm this version converts"
    with pytest.raises(ConversionError, match=message):
        convert_norms(network, "dsbn", DOMAINS)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_network_with_layer_norm_is_refused_naming_layers_and_class(name):
    network = timm.create_model(name)
    with pytest.raises(ConversionError, match=r"norm.*\(LayerNorm.*\).* more: not a norm this"):
        convert_norms(network, "dsbn", DOMAINS)


def test_refused_network_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ConversionError, match=r"1: batch norm without running statistics"):
        convert_norms(network, "dsbn", DOMAINS)
    assert type(network[0]) is nn.BatchNorm2d


def test_unknown_norm_outside_where_is_left_alone():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    model = convert_norms(network, "dsbn", DOMAINS, where=["all", "!1"])
    assert type(model.backbone[1]) is nn.GroupNorm


def test_layer_that_normalizes_pixels_is_not_a_norm_layer():
    class Normalize(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3, 1, 1))

        def forward(self, x):
            return x - self.mean

    model = convert_norms(nn.Sequential(Normalize(), nn.BatchNorm2d(3)), "dsbn", DOMAINS)
    assert [layer.path for layer in model.conversion] == ["1"]


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Identity()])
def test_network_without_norms_is_refused(network):
    with pytest.raises(ConversionError, match="no batch normalization layer to convert"):
        convert_norms(network, "dsbn", DOMAINS)


def test_second_conversion_is_refused():
    model = converted()
    with pytest.raises(ConversionError, match="converted already"):
        convert_norms(model.backbone, "dsbn", DOMAINS)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ((), r"domains: got \[\], expected a list of names"),
        (("a", ""), "expected a list of names"),
        ((1, 2), "expected a list of names"),
        (("a", "b", "a"), "names a domain twice"),
    ],
)
def test_bad_domains_are_refused(domains, message):
    with pytest.raises(ConversionError, match=message):
        convert_norms(nn.BatchNorm2d(4), "dsbn", domains)


@pytest.mark.parametrize(
    ("norm", "where"), [("dsbn", []), ("dsbn", ["!1"]), ({"early": "cin", "!all": "dsbn"}, "late")]
)
def test_conversion_of_nothing_is_refused(norm, where):
    network = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    with pytest.raises(ConversionError, match="leaves every norm layer as it is"):
        convert_norms(network, norm, DOMAINS, where=where)


def test_bytes_per_domain_count_what_a_domain_adds():
    one, two = (converted(domains=names) for names in (("a", "b"), ("a", "b", "c")))

    def size(model):
        tensors = [t for n, t in model.state_dict().items() if "num_batches" not in n]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    assert two.bytes_per_domain == size(two) - size(one)


def test_conversion_returns_the_network_it_was_given():
    network = plain("test_resnet")
    model = convert_norms(network, "dsbn", DOMAINS)
    assert isinstance(model, DomainModel)
    assert model.backbone is network


@pytest.mark.parametrize("name", ["in", "cin", "tin", "ibn_a", "bin", "sn", "adain"])
def test_instance_moments_never_reach_a_map_of_one_element(name):
    model = create_model("resnest14d", 3, {"all": name}, DOMAINS)
    replaced = {layer.path for layer in model.conversion if "one element" in layer.note}
    assert "layer1.0.conv2.bn1" in replaced
    assert model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).isfinite().all()


def test_impossible_norm_is_refused_with_the_path():
    with pytest.raises(ConversionError, match=r"^conv1\.1: num_groups: 32 groups of 24 channels"):
        create_model("resnet10t", 3, "cgn", DOMAINS)
