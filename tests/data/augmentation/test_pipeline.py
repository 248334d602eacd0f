from __future__ import annotations

import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from domainnorm.data import Preprocessing, build_pipeline
from domainnorm.errors import DataError

FLIPS = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5}]
STEPS = [*FLIPS, "RandomBrightnessContrast", {"name": "Rotate", "limit": [-30, 30]}]


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first, second)


def test_no_steps_give_the_fixed_tail(image, preprocessing):
    assert_close(build_pipeline([], preprocessing)(image, 5), preprocessing(image))


def test_output_is_a_normalized_tensor(image, preprocessing):
    done = build_pipeline(STEPS, preprocessing)(image, 0)
    assert (done.shape, done.dtype) == ((3, 32, 32), torch.float32)


def test_seeds_give_different_images(image, preprocessing):
    pipeline = build_pipeline(STEPS, preprocessing)
    assert len({pipeline(image, seed).sum().item() for seed in range(10)}) > 5


def test_draws_depend_on_the_seed_and_not_on_the_order(image, preprocessing):
    pipeline = build_pipeline(STEPS, preprocessing)
    forward = [pipeline(image, seed) for seed in range(8)]
    backward = [pipeline(image, seed) for seed in reversed(range(8))][::-1]
    assert_close(torch.stack(forward), torch.stack(backward), rtol=0, atol=0)


def test_draws_do_not_depend_on_global_generators(image, preprocessing):
    pipeline = build_pipeline(STEPS, preprocessing)
    first = pipeline(image, 3)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    assert same(pipeline(image, 3), first)


def test_global_generators_do_not_move(image, preprocessing):
    pipeline = build_pipeline(STEPS, preprocessing)
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    pipeline(image, 3)
    assert random.getstate() == before[0]
    assert_array_equal(np.random.get_state()[1], before[1])
    assert same(torch.get_rng_state(), before[2])


def test_steps_draw_independently(preprocessing):
    corner = np.zeros((32, 32, 3), np.uint8)
    corner[:8, :8] = 255
    pipeline = build_pipeline(FLIPS, preprocessing)
    seen = {tuple(torch.nonzero(pipeline(corner, seed)[0] > 0)[0].tolist()) for seed in range(40)}
    assert seen == {(0, 0), (0, 24), (24, 0), (24, 24)}


def test_pickled_pipeline_draws_the_same(image, preprocessing):
    pipeline = build_pipeline(STEPS, preprocessing)
    assert same(pickle.loads(pickle.dumps(pipeline))(image, 4), pipeline(image, 4))


def test_image_is_not_modified(image, preprocessing):
    before = image.copy()
    build_pipeline([{"name": "InvertImg", "p": 1.0}], preprocessing)(image, 0)
    assert_array_equal(image, before)


def test_arguments_reach_the_transform(image, preprocessing):
    pipeline = build_pipeline([{"name": "HorizontalFlip", "p": 1.0}], preprocessing)
    flipped = np.ascontiguousarray(preprocessing.resized(image)[:, ::-1])
    assert same(pipeline(image, 0), preprocessing(flipped))


def test_wrong_step_names_the_key(preprocessing):
    with pytest.raises(DataError, match=r"augment\.day\[0\]\.limits: Rotate has no argument"):
        build_pipeline([{"name": "Rotate", "limits": 3}], preprocessing, "augment.day")


def test_wrong_value_names_the_key(preprocessing):
    said = r"augment\.day\[1\]: HorizontalFlip\.p: got 3: expected less than or equal to 1$"
    with pytest.raises(DataError, match=said):
        build_pipeline(["D4", {"name": "HorizontalFlip", "p": 3}], preprocessing, "augment.day")


def test_step_that_fails_on_an_image_names_the_pipeline(image):
    crop = {"name": "RandomCrop", "height": 99, "width": 99, "p": 1.0}
    pipeline = build_pipeline([crop], Preprocessing(8, 8, (0,) * 3, (1,) * 3), "augment.day")
    with pytest.raises(DataError, match=r"augment\.day: a step failed on an image of 10 × 8"):
        pipeline(image, 0)


@pytest.mark.slow
def test_importing_albumentations_asks_no_server():
    code = (
        "import socket\n"
        "def refuse(*args, **options): raise SystemExit('socket opened')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "import domainnorm.data.augmentation.pipeline"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
