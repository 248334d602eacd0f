import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.drawings.canvas import NUMBER, Scene
from domainnorm.data.drawings.street import draw_street
from domainnorm.data.drawings.weather import CONDITIONS, LOOKS, photograph


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_street(3)


def brightness(scene: Scene, condition: str) -> float:
    return float(photograph(scene, condition).mean())


def contrast(scene: Scene, far: float, density: float) -> float:
    return float(photograph(scene, "fog", "render", density)[scene.depth > far].std())


def test_layers_have_the_size_that_was_asked_for():
    scene = draw_street(0, 60, 100)
    assert scene.mask.shape == scene.depth.shape == scene.light.shape == (60, 100)


def test_street_depends_on_its_seed_alone(scene):
    assert_array_equal(draw_street(3).colour, scene.colour)


def test_streets_differ(scene):
    assert (draw_street(4).mask != scene.mask).any()


def test_all_classes_occur():
    seen = set().union(*(np.unique(draw_street(seed).mask) for seed in range(60)))
    assert seen == set(range(19))


def test_road_is_below_the_sky(scene):
    rows = np.indices(scene.mask.shape)[0]
    road, sky = (rows[scene.mask == NUMBER[name]] for name in ("road", "sky"))
    assert road.min() > np.median(sky)


def test_road_is_nearer_at_the_bottom(scene):
    depths = [scene.depth[row][scene.mask[row] == NUMBER["road"]].min() for row in (60, 75, 95)]
    assert depths == sorted(depths, reverse=True)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("look", LOOKS)
def test_photograph_is_an_image(scene, condition, look):
    pixels = photograph(scene, condition, look)
    assert (pixels.shape, pixels.dtype) == ((96, 192, 3), np.uint8)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_photograph_is_repeated_exactly(scene, condition):
    assert_array_equal(photograph(scene, condition), photograph(scene, condition))


def test_it_is_darker_at_dusk_and_darkest_at_night(scene):
    assert brightness(scene, "night") < brightness(scene, "dusk") < brightness(scene, "day")


def test_lamps_shine_at_night(scene):
    pixels = photograph(scene, "night").mean(axis=2)
    assert pixels[scene.light > 0.8].mean() > 2.5 * pixels[scene.light == 0].mean()


def test_fog_takes_contrast_from_what_is_far(scene):
    assert contrast(scene, 20, 0.05) < 0.5 * contrast(scene, 20, 0.001)


def test_snow_lies_on_the_ground(scene):
    terrain = scene.mask == NUMBER["sidewalk"]
    assert photograph(scene, "snow")[terrain].mean() > photograph(scene, "rain")[terrain].mean()
