import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods.dsbn2 import followed
from tests.methods.bench import METHODS, ONE, changed, fit, make_model
from tests.reference.adaptation import (
    binary_cross_entropy,
    centroids_after,
    dann_ramp,
    mean_square,
)
from tests.reference.losses import cross_entropy


class Watched(METHODS.load("dsbn2")):
    """Compares each loss with one written out, from copies made before the step."""

    stages = ()

    def losses(self, batch):
        model, discriminator = copy.deepcopy(self.model), copy.deepcopy(self.discriminator)
        first = copy.deepcopy(self.first)
        former = [c.tolist() for c in (self.source_centroids, self.target_centroids)]
        losses = super().losses(batch)
        found = {name: float(loss.detach()) for name, loss in losses.items()}
        known = batch["labelled"]
        with torch.no_grad():
            features, logits = self.features(batch, model=model)  # its moments follow this batch
            own = copy.deepcopy(model).eval()(batch["image"][~known], batch["domain"][~known])
        true = batch["target"][known].tolist()
        expected = {"supervised": cross_entropy(logits[known].tolist(), true)}
        if "centroids" in found:
            weight = dann_ramp(self.progress / self.first_stage)
            labels = [true, own.argmax(1).tolist()]
            parts = [features[known].tolist(), features[~known].tolist()]
            moved = [
                centroids_after(old, part, label, 0.7)
                for old, part, label in zip(former, parts, labels, strict=True)
            ]
            told = [
                discriminator(part).flatten().tolist()
                for part in (features[known], features[~known])
            ]
            sides = [
                sum(binary_cross_entropy(x, label) for x in side) / len(side)
                for side, label in zip(told, (1, 0), strict=True)
            ]
            expected["domain"] = weight * 0.1 * sum(sides) / 2
            expected["centroids"] = weight * mean_square(*moved)
            assert_close(self.source_centroids.tolist(), moved[0])
            assert_close(self.target_centroids.tolist(), moved[1])
        else:
            weight = dann_ramp((self.progress - self.first_stage) / (1 - self.first_stage))
            teacher = first.model if bool(first.taken) else model
            with torch.no_grad():
                told = copy.deepcopy(teacher).eval()(
                    batch["image"][~known], batch["domain"][~known]
                )
            label = ((1 - weight) * told + weight * own).argmax(1).tolist()
            expected["target"] = cross_entropy(logits[~known].tolist(), label)
        assert found == pytest.approx(expected, rel=1e-9)
        type(self).stages = (*self.stages, "centroids" in found)
        return losses


def test_losses_of_both_stages_are_those_of_the_paper():
    options = {"precision": "64-true", "hidden": 8, "first_stage": 0.4}
    done = fit(Watched, make_model(), ONE, epochs=4, batch_size=12, **options)
    stages = Watched.stages
    assert sum(stages) == -(-4 * len(stages) // 10)
    assert list(stages) == sorted(stages, reverse=True)
    assert bool(done.method.first.taken)
    assert changed(done.model.state_dict(), done.method.first.model)


def test_classes_that_a_batch_lacks_keep_their_centroids_and_pull_at_nothing():
    former = torch.randn(3, 2)
    features = torch.randn(2, 2, requires_grad=True)
    found = followed(former, features, torch.tensor([1, 1]), 0.7)
    assert torch.equal(found[[0, 2]], former[[0, 2]])
    found[[0, 2]].sum().backward()
    assert not features.grad.any()


def test_one_stage_alone_is_mstn():
    done = fit("dsbn2", make_model(), ONE, first_stage=1.0, hidden=8, epochs=2)
    assert not bool(done.method.first.taken)
    assert done.method.source_centroids.any()


def test_predictions_in_evaluation_mode_move_no_moments():
    method = fit("dsbn2", make_model(), ONE, hidden=8).method
    before = copy.deepcopy(method.model.state_dict())
    batch = {"image": torch.rand(2, 3, 32, 32), "domain": torch.tensor([1, 1])}
    method._predicted(batch)
    assert not changed(before, method.model)
    assert method.model.training
