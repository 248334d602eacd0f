import numpy as np
import pytest
from PIL import Image

from domainnorm.data import DomainDataModule, Loading, Preprocessing, build_pipeline
from domainnorm.data.augmentation.rand_stain_na import RandStainNA, colours_of, recoloured
from domainnorm.data.augmentation.steps import check_steps, own_transforms
from domainnorm.data.augmentation.transforms import (
    RandConv,
    jitter_stains,
    mix_convolved,
    swap_amplitudes,
)
from domainnorm.data.augmentation.trivial_augment import OPERATIONS
from domainnorm.errors import DataError
from tests.reference import transforms as reference
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


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_random_convolution_equals_the_formula(size, share):
    image, weight = picture(9, 11), GENERATOR.normal(0, 0.3, (3, 3, size, size))
    difference = mix_convolved(image, weight, share) - reference.rand_conv(image, weight, share)
    assert np.abs(difference).max() <= 1


def test_random_convolution_has_weights_that_keep_the_size_of_values():
    step = RandConv(p=1.0)
    step.set_random_seed(0)
    drawn = [step.get_params()["weight"] for _ in range(400)]
    assert {one.shape[-1] for one in drawn} == {1, 3, 5, 7}
    sums = [np.square(one).sum((1, 2, 3)).mean() for one in drawn]
    assert np.mean(sums) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
