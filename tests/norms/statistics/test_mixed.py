import copy

import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms import create_norm
from tests.norms.conditions import DOMAIN, apply, assert_equals_reference, make

SHAPE = (7, 6, 4, 3)
MIXTURES = [
    {"parts": ["domain", "instance"], "gate": "split"},
    {"parts": ["instance", "domain", "layer", "group"], "gate": "split"},
    {"parts": ["domain", "group"], "gate": "learned"},
    {"parts": ["layer", "batch"], "gate": "learned"},
    {"parts": ["group", "domain", "instance"], "gate": "softmax"},
    {"parts": ["domain", "instance"], "gate": "shrink"},
    {"parts": ["domain"], "gate": "fixed"},
]


@pytest.mark.parametrize("options", MIXTURES, ids=str)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_values_and_gradients_equal_the_reference(options, mean):
    norm = make("mixed*table", 6, dtype=torch.float64, **options)
    x = torch.randn(SHAPE, dtype=torch.float64) + mean
    assert_equals_reference(norm, "mixed*table", x)


class IBNa(nn.Module):
    """As published: the first half of the channels through IN, the rest through BN."""

    def __init__(self, num_features):
        super().__init__()
        self.half = num_features // 2
        self.instance = nn.InstanceNorm2d(self.half, affine=True)
        self.batch = nn.BatchNorm2d(num_features - self.half)

    def forward(self, x):
        first, rest = x[:, : self.half], x[:, self.half :]
        return torch.cat([self.instance(first.contiguous()), self.batch(rest.contiguous())], 1)


@pytest.mark.parametrize("num_features", [6, 7])
def test_ibn_a_equals_the_published_layer_over_steps_and_in_evaluation(num_features):
    norm, published = create_norm("ibn_a", num_features), IBNa(num_features)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.01) for module in (norm, published)]
    for _ in range(3):
        x = torch.randn(7, num_features, 4, 3) * 2 + 1
        weight = torch.randn_like(x)
        outputs = apply(norm, "ibn_a", x), published(x)
        torch.testing.assert_close(*outputs)
        for optimizer, output in zip(optimizers, outputs, strict=True):
            optimizer.zero_grad()
            (output * weight).sum().backward()
            optimizer.step()
    scale = torch.cat([published.instance.weight, published.batch.weight])
    torch.testing.assert_close(norm.modulation.scale[0], scale)
    for name in ("running_mean", "running_var"):
        running = norm.statistics.get_buffer(name)[0, published.half :]
        torch.testing.assert_close(running, published.batch.get_buffer(name))
    norm.eval(), published.eval()
    torch.testing.assert_close(apply(norm, "ibn_a", x), published(x))


WITH_DOMAIN = [options for options in MIXTURES if "domain" in options["parts"]]


