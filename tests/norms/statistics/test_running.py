import copy

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.norms import create_norm
from domainnorm.norms.statistics import running
from domainnorm.norms.statistics.running import RunningMoments

MIXED = Condition(domain=torch.tensor([0, 1, 0, 1]))


def apply(norm, x, condition=MIXED):
    with norm.slot.holding(condition):
        return norm(x)


@pytest.mark.parametrize("name", ["cin", "dsbn", "cbn"])
def test_stride_below_one_is_refused(name):
    with pytest.raises(DomainNormError, match=r"stride: got 0, expected 1 \(every pixel\) or more"):
        create_norm(name, 4, 2, stride=0)


def test_stride_that_leaves_one_pixel_to_instance_statistics_is_refused():
    norm = create_norm("cin", 4, 2, stride=5, path="stem.norm")
    with pytest.raises(ConditionError, match=r"stem\.norm: instance statistics of a map with one"):
        apply(norm, torch.randn(4, 4, 5, 5))


@pytest.mark.parametrize("name", ["cin", "dsbn", "cbn"])
def test_stride_of_a_map_that_repeats_its_pixels_changes_nothing(name):
    x = torch.randn(4, 3, 8, 8).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    sparse = create_norm(name, 3, 2, stride=2)
    torch.testing.assert_close(apply(sparse, x), apply(create_norm(name, 3, 2), x))


def test_running_moments_are_those_of_the_sampled_pixels():
    norm, x = create_norm("dsbn", 3, 2, stride=2, momentum=1.0), torch.randn(4, 3, 7, 7)
    apply(norm, x)
    sampled = x[[0, 2]][:, :, ::2, ::2]
    torch.testing.assert_close(norm.statistics.running_mean[0], sampled.mean((0, 2, 3)))
    torch.testing.assert_close(norm.statistics.running_var[0], sampled.var((0, 2, 3)))


def test_single_sampled_pixel_of_a_domain_gets_no_gradient_from_its_moments():
    norm = create_norm("dsbn", 3, 2, stride=2).double()
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    condition = Condition(domain=torch.tensor([0, 0, 0, 1]))
    apply(norm, x, condition)[3].sum().backward()
    rstd = (1 + norm.statistics.eps) ** -0.5
    torch.testing.assert_close(x.grad[3], torch.full_like(x.grad[3], rstd))


def test_one_domain_with_a_scale_per_sample_uses_every_scale():
    norm = create_norm("dsbn", 3, 2)
    x, scale = torch.randn(4, 3, 5, 5), torch.rand(4, 3, requires_grad=True)
    condition = Condition(domain=torch.tensor([1, 1, 1, 1]))
    output = norm.statistics(x, scale, torch.zeros(4, 3), condition)
    wanted = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(output, wanted * scale[:, :, None, None])


def test_equal_scales_of_one_domain_get_a_gradient_each():
    norm = create_norm("dsbn", 3, 1)
    scale = torch.ones(4, 3, requires_grad=True)
    condition = Condition(domain=torch.zeros(4, dtype=torch.long))
    norm.statistics(torch.randn(4, 3, 5, 5), scale, torch.zeros(4, 3), condition).pow(
        3
    ).sum().backward()
    assert (scale.grad != 0).all()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [1, 1, 1, 1]])
def test_condition_first_used_in_inference_mode_serves_training(labels):
    norm, condition = create_norm("dsbn", 3, 2), Condition(domain=torch.tensor(labels))
    x = torch.randn(4, 3, 5, 5)
    with torch.inference_mode():
        apply(copy.deepcopy(norm), x, condition)
    apply(norm, x, condition).square().sum().backward()
    assert norm.modulation.scale.grad is not None


@pytest.mark.parametrize("channels_last", [False, True])
def test_evaluation_with_and_without_gradients_agrees(channels_last):
    norm, x = create_norm("dsbn", 3, 2), torch.randn(4, 3, 6, 5) + 1
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    apply(norm, x)
    norm.eval()
    traced = apply(norm, x)
    with torch.no_grad():
        torch.testing.assert_close(apply(norm, x), traced)


@pytest.mark.parametrize("name", ["cbn", "dsbn"])
def test_frozen_moments_normalize_in_training_and_stay(name):
    norm = create_norm(name, 4, 2, frozen=True).train()
    norm.statistics.running_mean.normal_()
    norm.statistics.running_var.uniform_(0.5, 1.5)
    before = copy.deepcopy(norm.statistics.state_dict())
    x = torch.randn(4, 4, 3, 3)
    trained = apply(norm, x)
    torch.testing.assert_close(trained, apply(norm.eval(), x))
    for key, value in norm.statistics.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(("name", "shared"), [("film", False), ("bn", True)])
def test_ranks_of_one_sample_take_the_way_of_the_others(monkeypatch, name, shared):
    ways = []
    monkeypatch.setattr(RunningMoments, "synchronizes", True)
    monkeypatch.setattr(running, "normalize_batch", lambda *given: ways.append(given[-2]))
    for labels in ([1], [0, 1, 1]):
        norm = create_norm(name, 4, 2)
        x = torch.randn(len(labels), 4, 5, 5)
        scale, shift = norm.modulation(Condition(domain=torch.tensor(labels)), x)
        norm.statistics(x, scale, shift, Condition(domain=torch.tensor(labels)), rows=shared)
    assert [way is None for way in ways] == [not shared] * 2
