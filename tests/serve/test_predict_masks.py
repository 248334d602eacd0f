"""Masks predicted by a finished run, against those that its tests have counted."""

import csv

import cv2
import numpy as np
import pytest
import torch

from domainnorm.data.datasets import FolderMasks
from domainnorm.data.masks import read_mask
from domainnorm.errors import DataError
from domainnorm.evaluation import confusion_counts, load_evaluated
from domainnorm.recipe import load_recipe
from domainnorm.run import run_recipe
from domainnorm.run.parts import Parts
from domainnorm.serve import PredictOptions, predict_run

# Windows and flips, and an input of another size and shape than the images.
TEXT = """\
task: {name: segmentation, width: 32, flips: horizontal}
backbone: {name: test_resnet}
norm: {encoder: cbn, decoder: dsbn}
data:
  name: folder_masks
  root: ROOT
  source: [day]
  target: [dusk]
  image_size: [64, 64]
  crop_size: 48
  fit: FIT
  batch_size: 4
method: source_only
trainer: {max_epochs: 1, threads: 1, limit_batches: 1, accelerator: cpu, channels_last: true}
evaluation: {resamples: 20, mask_size: SIZE}
"""


def finished_run(root, fit, size):
    text = TEXT.replace("ROOT", str(root / "data")).replace("FIT", fit).replace("SIZE", size)
    (root / f"{fit}.yaml").write_text(text)
    return run_recipe(load_recipe(str(root / f"{fit}.yaml")), root)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    FolderMasks.write_sample(folder / "data", domains=["day", "dusk"])
    return folder


@pytest.fixture(scope="module")
def finished(root):
    return finished_run(root, "stretch", "original")


@pytest.fixture(scope="module")
def done(root, finished):
    """All test images by a table that tells the domain of each."""
    every = Parts(load_recipe(str(root / "stretch.yaml"))).dataset.records
    records = [record for record in every if record.split == "test"]
    table = root / "data" / "told.csv"
    rows = [f"{record.file},{record.domain}\n" for record in records]
    table.write_text("".join(["image,domain\n", *rows]))
    return predict_run(finished, table, root / "out")


def lines_of(done):
    with (done.folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["day", "dusk"])
def test_masks_are_those_that_tests_have_counted(root, finished, done, domain):
    place = finished / "stages/day-to-dusk/seed0/source_only"
    stored = load_evaluated(place / f"predictions-{domain}.safetensors")
    dataset = Parts(load_recipe(str(root / "stretch.yaml"))).dataset
    lines = {line["image"]: line for line in lines_of(done)}
    for index, wanted in zip(stored.index.tolist(), stored.confusion, strict=True):
        line = lines[dataset.records[index].file]
        mask = torch.from_numpy(read_mask(done.folder / line["prediction"]).astype(np.int64))
        truth = torch.from_numpy(dataset.mask(index).astype(np.int64))
        truth = truth.masked_fill(truth == 255, -1)
        found = confusion_counts(mask[None], truth[None], len(dataset.class_names))[0]
        assert torch.equal(found, wanted)


def test_shares_are_those_of_the_pixels_of_a_mask(done):
    line = lines_of(done)[0]
    mask = read_mask(done.folder / line["prediction"])
    shares = [float(value) for name, value in line.items() if name.startswith("share_")]
    wanted = np.bincount(mask.ravel(), minlength=len(shares)) / mask.size
    assert shares == pytest.approx(wanted.tolist(), abs=1e-6)
    assert sum(done.classes.values()) == pytest.approx(1, abs=1e-6)
    assert done.masks


def test_overlays_are_a_figure(done):
    assert cv2.imread(str(done.folder / "overlays.png")).shape[0] > 500


def test_images_with_one_mask_are_refused(root, finished, tmp_path):
    image = next((root / "data" / "day" / "images").iterdir())
    for suffix in (".png", ".jpg"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), cv2.imread(str(image)))
    with pytest.raises(DataError, match=r"masks/a\.png would be the mask of a\.jpg and of a\.png"):
        predict_run(finished, tmp_path, tmp_path / "out", PredictOptions("day"))


@pytest.mark.slow
def test_border_that_is_cut_off_has_no_class(root, tmp_path):
    folder = finished_run(root, "cover", "input")
    image = cv2.imread(str(next((root / "data" / "day" / "images").iterdir())))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "wide.png"), cv2.resize(image, (120, 60)))
    options = PredictOptions(domain="day")
    done = predict_run(folder, tmp_path / "in", tmp_path / "out", options)
    mask = read_mask(done.folder / "masks" / "wide.png")
    assert mask.shape == (60, 120)
    assert (mask[:, 40:80] != 255).all()
    assert (mask[:, :20] == 255).all()
    shares = [float(v) for name, v in lines_of(done)[0].items() if name.startswith("share_")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
