import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods.samples import by_role, cells, joined, pixels
from domainnorm.registry import METHODS
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.multilabel import MultiLabel
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import ONE, make_model


def test_cells_are_means_over_a_grid_and_images_one_cell():
    maps = torch.randn(2, 3, 16, 24)
    found = cells(maps)
    assert found.shape == (2, 64, 3)
    assert_close(found[1, 8], maps[1, :, 2:4, 0:3].mean((1, 2)))
    assert_close(cells(maps[:, :, 0, 0]), maps[:, None, :, 0, 0])


def test_pixels_come_in_equal_parts_from_the_classes_of_an_image():
    maps = torch.zeros(2, 3, 40, 50)
    maps[:, 0] = 1
    maps[0, 1, :2] = 2  # 100 of 2,000 pixels
    found = pixels(maps)
    assert found.shape == (2, 3, 64)
    of_image, of_other = found.argmax(1)
    assert 20 < int((of_image == 1).sum()) < 44
    assert int((of_other == 0).sum()) == 64


def test_no_pixel_is_drawn_twice_and_small_masks_are_taken_whole():
    maps = torch.arange(70.0).reshape(1, 1, 7, 10)
    assert len(set(pixels(maps)[0, 0].tolist())) == 64
    assert sorted(pixels(maps[:, :, :2])[0, 0].tolist()) == list(range(20))


def test_gradients_reach_the_pixels_that_were_drawn():
    maps = torch.randn(2, 3, 9, 9, requires_grad=True)
    pixels(maps).sum().backward()
    assert maps.grad.sum() == 2 * 3 * 64


def test_samples_of_images_go_by_their_role():
    images, known = torch.randn(3, 2, 5), torch.tensor([True, False, True])
    source, target = by_role(images, known)
    assert_close(source, images[[0, 2]].reshape(4, 5))
    assert_close(target, images[1])
    assert joined(images) is images  # one process


ON_MASKS = ["bnm", "cdan", "coral", "dann", "infomax", "mcc", "mmd"]


@pytest.mark.parametrize("name", ON_MASKS)
def test_masks_have_losses_of_each_role(name):
    class Halfway(METHODS.load(name)):
        progress = 0.5

    model = create_segmentation_model("test_resnet", 3, "cin", ONE.all, width=16)
    method = Halfway(model, Segmentation(["a", "b", "c"]), ONE)
    image = torch.rand(3, 3, 64, 64, requires_grad=True)
    batch = {
        "image": image,
        "target": torch.tensor([1, 0, -1])[:, None, None].expand(3, 64, 64),
        "domain": torch.tensor([0, 0, 1]),
        "labelled": torch.tensor([True, True, False]),
    }
    losses = method.losses(batch)
    assert len(losses) == 2
    (own,) = torch.autograd.grad(losses.pop("supervised"), image, retain_graph=True)
    assert not bool(own[2].any())
    (loss,) = losses.values()
    (other,) = torch.autograd.grad(loss, image)
    both_roles = name not in ("bnm", "infomax", "mcc")
    assert other.flatten(1).any(1).tolist() == [both_roles, both_roles, True]


@pytest.mark.parametrize("name", ["coral", "dann", "mmd"])
def test_findings_are_aligned_too(name):
    class Halfway(METHODS.load(name)):
        progress = 0.5

    method = Halfway(make_model(), MultiLabel([str(number) for number in range(10)]), ONE)
    batch = {
        "image": torch.rand(4, 3, 32, 32),
        "target": torch.tensor([0, 1, -1, -1])[:, None].expand(4, 10),
        "domain": torch.tensor([0, 0, 1, 1]),
        "labelled": torch.tensor([True, True, False, False]),
    }
    assert all(bool(loss.isfinite()) for loss in method.losses(batch).values())


@pytest.mark.slow
def test_kernels_compare_no_more_cells_than_fit():
    sizes = []

    class Given(METHODS.load("mmd")):
        def features(self, batch):
            return torch.randn(40, 3, 8, 8, requires_grad=True), torch.zeros(40, 1)

    def seen(tensor):
        sizes.append(tensor.numel())
        return tensor

    method = Given(make_model(), MultiLabel(["a"]), ONE)
    batch = {"target": torch.zeros(40, 1), "labelled": torch.arange(40) < 20}
    with torch.autograd.graph.saved_tensors_hooks(seen, seen):
        method.losses(batch)
    assert max(sizes) == (40 * 51) ** 2  # 51 cells of each image
