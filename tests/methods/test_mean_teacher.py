import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods.mixing import class_mix, cut_mix
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import METHODS, ONE, changed, fit, rows_changed, source_model
from tests.reference.adaptation import pseudo_labels
from tests.reference.losses import cross_entropy

TARGET = ONE.all.index("colour_cast")


class Watched(METHODS.load("mean_teacher")):
    """Compares each loss with one written out, from copies made before the step."""

    checked = learned = 0

    def losses(self, batch):
        student, teacher = copy.deepcopy(self.model), copy.deepcopy(self.deployed)
        losses = super().losses(batch)
        known = batch["labelled"]
        target = {name: value[~known] for name, value in batch.items()}
        told = teacher(target["image"], target["domain"]).tolist()
        labels = pseudo_labels(told, self.pseudo_labels.threshold)
        type(self).learned += max(labels) >= 0
        guessed = student(target["strong"], target["domain"])
        expected = cross_entropy(guessed.tolist(), labels) if max(labels) >= 0 else 0.0
        assert float(losses["target"].detach()) == pytest.approx(
            self.target_weight * expected, rel=1e-9
        )
        type(self).checked += 1
        return losses


@pytest.mark.slow
def test_loss_on_the_target_is_that_of_confident_labels_of_the_teacher():
    options = {"threshold": 0.1245, "target_weight": 0.5, "precision": "64-true"}
    fit(Watched, source_model(), ONE, epochs=3, batch_size=8, **options)
    assert Watched.checked > 3
    assert Watched.learned > 3


def test_tested_and_saved_is_the_teacher():
    method = fit("mean_teacher", source_model(), ONE).method
    assert method.deployed is method.teacher.module
    assert changed(method.model.state_dict(), method.deployed)


def test_rows_of_the_source_move_by_source_images_only():
    done = fit("mean_teacher", source_model(), ONE, lr=0.0, threshold=0.0)
    moments = {name for name in done.before if name.endswith("running_mean")}
    assert rows_changed(done.before, done.model, moments) == {0, TARGET}


def masks():
    image, source = torch.zeros(3, 3, 6, 6), torch.ones(2, 3, 6, 6)
    label = torch.full((3, 6, 6), 4)
    source_label = torch.tensor([[0, 0, 1, 2, 3, -1]] * 6).expand(2, 6, 6)
    return image, label, source, source_label


@pytest.mark.parametrize("seed", range(5))
def test_class_mix_pastes_half_of_the_classes_with_their_labels(seed):
    torch.manual_seed(seed)
    image, label, source, source_label = masks()
    mixed, [(share, found)], known = class_mix(image, label, source, source_label)
    assert share == 1.0
    for number in range(3):
        pasted = mixed[number, 0] == 1
        assert torch.equal(pasted, known[number])
        classes = set(source_label[number % 2][pasted].tolist())
        assert len(classes) == 2
        assert -1 not in classes
        assert torch.equal(pasted, torch.isin(source_label[0], torch.tensor(sorted(classes))))
        assert torch.equal(found[number], torch.where(pasted, source_label[0], label[number]))


@pytest.mark.parametrize("seed", range(5))
def test_cut_mix_pastes_one_box_of_the_image_before(seed):
    torch.manual_seed(seed)
    image = torch.arange(3.0)[:, None, None, None].expand(3, 3, 8, 10)
    mixed, labels, _ = cut_mix(image, torch.tensor([0, 1, 2]))
    pasted = mixed[1, 0] == 0
    rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
    assert bool(pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all())
    (own, first), (other, second) = labels
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [2, 0, 1])
    assert other == pytest.approx(float(pasted.float().mean()))
    assert own + other == pytest.approx(1)


def test_cut_mix_of_masks_pastes_their_labels():
    image = torch.arange(3.0)[:, None, None, None].expand(3, 3, 8, 8)
    label = torch.arange(3)[:, None, None].expand(3, 8, 8)
    mixed, [(share, found)], _ = cut_mix(image, label)
    assert share == 1.0
    assert_close(mixed[:, 0], found.float())


@pytest.mark.parametrize("mix", ["none", "cut", "class"])
def test_masks_are_learned_with_every_mix(mix):
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, width=16)
    kind = METHODS.load("mean_teacher")
    method = kind(model, Segmentation(["a", "b", "c"]), ONE, mix=mix, threshold=0.0)
    batch = {
        "image": torch.rand(4, 3, 64, 64),
        "strong": torch.rand(4, 3, 64, 64),
        "target": torch.tensor([0, 1, -1, -1])[:, None, None].expand(4, 64, 64).clone(),
        "domain": torch.tensor([0, 0, 1, 1]),
        "labelled": torch.tensor([True, True, False, False]),
    }
    losses = method.losses(batch)
    assert set(losses) == {"supervised", "target"}
    assert all(bool(loss.isfinite()) and loss.requires_grad for loss in losses.values())
