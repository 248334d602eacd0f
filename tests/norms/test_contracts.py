"""What every norm of the catalogue promises, whatever it is made of."""

import copy

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from domainnorm.errors import ConditionError
from domainnorm.norms import create_norm, list_norms
from tests.combinations import covering
from tests.norms.conditions import (
    DOMAIN,
    apply,
    assert_equals_reference,
    condition_for,
    halves,
    make,
)

SHAPES = [(7, 5, 9), (7, 4, 6, 5), (7, 3, 3, 4, 5), (7, 64, 21, 23)]
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
every_norm = pytest.mark.parametrize("name", list_norms())
# Names in which nothing but the sample itself decides how it is normalized.
ALONE = [n for n in list_norms() if halves(n)[0] not in ("batch", "domain", "mixed", "cluster")]
TRACKED = ["bn", "cbn", "dsbn"]


def norms_with(*modulations):
    return [name for name in list_norms() if halves(name)[1] in modulations]


@covering(name=list_norms(), shape=SHAPES[:3], mean=[0.0, 1000.0], channels_last=[False, True])
def test_values_and_gradients_equal_the_reference(name, shape, mean, channels_last):
    norm = make(name, shape[1], dtype=torch.float64, axes=len(shape) - 2)
    x = torch.randn(shape, dtype=torch.float64) + mean
    apply(norm, name, x + torch.randn(7, *(1,) * (len(shape) - 1)))  # some state to start from
    if channels_last and len(shape) in LAYOUTS:
        x = x.to(memory_format=LAYOUTS[len(shape)])
    assert_equals_reference(norm, name, x)


@every_norm
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_memory_layout_is_kept(name, shape):
    x = torch.randn(shape).to(memory_format=LAYOUTS[len(shape)])
    assert apply(make(name, shape[1], axes=len(shape) - 2), name, x).stride() == x.stride()


VIEWS = {
    "every other pixel": lambda x: x[:, :, ::2, ::2],
    "height and width swapped": lambda x: x.transpose(2, 3),
    "some of the channels": lambda x: x[:, 2:],
    "some of the last channels": lambda x: x.to(memory_format=torch.channels_last)[:, 2:],
    "tokens": lambda x: x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2),
    "one map for all": lambda x: x[:1].expand(len(x), -1, -1, -1),
}


