import math

import numpy as np
import pytest

from domainnorm.data import Preprocessing
from domainnorm.data.augmentation.corruptions import Corruption, corrupt
from domainnorm.data.augmentation.twins import TwinDataset
from domainnorm.data.datasets import Scans
from domainnorm.errors import DataError
from domainnorm.ranges import CORRUPTIONS

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


def twins(dataset, domains, name, severity):
    return TwinDataset(dataset, domains, "_corrupted", Corruption(name, severity))


def picture(height=224, width=224):
    """Smooth colours with edges, 0.1 to 0.9."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    parts = [0.5 + 0.4 * np.sin(7 * x), 0.5 + 0.4 * np.cos(9 * y), 0.3 + 0.4 * (x + y > 1)]
    return (255 * np.stack(parts, -1)).astype(np.uint8)


def grey(value=0.5, size=224):
    return np.full((size, size, 3), round(255 * value), np.uint8)


def difference(name, severity, image=None):
    image = picture() if image is None else image
    return float(np.abs(corrupt(image, name, severity).astype(float) - image).mean())


@every_corruption
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (60, 96), (1, 7)])
def test_images_of_any_size_keep_it(name, size):
    found = corrupt(picture(*size), name, 5)
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8


@every_corruption
def test_worse_is_worse_and_the_same_seed_is_the_same(name):
    if name != "elastic_transform":  # two regimes, of which the second is shorter waves
        assert difference(name, 5) > difference(name, 1) > 0.5
    else:
        assert difference(name, 5) > difference(name, 3) > 0.5
    image = picture(64, 64)
    assert np.array_equal(corrupt(image, name, 3, seed=4), corrupt(image, name, 3, seed=4))
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate"):
        changed = corrupt(image, name, 3, seed=5)
        assert name == "jpeg_compression" or not np.array_equal(
            corrupt(image, name, 3, seed=4), changed
        )


@every_corruption
def test_neither_the_image_nor_the_global_generator_is_touched(name):
    image = picture(48, 48)
    before, state = image.copy(), np.random.get_state()[1].copy()
    corrupt(image, name, 4)
    assert np.array_equal(image, before)
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(("severity", "std"), [*enumerate((0.08, 0.12, 0.18, 0.26, 0.38), 1)])
def test_gaussian_noise_has_the_published_deviation(severity, std):
    found = corrupt(grey(), "gaussian_noise", severity) / 255
    inner = (found > 0) & (found < 0.99)  # what is cut off tells nothing
    expected = 0.5 * (1 + math.erf(0.25 / std / math.sqrt(2)))
    assert abs((found[inner] < 0.75).mean() - _given_inner(expected, std)) < 0.01


def _given_inner(share_below, std):
    """P(x < 0.75 | 0 < x < 0.99) of a normal distribution around a half."""

    def below(value):
        return 0.5 * (1 + math.erf((value - 0.5) / std / math.sqrt(2)))

    return (share_below - below(0)) / (below(0.99) - below(0))


@pytest.mark.parametrize(("severity", "photons"), [*enumerate((60, 25, 12, 5, 3), 1)])
def test_shot_noise_counts_the_published_photons(severity, photons):
    found = corrupt(grey(0.2), "shot_noise", severity) / 255
    levels = np.unique(np.round(found * photons))
    assert np.abs(found * photons - np.round(found * photons)).max() < photons / 255 + 1e-9
    assert len(levels) > 2
    value = round(255 * 0.2) / 255
    if photons > 10:
        assert abs(found.mean() - value) < 0.01
        assert abs(found.std() - math.sqrt(value / photons)) < 0.01


@pytest.mark.parametrize(("severity", "share"), [*enumerate((0.03, 0.06, 0.09, 0.17, 0.27), 1)])
def test_impulse_noise_hits_the_published_share(severity, share):
    found = corrupt(grey(), "impulse_noise", severity)
    assert abs((found == 0).mean() - share / 2) < 0.005
    assert abs((found == 255).mean() - share / 2) < 0.005


@pytest.mark.parametrize(("severity", "kept"), [*enumerate((0.4, 0.3, 0.2, 0.1, 0.05), 1)])
def test_contrast_keeps_the_published_share(severity, kept):
    image = picture()
    found = corrupt(image, "contrast", severity)
    assert abs(found.std((0, 1)) / image.std((0, 1)) - kept).max() < 0.01


@pytest.mark.parametrize(("severity", "added"), [*enumerate((0.1, 0.2, 0.3, 0.4, 0.5), 1)])
def test_brightness_adds_the_published_value(severity, added):
    found = corrupt(grey(0.3), "brightness", severity) / 255
    assert abs(found.mean() - round(255 * 0.3) / 255 - added) < 0.005


@pytest.mark.parametrize(("severity", "share"), [*enumerate((0.6, 0.5, 0.4, 0.3, 0.25), 1)])
def test_pixelate_leaves_the_published_share_of_pixels(severity, share):
    found = corrupt(picture(), "pixelate", severity)
    changes = (np.abs(np.diff(found[0].astype(int), axis=0)).sum(1) > 0).sum()
    assert changes <= int(224 * share)
    assert len({tuple(row) for row in found[:, 0].tolist()}) <= int(224 * share) + 1


@pytest.mark.parametrize(("severity", "radius"), [*enumerate((3, 4, 6, 8, 10), 1)])
def test_defocus_spreads_a_point_over_the_published_disk(severity, radius):
    image = np.zeros((224, 224, 3), np.uint8)
    image[108:116, 108:116] = 255
    spread = np.flatnonzero(corrupt(image, "defocus_blur", severity)[112, :, 0] > 2)
    reach = (spread.max() - spread.min() + 1 - 8) / 2
    assert abs(reach - radius) <= 2
    small = np.zeros((112, 112, 3), np.uint8)
    small[54:58, 54:58] = 255
    half = np.flatnonzero(corrupt(small, "defocus_blur", severity)[56, :, 0] > 2)
    assert abs((half.max() - half.min() + 1 - 4) / 2 - radius / 2) <= 1.5


def test_motion_goes_along_a_line():
    image = np.zeros((224, 224, 3), np.uint8)
    image[112, 112] = 255
    y, x = np.nonzero(corrupt(image, "motion_blur", 5)[..., 0])
    assert 20 < np.hypot(np.ptp(y), np.ptp(x)) < 45
    line = np.polyfit(x, y, 1)
    assert abs(line[0]) <= 1.05
    assert np.abs(np.polyval(line, x) - y).max() < 1.5


def test_fog_is_white_and_smooth():
    found = corrupt(grey(0.2), "fog", 3) / 255
    assert np.array_equal(found[..., 0], found[..., 2])
    assert found.mean() < 0.2  # the brightest stays the brightest
    rows = np.abs(np.diff(found[..., 0], axis=0)).mean()
    assert rows < 0.1 * np.ptp(found)


def test_a_twin_has_the_same_images_corrupted():
    scans = Scans(per_domain=40)
    found = twins(scans, ["clean"], "contrast", 5)
    count = len(scans.records)
    assert found.domain_names == [*scans.domain_names, "clean_corrupted"]
    assert len(found.records) == count + 40
    for index in range(count, count + 40):
        twin, own = found.records[index], scans.records[found.originals[index]]
        assert twin.domain == "clean_corrupted"
        assert (twin.file, twin.target, twin.split, twin.group) == (
            own.file,
            own.target,
            own.split,
            own.group,
        )
        image, before = found.image(index), scans.image(found.originals[index])
        assert image.shape == before.shape
        assert image.std() < 0.2 * before.std()
        assert np.array_equal(found.image(index), image)
    assert all(np.array_equal(found.image(n), scans.image(n)) for n in range(5))


def test_a_twin_is_corrupted_at_the_size_of_the_input():
    scans = Scans(per_domain=40)
    found = twins(scans, ["clean"], "pixelate", 5)
    size = Preprocessing(48, 48, (0.5,) * 3, (0.5,) * 3)
    sized = found.with_size(scans, size)
    assert sized.image(len(scans.records)).shape == (48, 48, 3)
    assert found.image(len(scans.records)).shape == scans.image(0).shape


def test_labels_that_are_hidden_stay_hidden():
    found = twins(Scans(per_domain=40), ["clean"], "fog", 1)
    hidden = found.without_labels(["clean_corrupted"])
    assert {one.target for one in hidden.records if one.domain == "clean_corrupted"} == {-1}
    assert {one.target for one in hidden.records if one.domain == "clean"} != {-1}
    with pytest.raises(DataError, match="no mask"):
        hidden.mask(len(hidden.records) - 1)


def test_an_image_of_a_twin_is_the_same_whatever_else_is_read():
    few, many = Scans(per_domain=40, domains=["textured"]), Scans(per_domain=40)
    found = [twins(one, ["textured"], "gaussian_noise", 3) for one in (few, many)]
    images = [
        {
            one.records[n].file: one.image(n)
            for n in range(len(one.dataset.records), len(one.records))
        }
        for one in found
    ]
    assert images[0].keys() == images[1].keys()
    assert all(np.array_equal(images[0][name], images[1][name]) for name in images[0])
