import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from domainnorm.data import DomainDataModule, Loading, Preprocessing
from domainnorm.data.augmentation.degradation import Degradation, bicubic
from domainnorm.data.datasets import Scans
from domainnorm.data.sampler import Draw

WORSE = Degradation(scale=2, noise=0.05)
PREPROCESSING = Preprocessing(32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def scans():
    return Scans(per_domain=40)


def make(scans, **loading):
    return DomainDataModule(
        scans,
        domain_names=["clean", "colour_cast"],
        labelled=["clean"],
        unlabelled=["colour_cast"],
        preprocessing=PREPROCESSING,
        augment={"default": [{"name": "HorizontalFlip", "p": 0.5}]},
        loading=Loading(batch_size=8, degrade=WORSE, **loading),
    )


def shares(image):
    mean, std = (
        torch.tensor(one)[:, None, None] for one in (PREPROCESSING.mean, PREPROCESSING.std)
    )
    return image * std + mean


def test_fewer_pixels_are_those_of_pillow():
    image = torch.rand(1, 24, 36)
    small = Image.fromarray(image[0].numpy()).resize((9, 6), Image.Resampling.BICUBIC)
    back = np.array(small.resize((36, 24), Image.Resampling.BICUBIC))
    expected = torch.from_numpy(back)[None].clamp(0, 1)
    assert_close(Degradation(scale=4)(image, (0,)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (33, 30), (5, 7)])
def test_size_stays(size):
    image = torch.rand(3, *size)
    assert WORSE(image, (0,)).shape == image.shape


def test_noise_has_its_standard_deviation():
    image = torch.full((3, 64, 64), 0.5)
    noise = Degradation(noise=0.05)(image, (0,)) - image
    assert noise.std().item() == pytest.approx(0.05, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)


def test_values_stay_between_black_and_white():
    image = torch.rand(3, 16, 16).round()
    worse = Degradation(scale=2, noise=0.5)(image, (0,))
    assert 0 <= float(worse.min()) <= float(worse.max()) <= 1


def test_seed_decides_about_noise_alone():
    image = torch.rand(3, 16, 16)
    assert WORSE(image, (1, 2)).equal(WORSE(image, (1, 2)))
    assert not WORSE(image, (1, 2)).equal(WORSE(image, (1, 3)))
    assert Degradation(scale=2)(image, (1,)).equal(Degradation(scale=2)(image, (2,)))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_the_small_image(channels):
    image = torch.rand(channels, 32, 48)
    small = bicubic(image, (16, 24)).clamp(0, 1)
    pixels = (255 * small).round().byte().movedim(0, 2).numpy()
    shown = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    stream = io.BytesIO()
    shown.save(stream, format="JPEG", quality=20, subsampling="4:2:0")
    read = torch.from_numpy(np.array(Image.open(stream)).reshape(pixels.shape)).movedim(2, 0) / 255
    expected = bicubic(read.contiguous(), (32, 48)).clamp(0, 1)
    found = Degradation(scale=2, jpeg=20)(image, (0,))
    assert found.shape == image.shape
    assert float((found - expected).abs().mean()) < 0.01  # decoders round otherwise
    assert float((found - bicubic(small, (32, 48))).abs().mean()) > 0.02


def test_quality_is_drawn_within_its_range_by_the_seed():
    image = torch.rand(3, 16, 16)
    drawn = {Degradation(jpeg=[10, 12])(image, (seed,)).sum().item() for seed in range(30)}
    fixed = {Degradation(jpeg=one)(image, (0,)).sum().item() for one in (10, 11, 12)}
    assert drawn == fixed
    assert Degradation(jpeg=[10, 90])(image, (5,)).equal(Degradation(jpeg=[10, 90])(image, (5,)))


def test_noise_comes_before_compression():
    grey = torch.full((3, 32, 32), 0.5)
    found = Degradation(noise=0.2, jpeg=1)(grey, (0,))
    assert len(found.unique()) < len(Degradation(noise=0.2)(grey, (0,)).unique())
    assert_close(found, (255 * found).round() / 255)  # values of a file


def test_target_is_the_image_before(scans):
    batch = next(iter(make(scans).evaluation_dataloader("clean")))
    clean = shares(PREPROCESSING(scans.image(int(batch["index"][0]))))
    assert_close(batch["target"][0], clean.clamp(0, 1))
    again = WORSE(batch["target"][0], (0, int(batch["index"][0])))
    assert_close(shares(batch["image"][0]), again, rtol=0, atol=1e-5)


def test_steps_of_augmentation_come_before(scans):
    data = make(scans)
    view = data.train_dataloader().dataset
    for seed in range(6):
        sample = view[Draw(0, seed)]
        clean = shares(data.training_pipelines["clean"](scans.image(view.positions[0]), seed))
        assert_close(sample["target"], clean.clamp(0, 1))
        assert float((shares(sample["image"]) - clean).abs().mean()) < 0.1


def test_training_draws_new_noise_and_tests_the_same(scans):
    data = make(scans)
    view = data.train_dataloader().dataset
    assert not view[Draw(0, 1)]["image"].equal(view[Draw(0, 2)]["image"])
    test = data.evaluation_dataloader("clean").dataset
    assert test[0]["image"].equal(test[0]["image"])
    noise = [test[n]["image"] - PREPROCESSING(scans.image(test.positions[n])) for n in (0, 1)]
    assert not torch.allclose(*noise)


def test_clean_images_of_unlabelled_domains_are_hidden(scans):
    for batch in make(scans).train_dataloader():
        hidden = batch["domain"] == 1
        assert bool((batch["target"][hidden] == -1).all())
        assert bool((batch["target"][~hidden] >= 0).all())
    for batch in make(scans).domain_dataloader("train", domains=["clean"]):
        assert bool((batch["target"] == -1).all())


def test_images_without_labels_are_images_to_learn_from(scans):
    unlabelled = scans.without_labels(["clean"])
    batch = next(iter(make(unlabelled).train_dataloader()))
    assert bool(batch["labelled"].any())
    assert bool((batch["target"][batch["labelled"]] >= 0).all())