@pytest.mark.parametrize(("level", "sign"), [(0.2, 1), (0.7, -1), (1.0, 1)])
def test_operation_of_trivial_augment_equals_its_formula(name, level, sign):
    change, strength = OPERATIONS[name]
    image, value = (picture(24, 26) // 2 + 40).astype(np.uint8), strength(level, sign)
    found = np.asarray(change(Image.fromarray(image), value)).astype(float)
    # Pillow rounds what it blends with, and cuts off what is behind the point.
    assert np.abs(found - getattr(reference, name)(image, value)).max() < 2


def test_operations_of_trivial_augment_have_the_strengths_of_the_wide_space():
    levels = [bin_ / 30 for bin_ in range(31)]
    bits = [OPERATIONS["posterize"][1](level, 1) for level in levels]
    assert bits == [8 - round(bin_ / (30 / 6)) for bin_ in range(31)]
    for name in ("brightness", "colour", "contrast", "sharpness"):
        strength = OPERATIONS[name][1]
        assert [strength(1.0, -1), strength(0.0, 1), strength(1.0, 1)] == pytest.approx(
            [0.01, 1, 1.99]
        )


@pytest.mark.parametrize("space", ["lab", "hsv"])
def test_recoloured_image_equals_the_formula(space):
    image, (centre, _) = picture(6, 7), reference.colour_statistics([picture(5, 5) // 2], space)
    found = recoloured(image, space, *map(np.array, centre)).astype(float)
    assert np.abs(found - reference.recolour(image, space, *centre)).max() <= 1


@pytest.mark.parametrize("space", ["lab", "hsv"])
def test_colour_statistics_are_those_of_images_and_not_of_pixels(space):
    images = [picture(5, 6), picture(4, 4) // 2, picture(3, 9) // 3 + 90]
    found = colours_of(images)[space]
    centre, spread = reference.colour_statistics(images, space)
    np.testing.assert_allclose(found.centre, centre, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.spread, spread, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("space", ["lab", "hsv"])
def test_image_in_its_own_colours_stays(space):
    image = picture(16, 16)
    own = colours_of([image])[space]
    assert np.abs(recoloured(image, space, *own.centre).astype(int) - image).max() <= 1


def test_mean_hue_of_reds_is_red():
    reds = np.array([[[255, 0, 20], [255, 20, 0]]], np.uint8)
    hue = colours_of([reds])["hsv"].centre[0, 0]
    assert min(hue, 360 - hue) < 0.1


def test_drawn_deviations_are_never_below_those_of_images():
    colours = {
        space: found._replace(spread=100 * found.spread + 1)
        for space, found in colours_of([picture(8, 8), picture(8, 8) // 2]).items()
    }
    step = RandStainNA(p=1.0)
    step.set_random_seed(0)
    for _ in range(50):
        drawn = step.get_params_dependent_on_data({}, {"colours": colours})
        least = colours[drawn["space"]].least
        assert (drawn["deviation"] >= least).all()
        assert (least > 0).all()


def test_flat_image_takes_the_drawn_mean():
    flat = np.full((4, 4, 3), 77, np.uint8)
    done = recoloured(flat, "lab", np.array([60.0, 20, -10]), np.array([5.0, 5, 5]))
    assert (done == done[0, 0]).all()
    assert not (done == 77).all()


def colours_measured(scans, **roles):
    data = DomainDataModule(
        scans,
        domain_names=["clean", "textured", "colour_cast"],
        preprocessing=PRE,
        augment={"default": ["RandStainNA"]},
        loading=Loading(6),
        **roles,
    )
    data.train_dataloader()
    return {name: pipeline.weak.colours for name, pipeline in data.training_pipelines.items()}


def test_colours_are_those_of_training_images_that_the_method_may_see(scans):
    images = [
        scans.image(at)
        for at, record in enumerate(scans.records)
        if (record.domain, record.split) == ("clean", "train")
    ]
    found = colours_measured(scans, labelled=["clean"], unlabelled=[])
    assert [name for name in found if found[name]] == ["clean"]
    expected = colours_of(images)
    for space, one in found["clean"].items():
        for part, other in zip(one, expected[space], strict=True):
            np.testing.assert_allclose(part, other)
    both = colours_measured(scans, labelled=["clean"], unlabelled=["colour_cast"])
    assert both["clean"] is both["colour_cast"]
    assert (both["clean"]["lab"].spread > found["clean"]["lab"].spread).any()


def test_step_without_the_colours_of_training_images_is_refused():
    pipeline = build_pipeline([{"name": "RandStainNA", "p": 1.0}], PRE)
    with pytest.raises(DataError, match="a step needs `set_colours` of training images first"):
        pipeline(picture(8, 8), 0)


@pytest.mark.parametrize("name", own_transforms())
def test_own_transform_is_seeded_and_keeps_size_and_mask(name):
    given = {"run": lambda image, style: 255 - image, "to": "dark"} if name == "Translate" else {}
    pipeline = build_pipeline(
        [{"name": name, "p": 1.0, **given}],
        PRE,
        references=lambda seed: np.full((9, 9, 3), seed, np.uint8),
    )
    image, mask = picture(20, 24), np.ones((20, 24), np.uint8)
    pipeline.set_colours(colours_of([image // 2, image // 3]))
    first, second = (pipeline.views(image, mask, 7) for _ in range(2))
    assert (first.image == second.image).all()
    assert (first.mask == 1).all()
    assert not np.array_equal(first.image, PRE(image))


def test_translation_draws_one_of_the_styles_and_needs_what_makes_them():
    made = {"dark": 10, "light": 250}
    step = {
        "name": "Translate",
        "run": lambda image, style: np.full_like(image, made[style]),
        "to": ["dark", "light"],
        "p": 1.0,
    }
    pipeline, image = build_pipeline([step], PRE), picture(16, 16)
    found = {float(pipeline(image, seed).mean()) for seed in range(20)}
    assert found == {float(PRE(np.full_like(image, one)).mean()) for one in made.values()}
    for lacking in ({**step, "run": "folder"}, {**step, "to": []}):
        with pytest.raises(DataError, match=r"augment\[0\]: Translate refuses .*in Python give"):
            build_pipeline([lacking], PRE)


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
        ({"name": "RandConv", "kernels": [2]}, r"kernels: \[2\], expected odd sizes"),
        ({"name": "RandConv", "mix": [1]}, r"mix: \[1\], expected \[least, greatest\]"),
        (
            {"name": "RandStainNA", "spaces": ["rgb"]},
            r"spaces: \['rgb'\], expected some of lab, hsv",
        ),
        ({"name": "RandStainNA", "spread": -1}, r"spread: -1, expected 0 or more"),
        ({"name": "HEDJitter", "sigma": 2}, r"sigma: 2, expected a number in \[0, 1\)"),
    ],
)
def test_values_that_make_no_sense_are_refused(step, message):
    with pytest.raises(DataError, match=message):
        build_pipeline([step], PRE)
