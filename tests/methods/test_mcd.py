import copy
import functools

import torch
from torch.testing import assert_close

from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, fit, make, make_model
from tests.reference.adaptation import mcd


def by_gradient(method, loss, numbers, rate):
    """A plain gradient step of the optimizers that are named, or all."""
    groups = [list(group) for group in method.optimized()]
    chosen = [p for number in numbers or range(len(groups)) for p in groups[number]]
    chosen = [p for p in chosen if p.requires_grad]
    gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
    with torch.no_grad():
        for p, gradient in zip(chosen, gradients, strict=True):
            if gradient is not None:
                p.sub_(rate * gradient)


class Plain(METHODS.load("mcd")):
    rate = 0.05

    def step(self, loss, *numbers):
        by_gradient(self, loss, numbers, self.rate)


class Features(torch.nn.Module):
    """A copy of a model without its classifier, on images and their domains."""

    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.backbone.reset_classifier(0)

    def forward(self, images_and_domains):
        return self.model(*images_and_domains)


def batch_of(images):
    return {
        "image": images,
        "target": torch.tensor([3, 1, 4, 1, -1, -1, -1]),
        "domain": torch.tensor([0, 0, 0, 0, 1, 1, 1]),
        "labelled": torch.tensor([True] * 4 + [False] * 3),
    }


close = functools.partial(assert_close, rtol=0, atol=5e-8)  # the task's loss is in float32


def test_steps_are_those_of_two_classifiers():
    method = make(Plain, make_model(), generator_steps=3).double().train()
    generator, head = Features(method.model), method.model.backbone.get_classifier()
    classifiers = [torch.nn.Linear(head.in_features, 10).double() for _ in range(2)]
    for classifier, sign in zip(classifiers, (1, -1), strict=True):
        state = {k: v + sign * method.apart.state_dict()[k] for k, v in head.state_dict().items()}
        classifier.load_state_dict(state)
    batch = batch_of(torch.rand(7, 3, 32, 32).double())
    method.losses(batch)
    source, target = (
        (batch["image"][rows], batch["domain"][rows]) for rows in (slice(4), slice(4, 7))
    )
    rates = {"lr": Plain.rate, "classifier_lr": 2 * Plain.rate}
    mcd(generator, classifiers, source, batch["target"][:4], target, steps=3, **rates)
    found = dict(method.named_parameters())
    for name, parameter in generator.named_parameters():
        close(found[name], parameter, msg=name)
    mean = (classifiers[0].weight + classifiers[1].weight) / 2
    close(head.weight, mean)
    half = (classifiers[0].weight - classifiers[1].weight) / 2
    close(method.apart.weight, half)


class Watched(METHODS.load("mcd")):
    """Notes what each step has changed."""

    def losses(self, batch):
        self.moved = []
        return super().losses(batch)

    def step(self, loss, *numbers):
        before = copy.deepcopy(self.state_dict())
        super().step(loss, *numbers)
        after = self.state_dict()
        self.moved.append({name for name in before if not torch.equal(before[name], after[name])})


def test_each_kind_of_step_moves_what_it_says():
    method = fit(Watched, make_model(), ONE, generator_steps=2).method
    classifiers = {"model.backbone.fc.weight", "model.backbone.fc.bias", "apart.weight"}
    classifiers.add("apart.bias")
    first, second, *others = method.moved
    assert classifiers < first
    assert second == classifiers
    assert len(others) == 2
    assert all(one and not one & classifiers for one in others)


def test_moments_follow_each_image_once_a_batch():
    method = make(Plain, make_model(), generator_steps=3)
    method.rate = 0.0
    plain = copy.deepcopy(method.model).train()
    batch = batch_of(torch.rand(7, 3, 32, 32))
    method.train().losses(batch)
    for rows in (slice(4), slice(4, 7)):
        plain(batch["image"][rows], batch["domain"][rows])
    for name, tensor in plain.state_dict().items():
        assert_close(method.model.state_dict()[name], tensor, msg=name)


def test_what_is_deployed_is_the_mean_of_both_classifiers():
    method = fit("mcd", make_model(), ONE, generator_steps=1).method.eval()
    batch = batch_of(torch.rand(7, 3, 32, 32))
    with torch.no_grad():
        first, second = method.classified(batch)
        assert_close((first + second) / 2, method.deployed(batch["image"], batch["domain"]))
    assert float((first - second).abs().max()) > 0.01
    assert not any(name.startswith("apart") for name in method.deployed.state_dict())


def test_masks_have_two_maps_of_their_size():
    model = create_segmentation_model("test_resnet", 3, "cin", ONE.all, decoder="fpn", width=32)
    method = Plain(model, Segmentation(["a", "b", "c"]), ONE, generator_steps=1)
    batch = {
        "image": torch.rand(3, 3, 64, 64),
        "target": torch.tensor([1, 0, -1])[:, None, None].expand(3, 64, 64),
        "domain": torch.tensor([0, 0, 1]),
        "labelled": torch.tensor([True, True, False]),
    }
    first, second = method.classified(batch)
    assert first.shape == second.shape == (3, 3, 64, 64)
    losses = method.losses(batch)
    assert all(bool(loss.isfinite()) for loss in losses.values())