@covering(name=list_norms(), order=["shuffled", "sorted"], view=VIEWS)
def test_views_are_normalized_as_their_copies_are(name, order, view):
    domain = DOMAIN.sort().values if order == "sorted" else DOMAIN
    view, found = VIEWS[view], []
    x = torch.randn(7, 6, 10, 8)
    norm = make(name, view(x).shape[1], axes=view(x).ndim - 2)
    for prepare in (lambda x: x, torch.Tensor.contiguous):
        own, value = copy.deepcopy(norm), x.clone().requires_grad_()
        output = apply(own, name, prepare(view(value)), domain)
        output.square().sum().backward()
        found.append([output, value.grad, *own.buffers(), *(p.grad for p in own.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@covering(1, name=list_norms(), channels_last=[False, True])
def test_first_and_second_derivatives_are_right(name, channels_last):
    given = {"share": 0.3} if name == "auto_bn" else {}  # no gradient flows through 'unlike'
    norm = make(name, 2, num_domains=2, dtype=torch.float64, **given)
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    domain = torch.tensor([0, 1, 0])
    apply(norm, name, x, domain)
    named = dict(norm.named_parameters())
    buffers = dict(norm.named_buffers())

    def function(value, *parameters):
        # Copies: a pass may move running moments.
        state = {key: buffer.clone() for key, buffer in buffers.items()}
        state |= dict(zip(named, parameters, strict=True))
        with norm.slot.holding(condition_for(name, value.detach(), domain)):
            return torch.func.functional_call(norm, state, (value,))

    inputs = (x.requires_grad_(), *named.values())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


STOCK = {
    **dict.fromkeys(["in", "cin", "ibn_b", "tin"], lambda: nn.InstanceNorm2d(4, affine=True)),
    **dict.fromkeys(TRACKED, lambda: nn.BatchNorm2d(4)),
    **dict.fromkeys(["gn", "cgn"], lambda: nn.GroupNorm(2, 4)),
}


@pytest.mark.parametrize("name", list(STOCK))
def test_one_domain_equals_the_stock_layer_over_three_steps(name):
    domain = torch.zeros(6, dtype=torch.long)
    norm = create_norm(name, 4, 1, **({"num_groups": 2} if name in ("gn", "cgn") else {}))
    stock = STOCK[name]()
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (norm, stock)]
    for _ in range(3):
        x, weight = torch.randn(6, 4, 5, 5), torch.randn(6, 4, 5, 5)
        outputs = apply(norm, name, x, domain), stock(x)
        torch.testing.assert_close(*outputs)
        for optimizer, output in zip(optimizers, outputs, strict=True):
            optimizer.zero_grad()
            (output * weight).sum().backward()
            optimizer.step()
    torch.testing.assert_close(norm.modulation.scale[0], stock.weight)
    torch.testing.assert_close(norm.modulation.shift[0], stock.bias)
    if name in TRACKED:
        torch.testing.assert_close(norm.statistics.running_mean[0], stock.running_mean)
        torch.testing.assert_close(norm.statistics.running_var[0], stock.running_var)
        assert norm.statistics.num_batches_tracked[0] == stock.num_batches_tracked


@every_norm
@pytest.mark.parametrize("training", [True, False])
def test_order_of_samples_does_not_matter(name, training):
    norm = make(name, 4).train(training)
    x, order = torch.randn(SHAPES[1]), torch.randperm(7)
    before = apply(copy.deepcopy(norm), name, x)[order]
    torch.testing.assert_close(apply(norm, name, x[order], DOMAIN[order]), before)


@pytest.mark.parametrize("name", [*ALONE, "dsbn"])
def test_samples_of_another_domain_do_not_change_a_domain(name):
    norm = make(name, 4)
    x = torch.randn(SHAPES[1])
    changed = torch.where((DOMAIN == 2)[:, None, None, None], x * 3 + 1, x)
    before, after = apply(copy.deepcopy(norm), name, x), apply(norm, name, changed)
    torch.testing.assert_close(after[DOMAIN == 0], before[DOMAIN == 0], rtol=0, atol=1e-6)


@covering(name=[*ALONE, "dsbn"], shape=SHAPES, channels_last=[False, True])
def test_values_that_are_not_finite_stay_in_their_domain(name, shape, channels_last):
    norm, x = make(name, shape[1]), torch.randn(shape)
    x[DOMAIN == 2] = torch.inf
    x = x.to(memory_format=LAYOUTS[x.ndim]) if channels_last and x.ndim in LAYOUTS else x
    found = apply(norm, name, x.requires_grad_())
    found.sum().backward()
    finite = (DOMAIN != 2)[:, None].expand(shape[:2])
    for tensor in (found, x.grad):
        assert torch.equal(tensor.isfinite().flatten(2).all(-1), finite)
    if name == "dsbn":
        assert norm.statistics.running_mean[[0, 1, 3]].isfinite().all()


def test_absent_domain_keeps_running_moments_bit_for_bit():
    norm = make("dsbn", 4)
    norm.statistics.running_mean.normal_()
    before = copy.deepcopy(norm.statistics.state_dict())
    apply(norm, "dsbn", torch.randn(SHAPES[1]))
    for key, value in norm.statistics.state_dict().items():
        assert torch.equal(value[[1, 3]], before[key][[1, 3]])
        assert not torch.equal(value[[0, 2]], before[key][[0, 2]])


@pytest.mark.parametrize("name", norms_with("table"))
def test_absent_domain_has_zero_gradient_not_none(name):
    norm = make(name, 4)
    apply(norm, name, torch.randn(SHAPES[1])).square().sum().backward()
    for parameter in norm.modulation.parameters():
        assert torch.equal(parameter.grad[[1, 3]], torch.zeros(2, 4))


@every_norm
@pytest.mark.parametrize("training", [True, False])
def test_batch_of_one_works(name, training):
    norm = make(name, 4).train(training)
    x = torch.randn(1, 4, 6, 5)
    output = apply(norm, name, x, torch.tensor([3]))
    assert output.shape == x.shape
    assert output.isfinite().all()


@covering(
    name=list_norms(),
    training=[True, False],
    channels_last=[False, True],
    shape=[(0, 4, 6, 5), (0, 4, 40), (0, 4, 3, 4, 5)],
)
def test_batch_of_no_sample_is_empty_and_changes_nothing_as_in_torch(
    name, training, channels_last, shape
):
    norm = make(name, 4, axes=len(shape) - 2).train(training)
    before = copy.deepcopy(norm.state_dict())
    x = torch.zeros(shape)
    if channels_last and len(shape) in LAYOUTS:
        x = x.contiguous(memory_format=LAYOUTS[len(shape)])
    x.requires_grad_()
    output = apply(norm, name, x, torch.zeros(0, dtype=torch.long))
    output.sum().backward()
    assert output.shape == x.grad.shape == x.shape
    for key, value in norm.state_dict().items():
        assert torch.equal(value, before[key]), key
    for key, parameter in norm.named_parameters():
        assert parameter.grad is not None, key
        assert not parameter.grad.any(), key


@covering(name=list_norms(), size=[6, 28, 56], mixed_last=[True, False])
def test_two_batches_can_come_before_one_backward(name, size, mixed_last):
    norm, labels = make(name, 16), ([0] * 8, [0, 1] * 4)
    if not mixed_last:
        labels = labels[::-1]
    once = copy.deepcopy(norm)
    batches = [torch.randn(8, 16, size, size, requires_grad=True) for _ in labels]
    pairs = [
        (x, condition_for(name, x, torch.tensor(d))) for x, d in zip(batches, labels, strict=True)
    ]

    def output(layer, x, condition):
        with layer.slot.holding(condition):
            return layer(x).square().sum()

    sum(output(norm, *pair) for pair in pairs).backward()
    for pair in pairs:
        output(once, *pair).backward()
    for key, parameter in norm.named_parameters():
        torch.testing.assert_close(parameter.grad, once.get_parameter(key).grad, msg=key)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [n for n in list_norms() if halves(n)[0] in ("batch", "domain")])
def test_cumulative_average_of_a_narrow_model(name, dtype):
    norm = make(name, 4, momentum=None).to(dtype)
    batches = [torch.randn(4, 4, 6, 6).to(dtype) for _ in range(3)]
    for x in batches:
        assert apply(norm, name, x, torch.zeros(4, dtype=torch.long)).dtype == dtype
    wanted = torch.stack([x.float().mean((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(norm.statistics.running_mean[0].float(), wanted, rtol=0, atol=0.01)


def test_cumulative_average_is_exact_in_double_precision():
    norm = make("bn", 4, momentum=None).double()
    stock = nn.BatchNorm2d(4, momentum=None).double()
    for _ in range(3):
        x = torch.randn(4, 4, 6, 6, dtype=torch.float64) + 5
        apply(norm, "bn", x, torch.zeros(4, dtype=torch.long))
        stock(x)
    torch.testing.assert_close(norm.statistics.running_mean[0], stock.running_mean)


@pytest.mark.parametrize("name", ["in", "cin", "tin", "cgn", "gn"])
def test_output_has_the_type_of_the_input_under_autocast_on_a_gpu(name):
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        options = {"num_groups": 2} if halves(name)[0] == "group" else {}
        norm, x = create_norm(name, 8, 4, **options), torch.empty(4, 8, 6, 6, dtype=torch.float16)
        domain = torch.empty(4, dtype=torch.long)
        # Not torch.autocast, which looks for a GPU.
        torch.set_autocast_enabled("cuda", True)
        try:
            assert apply(norm, name, x, domain).dtype == torch.float16
        finally:
            torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize(
    "name", sorted({*norms_with("table"), *(n for n in list_norms() if halves(n)[0] == "domain")})
)
def test_label_that_no_row_has_is_refused_by_a_layer_on_its_own(name):
    for label in (-1, 4):
        for training in (True, False):
            norm, labels = make(name, 4).train(training), torch.tensor([0, label])
            message = f"label {label} is out of range, expected 0 to 3"
            with pytest.raises(ConditionError, match=message):
                apply(norm, name, torch.randn(2, 4, 6, 5), labels)


@pytest.mark.parametrize("name", ["ln", "cln", "rms", "crms"])
@pytest.mark.parametrize("shape", [(0, 4), (0, 7, 4), (0, 3, 5, 4)])
def test_batch_of_no_tokens_is_empty(name, shape):
    norm, x = make(name, 4, tokens=True), torch.zeros(shape, requires_grad=True)
    output = apply(norm, name, x, torch.zeros(0, dtype=torch.long))
    output.sum().backward()
    assert output.shape == x.grad.shape == shape
    assert all(not parameter.grad.any() for parameter in norm.parameters())


@pytest.mark.parametrize("name", TRACKED)
def test_single_value_per_channel_is_normalized_with_running_moments(name):
    norm = make(name, 4)
    with torch.no_grad():
        norm.statistics.running_mean.normal_()
    before = copy.deepcopy(norm.statistics.state_dict())
    x, domain = torch.randn(1, 4), torch.tensor([2])
    trained = apply(norm, name, x, domain)
    torch.testing.assert_close(trained, apply(norm.eval(), name, x, domain))
    for key, value in norm.statistics.state_dict().items():
        assert torch.equal(value, before[key])


def test_single_value_in_one_domain_of_a_mixed_batch_gets_no_gradient_from_its_moments():
    norm = make("dsbn", 4, num_domains=2, dtype=torch.float64)
    x = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 0, 0, 1])
    apply(norm, "dsbn", x, domain)[3].sum().backward()
    rstd = torch.rsqrt(torch.ones(4, dtype=torch.float64) + norm.statistics.eps)
    torch.testing.assert_close(x.grad[3], norm.modulation.scale[1].detach() * rstd)


@every_norm
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_can_be_followed_by_an_in_place_activation(name, layout):
    norm = make(name, 4)
    x = torch.randn(SHAPES[1]).to(memory_format=layout).requires_grad_()
    torch.relu_(apply(copy.deepcopy(norm), name, x)).sum().backward()
    in_place, x.grad = x.grad, None
    torch.relu(apply(norm, name, x)).sum().backward()
    torch.testing.assert_close(in_place, x.grad)


@pytest.mark.parametrize("name", norms_with("table", "shared"))
def test_scale_starts_at_one_and_shift_at_zero(name):
    norm = create_norm(name, 64, 3)
    assert (norm.modulation.scale == 1).all()
    assert (norm.modulation.shift == 0).all()


@pytest.mark.parametrize("name", TRACKED)
def test_momentum_weighs_the_new_batch(name):
    norm = create_norm(name, 2, 1, momentum=0.1)
    apply(norm, name, torch.randn(8, 2, 16, 16) * 0.01 + 10, torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(norm.statistics.running_mean, torch.ones(1, 2), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["bn", "dsbn"])
@pytest.mark.parametrize("mixed", [False, True])
def test_momentum_none_is_the_cumulative_average(name, mixed):
    norm = create_norm(name, 2, 2, momentum=None)
    domain = torch.tensor([0, 0, 1, 1]) if mixed else torch.zeros(4, dtype=torch.long)
    batches = [torch.randn(4, 2, 3, 3) for _ in range(3)]
    for batch in batches:
        apply(norm, name, batch, domain)
    own = [batch[domain == 0] if name == "dsbn" else batch for batch in batches]
    wanted = torch.stack([batch.mean((0, 2, 3)) for batch in own]).mean(0)
    torch.testing.assert_close(norm.statistics.running_mean[0], wanted)


# α-BN interpolates with the moments of the batch it is given, on purpose.
@pytest.mark.parametrize("name", [n for n in list_norms() if n != "alpha_bn"])
def test_evaluation_uses_one_sample_at_a_time(name):
    norm = make(name, 4)
    apply(norm, name, torch.randn(SHAPES[1]))
    norm.eval()
    x = torch.randn(SHAPES[1])
    together = apply(norm, name, x)
    alone = torch.cat([apply(norm, name, x[n : n + 1], DOMAIN[n : n + 1]) for n in range(7)])
    torch.testing.assert_close(together, alone)


@pytest.mark.slow
@every_norm
def test_compiles_in_one_graph_and_new_labels_do_not_recompile(name):
    norm = make(name, 4)
    torch._dynamo.reset()  # all norms share one forward, and a limit of its recompilations
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(norm, fullgraph=True, backend=counter)
    x = torch.randn(SHAPES[1])
    for domain in (DOMAIN, DOMAIN.flip(0), torch.ones_like(DOMAIN)):
        eager = apply(copy.deepcopy(norm), name, x, domain)
        with norm.slot.holding(condition_for(name, x, domain)):
            torch.testing.assert_close(compiled(x), eager, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.slow
@every_norm
def test_a_compiled_step_moves_what_an_eager_one_moves(name):
    torch.manual_seed(0)
    norm = make(name, 4).train()
    x, target = torch.randn(SHAPES[1]), torch.randn(SHAPES[1])
    if not any(True for _ in norm.parameters()):
        pytest.skip("has no parameter")
    found = []
    for compiles in (False, True):
        own = copy.deepcopy(norm)
        torch._dynamo.reset()
        called = torch.compile(own, fullgraph=True) if compiles else own
        with own.slot.holding(condition_for(name, x, DOMAIN)):
            (called(x) - target).square().mean().backward()
        found.append({key: p.grad for key, p in own.named_parameters()})
    eager, compiled = found
    for key, gradient in eager.items():
        assert (gradient is None) == (compiled[key] is None), key
        if gradient is not None:
            torch.testing.assert_close(compiled[key], gradient, rtol=1e-3, atol=1e-4)
