"""Blocks that are recomputed during backward see the condition of their own forward pass."""

import copy

import pytest
import timm
import torch
from timm.layers import set_reentrant_ckpt, use_reentrant_ckpt

from domainnorm.backbones import convert_norms
from tests.backbones.networks import DOMAINS, converted
from tests.combinations import covering

FIRST, SECOND = torch.tensor([0, 2, 0, 2]), torch.tensor([1, 1, 2, 0])
ORDERS = ["A", "A, then B", "B, then A", "A + B"]


NETWORKS = {
    "dsbn": ("test_efficientnet", "dsbn"),
    "cin": ("test_efficientnet", {"all": "cin"}),
    "bottlenecks": ("resnet10t", "dsbn"),
    "tokens": ("test_convnext", "cln"),
}


@pytest.fixture(params=[False, True], ids=["non-reentrant", "reentrant"])
def _reentrant(request):
    before = use_reentrant_ckpt()
    set_reentrant_ckpt(request.param)
    yield
    set_reentrant_ckpt(before)


def gradients(model, order):
    """Gradients after forward passes A and B, with other domains each, and backward in an order."""
    torch.manual_seed(0)
    image = torch.randn(2, 4, 3, 64, 64, dtype=torch.float64)
    losses = [model(image[0], FIRST).square().sum()]
    if order != "A":
        losses.append(model(image[1], SECOND).pow(3).sum())
    if order == "A + B":
        losses = [losses[0] + losses[1]]
    for loss in reversed(losses) if order == "B, then A" else losses:
        loss.backward()
        assert model.slot.current is None
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.usefixtures("_reentrant")
@covering(1, network=NETWORKS, order=ORDERS)
def test_gradients_equal_those_without_checkpointing(network, order):
    stored = converted(*NETWORKS[network], dtype=torch.float64, num_classes=3)
    recomputed = copy.deepcopy(stored)
    recomputed.backbone.set_grad_checkpointing(True)
    wanted, found = gradients(stored, order), gradients(recomputed, order)
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-8, atol=1e-8, msg=key)


@pytest.mark.usefixtures("_reentrant")
@pytest.mark.parametrize("assignment", ["hard", "soft"])
def test_samples_stay_in_the_clusters_of_their_forward_pass(assignment):
    norm = {"name": "cluster_in", "assignment": assignment, "momentum": 0.9}
    stored = converted("test_efficientnet", norm, dtype=torch.float64, num_classes=3)
    torch.manual_seed(0)
    for _ in range(3):  # centroids of some batches
        spread = torch.rand(8, 3, 1, 1) + 0.5
        stored((torch.randn(8, 3, 64, 64) * spread).double(), "a")
    recomputed = copy.deepcopy(stored)
    recomputed.backbone.set_grad_checkpointing(True)
    wanted, found = gradients(stored, "A + B"), gradients(recomputed, "A + B")
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-8, atol=1e-8, msg=key)
    for key, buffer in stored.named_buffers():
        if "centroids" in key or "style_var" in key:
            assert torch.equal(recomputed.get_buffer(key), buffer), key


@pytest.mark.usefixtures("_reentrant")
def test_backward_pass_that_fails_leaves_nothing_behind():
    model = converted("resnet10t")
    model.backbone.set_grad_checkpointing(True)
    image = torch.randn(4, 3, 64, 64)

    def fail(gradient):
        raise ValueError("on purpose")

    loss = model(image, FIRST).sum()
    handle = next(model.parameters()).register_hook(fail)
    with pytest.raises(ValueError, match="on purpose"):
        loss.backward()
    handle.remove()
    with model.condition(image, SECOND) as backbone:
        backbone(image).sum().backward()
    assert model.slot.current is None


@pytest.mark.usefixtures("_reentrant")
def test_blocks_really_are_recomputed():
    model = converted("resnet10t")
    model.backbone.set_grad_checkpointing(True)
    seen = []
    norm = model.backbone.get_submodule("layer2.0.bn1")
    norm.register_forward_pre_hook(lambda *_: seen.append(model.slot.current))
    model(torch.randn(4, 3, 64, 64), FIRST).sum().backward()
    assert len(seen) == 2
    assert seen[0] is seen[1]


MOVING = ["dsbn", "bn", "cbn", "auto_bn", "bin", "iabn", "ibn_a", "sn", "cluster_in"]
SOFT = {"name": "cluster_in", "assignment": "soft"}


@pytest.mark.usefixtures("_reentrant")
@pytest.mark.parametrize("norm", [*MOVING, SOFT], ids=str)
def test_recompute_does_not_move_running_moments_again(norm):
    stored = converted("test_efficientnet", norm, num_classes=3)
    recomputed = copy.deepcopy(stored)
    recomputed.backbone.set_grad_checkpointing(True)
    before = {key: buffer.clone() for key, buffer in stored.named_buffers()}
    image = torch.randn(6, 3, 64, 64)
    for model in (stored, recomputed):
        for domain in (torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 2, 1, 2, 1, 2])):
            model(image, domain).square().sum().backward()
    assert any(not torch.equal(before[key], now) for key, now in stored.named_buffers())
    for key, buffer in stored.named_buffers():
        assert torch.equal(recomputed.get_buffer(key), buffer), key


def test_checkpointed_call_of_the_whole_model_is_right():
    model = converted(dtype=torch.float64)
    image = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    wanted = torch.autograd.grad(model(image, FIRST).sum(), list(model.parameters()))
    output = torch.utils.checkpoint.checkpoint(model, image, FIRST, use_reentrant=False)
    found = torch.autograd.grad(output.sum(), list(model.parameters()))
    torch.testing.assert_close(found, wanted)
    assert model.slot.current is None


def test_backward_inside_a_block_recomputes_under_its_own_condition():
    model = converted("resnet10t", dtype=torch.float64)
    image = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(model(image, FIRST).sum(), parameters)
    model.backbone.set_grad_checkpointing(True)
    output = model(image, FIRST)
    with model.condition(image, SECOND) as backbone:
        found = torch.autograd.grad(output.sum(), parameters)
        under_second = backbone(image)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(under_second, model(image, SECOND))


def test_outputs_in_lists_are_armed_too():
    network = timm.create_model("resnet10t", features_only=True, out_indices=(2, 4)).double()
    model = convert_norms(network, "dsbn", DOMAINS)
    image = torch.randn(4, 3, 64, 64, dtype=torch.float64)

    def loss():
        return sum(features.square().sum() for features in model(image, FIRST))

    parameters = list(model.parameters())
    wanted = torch.autograd.grad(loss(), parameters)
    model.backbone.set_grad_checkpointing(True)
    torch.testing.assert_close(torch.autograd.grad(loss(), parameters), wanted)
