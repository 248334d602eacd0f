from __future__ import annotations

import numpy as np
import pytest
import torch

from domainnorm.data.class_counts import ClassCounts
from domainnorm.data.dataset import DomainDataset, Record
from domainnorm.data.masks import VOID
from domainnorm.tasks import Segmentation
from tests.reference.losses import cross_entropy, focal, median_frequency_weights

MASKS = [[0, 0, 0, 1], [0, 2, VOID, VOID], [0, 0, 0, 0], [3, 3, 3, 3]]


class Masks(DomainDataset):
    """Masks of 2 × 2 pixels of five classes, the last of which does not occur; one has no mask."""

    task = "segmentation"

    def __init__(self):
        self.class_names = list("abcde")
        names = [f"{n}.png" for n in range(len(MASKS))] + [None]
        self.records = [Record(f"{name}", "a", -1, "", "train", mask=name) for name in names]

    def image(self, index):
        raise AssertionError("only masks are read")

    def mask(self, index):
        return np.array(MASKS[index], np.uint8).reshape(2, 2)


def weighted(**options):
    task = Segmentation(list("abcde"), class_weights="balanced", **options)
    task.weigh_classes(ClassCounts(Masks()).frequency([0, 1, 2, 4]))
    return task


def test_frequency_is_the_share_of_labelled_pixels_where_a_class_occurs():
    found = ClassCounts(Masks()).frequency([0, 1, 2, 4])
    assert found.tolist() == [8 / 10, 1 / 4, 1 / 2, 0, 0]


def test_images_that_are_not_asked_for_are_not_read():
    assert ClassCounts(Masks()).frequency([3]).tolist() == [0, 0, 0, 1, 0]


def test_weights_are_those_of_median_frequency_balancing():
    expected = median_frequency_weights(MASKS[:3], 5)
    torch.testing.assert_close(weighted().class_weight, torch.tensor(expected))
    assert expected == pytest.approx([0.5 / 0.8, 2, 1, 0, 0])


def test_weights_reach_cross_entropy_and_focal_loss_with_its_gamma():
    logits = torch.randn(2, 5, 1, 3)
    target = torch.tensor([[[0, 1, -1]], [[2, 2, 0]]])
    rows = logits.movedim(1, -1).reshape(-1, 5).tolist()
    given = rows, target.flatten().tolist()
    weight = median_frequency_weights(MASKS[:3], 5)
    expected = cross_entropy(*given, weight) + 3 * focal(*given, 1.5, weight)
    found = weighted(focal_weight=3.0, focal_gamma=1.5).loss(logits, target)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_weights_are_no_part_of_a_checkpoint():
    assert weighted().state_dict() == {}


def test_classes_without_weight_have_no_loss():
    logits = torch.randn(1, 5, 1, 2, requires_grad=True)
    loss = weighted(focal_weight=1.0).loss(logits, torch.tensor([[[3, 4]]]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_frequency_is_that_of_masks_at_their_own_size():
    class Resized(Masks):
        def mask(self, index):
            raise AssertionError("a copy of the size of the input is not what is counted")

        def original_mask(self, index):
            return Masks.mask(self, index)

    assert torch.equal(
        ClassCounts(Resized()).frequency([0, 1]), ClassCounts(Masks()).frequency([0, 1])
    )


def test_no_masks_at_all_leave_the_classes_as_they_are():
    task = Segmentation(list("abcde"), class_weights="balanced")
    task.weigh_classes(ClassCounts(Masks()).frequency([]))
    assert task.class_weight is None


def test_a_mask_is_read_once_for_all_who_ask():
    class Once(Masks):
        def __init__(self):
            super().__init__()
            self.read = []

        def mask(self, index):
            self.read.append(index)
            return super().mask(index)

    dataset = Once()
    counts = ClassCounts(dataset)
    counts.frequency([0, 1])
    assert counts.of([1, 2, 4]).tolist() == [[1, 0, 1, 0, 0], [4, 0, 0, 0, 0], [0] * 5]
    assert sorted(dataset.read) == [0, 1, 2]