@pytest.mark.parametrize("options", WITH_DOMAIN, ids=str)
def test_samples_of_another_domain_do_not_change_a_domain(options):
    norm, x = make("mixed*table", 6, **options), torch.randn(SHAPE)
    changed = torch.where((DOMAIN == 2)[:, None, None, None], x * 3 + 1, x)
    before = apply(copy.deepcopy(norm), "mixed*table", x)
    after = apply(norm, "mixed*table", changed)
    torch.testing.assert_close(after[DOMAIN == 0], before[DOMAIN == 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", WITH_DOMAIN, ids=str)
def test_absent_domain_keeps_running_moments_bit_for_bit(options):
    norm = make("mixed*table", 6, **options)
    norm.statistics.running_mean.normal_()
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    before = {name: norm.statistics.get_buffer(name).clone() for name in buffers}
    apply(norm, "mixed*table", torch.randn(SHAPE))
    for name, value in before.items():
        assert torch.equal(norm.statistics.get_buffer(name)[[1, 3]], value[[1, 3]])
        assert not torch.equal(norm.statistics.get_buffer(name)[[0, 2]], value[[0, 2]])


def test_bin_gate_is_clipped_before_a_training_step_and_in_evaluation():
    norm = create_norm("bin", 4)
    with torch.no_grad():
        norm.statistics.share.copy_(torch.tensor([1.7, -0.3, 0.5, 1.0]))
    x, wanted = torch.randn(7, 4, 3, 3), create_norm("bin", 4)
    with torch.no_grad():
        wanted.statistics.share.copy_(torch.tensor([1.0, 0.0, 0.5, 1.0]))
    torch.testing.assert_close(apply(norm.eval(), "bin", x), apply(wanted.eval(), "bin", x))
    apply(norm.train(), "bin", x)
    assert torch.equal(norm.statistics.share, wanted.statistics.share)


def test_bin_gate_at_its_limit_still_gets_a_gradient():
    norm = create_norm("bin", 4)
    apply(norm, "bin", torch.randn(7, 4, 3, 3)).pow(3).sum().backward()
    assert (norm.statistics.share.grad != 0).all()


def test_two_forward_passes_may_precede_one_backward():
    norm = create_norm("bin", 4)
    total = sum(apply(norm, "bin", torch.randn(7, 4, 3, 3)).pow(3).sum() for _ in range(2))
    total.backward()
    assert norm.statistics.share.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_alpha_bn_mixes_running_moments_with_those_of_the_batch(alpha):
    norm = create_norm("alpha_bn", 4, alpha=alpha).eval()
    source = norm.statistics
    source.running_mean.normal_(), source.running_var.uniform_(0.5, 2)
    x = torch.randn(7, 4, 5, 5) * 3 + 2
    mean = alpha * source.running_mean[0] + (1 - alpha) * x.mean((0, 2, 3))
    var = alpha * source.running_var[0] + (1 - alpha) * x.var((0, 2, 3), unbiased=False)
    wanted = nn.functional.batch_norm(x, mean, var)
    before = copy.deepcopy(norm.state_dict())
    torch.testing.assert_close(apply(norm, "alpha_bn", x), wanted)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_alpha_bn_of_a_single_value_uses_the_running_moments():
    norm = create_norm("alpha_bn", 4, alpha=0.2).eval()
    norm.statistics.running_mean.normal_()
    x = torch.randn(1, 4)
    wanted = nn.functional.batch_norm(
        x, norm.statistics.running_mean[0], norm.statistics.running_var[0]
    )
    with norm.slot.holding(Condition(domain=torch.tensor([0]))):
        torch.testing.assert_close(norm(x), wanted)


@pytest.mark.parametrize(
    ("norm", "exact"), [("bin", True), ("cluster_in", True), ("ibn_a", False), ("sn", False)]
)
def test_conversion_of_batch_norm_says_whether_it_preserves_the_function(norm, exact):
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    batch_norm = network[1]
    batch_norm.running_mean.normal_(), batch_norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(batch_norm.weight), nn.init.normal_(batch_norm.bias)
    x = torch.randn(4, 3, 9, 9)
    wanted = network.eval()(x)
    model = convert_norms(network, norm, ["a", "b"])
    found = model(x, ["a", "b", "a", "b"])
    assert model.conversion[0].exact is exact
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5) is exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ["instance", "bach"]}, "unknown part 'bach': did you mean 'batch'"),
        ({"parts": ["batch", "batch"]}, "names a part twice"),
        ({"parts": ["instance", "layer"]}, "expected exactly one of batch and domain"),
        ({"parts": ["batch", "domain"]}, "expected exactly one of batch and domain"),
        ({"parts": ["batch"]}, "under gate 'split', expected two parts or more"),
        (
            {"parts": ["batch", "layer", "group"], "gate": "learned"},
            "'learned', expected two parts",
        ),
        ({"parts": ["batch", "layer"], "gate": "fixed"}, "gate 'fixed', expected one part"),
        ({"gate": "fixed", "alpha": 1.5}, r"alpha: got 1.5, expected a number in \[0, 1\]"),
        ({"parts": ["batch", "group"], "num_groups": 4}, "4 groups of 6 channels are not of equal"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        create_norm("mixed*shared", 6, **options)


def test_instance_part_of_one_element_is_refused_with_the_path():
    norm = create_norm("ibn_a", 4, path="neck")
    with pytest.raises(ConditionError, match="neck: instance part of a map with one element"):
        apply(norm, "ibn_a", torch.randn(7, 4, 1, 1))


def test_soft_weights_in_training_of_a_domain_part_are_refused():
    norm = create_norm("mixed*table", 4, 2, parts=["instance", "domain"], path="stem")
    condition = Condition(weights=torch.full((3, 2), 0.5))
    message = "stem: domain statistics in training need one label per sample"
    with norm.slot.holding(condition), pytest.raises(ConditionError, match=message):
        norm(torch.randn(3, 4, 2, 2))
