import pytest
import torch
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.losses import adversarial_loss, reversed_gradient
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, fit, make_model
from tests.reference.adaptation import binary_cross_entropy, dann_ramp


def test_loss_of_the_adversary_is_that_of_the_paper():
    source, target = torch.randn(5, 1, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float64)
    expected = (
        sum(binary_cross_entropy(float(x), 1) for x in source) / 5
        + sum(binary_cross_entropy(float(x), 0) for x in target) / 3
    ) / 2
    assert float(adversarial_loss(source, target)) == pytest.approx(expected, rel=1e-12)


def test_adversary_needs_both_roles():
    with pytest.raises(DomainNormError, match="0 source and 2 target logits"):
        adversarial_loss(torch.empty(0, 1), torch.zeros(2, 1))


def test_gradient_is_reversed_and_values_stay():
    x = torch.randn(3, requires_grad=True)
    y = reversed_gradient(x, 0.25)
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert_close(y, x)
    assert_close(x.grad, torch.tensor([-0.25, -0.5, -0.75]))


class Watched(METHODS.load("dann")):
    """Compares each step's gradients with those of the loss written out."""

    checked = 0

    def training_step(self, batch, batch_idx):
        total = super().training_step(batch, batch_idx)
        features, logits = self.features(batch)
        known, told = batch["labelled"], self.discriminator(features)
        supervised = self.task.loss(logits[known], batch["target"][known])
        domain = self.domain_weight * adversarial_loss(told[known], told[~known])
        network = [p for p in self.model.parameters() if p.requires_grad]
        found = torch.autograd.grad(total, network, retain_graph=True)
        own = torch.autograd.grad(supervised, network, retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(domain, network, retain_graph=True, allow_unused=True)
        ramp = dann_ramp(self.progress)
        for gradient, plus, minus in zip(found, own, other, strict=True):
            expected = (0 if plus is None else plus) - ramp * (0 if minus is None else minus)
            assert_close(gradient, torch.zeros_like(gradient) + expected, rtol=1e-6, atol=1e-9)
        type(self).checked += 1
        return total


def test_network_descends_on_the_task_and_climbs_on_the_adversary():
    fit(Watched, make_model(), ONE, epochs=2, precision="64-true", hidden=8)
    assert Watched.checked > 2


def test_discriminator_is_trained_and_counted():
    done = fit("dann", make_model(), ONE, hidden=8)
    held = {id(p) for o in done.trainer.optimizers for g in o.param_groups for p in g["params"]}
    own = list(done.method.discriminator.parameters())
    assert {id(parameter) for parameter in own} <= held
    plain = fit("joint", make_model(), ONE).method.trained_parameters
    assert done.method.trained_parameters == plain + sum(p.numel() for p in own)


def test_masks_are_told_apart_by_cells_of_a_grid():
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, width=16)
    method = METHODS.load("dann")(model, Segmentation(["a", "b", "c"]), ONE, hidden=8)
    batch = {
        "image": torch.rand(4, 3, 64, 64),
        "target": torch.tensor([0, 1, -1, -1])[:, None, None].expand(4, 64, 64),
        "domain": torch.tensor([0, 0, 1, 1]),
        "labelled": torch.tensor([True, True, False, False]),
    }
    shapes = []
    method.discriminator.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape)))
    type(method).progress = property(lambda self: 0.5)
    try:
        losses = method.losses(batch)
    finally:
        del type(method).progress
    assert shapes == [(4, 64, 1)]
    assert set(losses) == {"supervised", "domain"}
