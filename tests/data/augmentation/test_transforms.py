import numpy as np
import pytest

from domainnorm.data import DomainDataModule, Loading, Preprocessing, build_pipeline
from domainnorm.data.augmentation.steps import check_steps, own_transforms
from domainnorm.data.augmentation.transforms import jitter_stains, swap_amplitudes
from domainnorm.errors import DataError
from tests.reference.transforms import fda, hed_jitter

GENERATOR = np.random.default_rng(0)
PRE = Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3)


def picture(height, width):
    return GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (15, 20), (20, 15), (17, 13)])
@pytest.mark.parametrize("beta", [0.0, 0.07, 0.2])
def test_fda_equals_the_formula(size, beta):
    image, other = picture(*size), picture(*size)
    difference = swap_amplitudes(image, other, beta).astype(int) - fda(image, other, beta)
    assert np.abs(difference).max() <= 1


def test_fda_takes_the_mean_colour_of_the_reference():
    image, other = picture(24, 32) // 4 + 30, picture(24, 32) // 4 + 150
    changed = swap_amplitudes(image, other, 0.0)
    assert np.abs(changed.mean((0, 1)) - other.mean((0, 1))).max() < 1


def test_fda_of_an_image_with_itself_changes_nothing():
    image = picture(16, 24)
    assert np.array_equal(swap_amplitudes(image, image, 0.2), image)


def test_hed_jitter_equals_the_formula():
    image, factors, shifts = picture(5, 7), np.array([1.1, 0.8, 1.0]), np.array([0.05, 0, -0.02])
    assert np.array_equal(jitter_stains(image, factors, shifts), hed_jitter(image, factors, shifts))


def test_hed_jitter_without_jitter_changes_nothing():
    image = picture(8, 8)
    assert np.array_equal(jitter_stains(image, np.ones(3), np.zeros(3)), image)


@pytest.mark.parametrize("name", own_transforms())
def test_own_transform_is_seeded_and_keeps_size_and_mask(name):
    pipeline = build_pipeline(
        [{"name": name, "p": 1.0}],
        PRE,
        references=lambda seed: np.full((9, 9, 3), seed, np.uint8),
    )
    image, mask = picture(20, 24), np.ones((20, 24), np.uint8)
    first, second = (pipeline.views(image, mask, 7) for _ in range(2))
    assert (first.image == second.image).all()
    assert (first.mask == 1).all()
    assert not np.array_equal(first.image, PRE(image))


@pytest.mark.parametrize("name", ["FDA", "HistogramMatching"])
def test_step_without_images_of_other_domains_is_left_out(name):
    image = picture(16, 16)
    pipeline = build_pipeline([{"name": name, "p": 1.0}], PRE)
    assert (pipeline(image, 3) == PRE(image)).all()


def test_references_come_from_training_images_that_the_method_may_see(scans):
    def references(labelled, unlabelled):
        data = DomainDataModule(
            scans,
            domain_names=["clean", "textured", "colour_cast"],
            labelled=labelled,
            unlabelled=unlabelled,
            preprocessing=PRE,
            augment={"default": ["FDA"]},
            loading=Loading(6),
        )
        found = data.training_pipelines["clean"].weak.references
        return found and {
            (scans.records[i].domain, scans.records[i].split) for i in found.positions
        }

    assert references(["clean"], []) is None
    assert references(["clean"], ["textured"]) == {("textured", "train")}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "FDA", "beta_limit": 1}, "a[0].beta_limit: FDA has no argument 'beta_limit'"),
        ({"name": "HEDJitterr"}, "did you mean 'HEDJitter'?"),
    ],
)
def test_wrong_arguments_of_own_transforms_are_reported(step, message):
    assert message in check_steps([step], "a")[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "FDA", "beta": [0.2, 0.1]}, r"beta: \[0.2, 0.1\], expected \[least, greatest\]"),
        ({"name": "HEDJitter", "sigma": 2}, r"sigma: 2, expected a number in \[0, 1\)"),
    ],
)
def test_values_that_make_no_sense_are_refused(step, message):
    with pytest.raises(DataError, match=message):
        build_pipeline([step], PRE)
