"""A run over masks: training on crops, evaluation in windows, figures, matrix and export."""

import json

import cv2
import numpy as np
import pytest

from domainnorm.data.datasets import FolderMasks
from domainnorm.errors import DataError, RecipeError
from domainnorm.evaluation import SegmentationCounts, load_evaluated
from domainnorm.recipe import load_recipe
from domainnorm.run import run_matrix, run_recipe
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.serve import StreamOptions, adapt_run, export_run
from tests.run.tiny import call, figures

TEXT = """\
task: {name: segmentation, width: 32, dice_weight: 1.0, flips: horizontal, overlap: 0.0}
backbone: {name: test_resnet}
norm: {encoder: cbn, decoder: dsbn}
data:
  name: folder_masks
  root: ROOT
  source: [day]
  target: [dusk]
  image_size: [64, 96]
  crop_size: 32
  batch_size: 4
method: {name: tent, epochs: 1}
compare: [source_only, adabn, {name: finetune, train: head}]
trainer: {max_epochs: 1, threads: 1, accelerator: cpu}
evaluation: {resamples: 20, selection: validation}
"""
METHODS = ("source_only", "adabn", "tent", "finetune")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    FolderMasks.write_sample(folder / "data", domains=["day", "dusk"])
    path = folder / "masks.yaml"
    path.write_text(TEXT.replace("ROOT", str(folder / "data")))
    return path


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    with figures(drawn=True):
        return run_recipe(load_recipe(str(file)), tmp_path_factory.mktemp("runs"))


def test_masks_of_0_and_255_are_refused_before_anything_is_trained(file, tmp_path):
    FolderMasks.write_sample(tmp_path / "data", domains=["day", "dusk"])
    for mask in (tmp_path / "data").glob("day/masks/*.png"):
        read = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(mask), np.where(read > 0, 255, 0).astype(np.uint8))
    loaded = load_recipe(str(file), [f"data.root={tmp_path / 'data'}"])
    with pytest.raises(DataError, match=r"domain .day. hold only 0 and 255, .* write 1 for"):
        run_recipe(loaded, tmp_path / "runs")


def stage(finished, method):
    return finished / "stages/day-to-dusk/seed0" / method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("domain", ["day", "dusk"])
def test_every_method_is_scored_on_every_domain(finished, method, domain):
    counts = load_evaluated(stage(finished, method) / f"predictions-{domain}.safetensors")
    assert isinstance(counts, SegmentationCounts)
    # Every pixel of every image at the size of the input, whatever the size of a window.
    assert counts.confusion.sum().item() <= len(counts) * 64 * 96
    assert counts.confusion.sum().item() > 0.5 * len(counts) * 64 * 96


def test_balanced_classes_are_weighed_by_the_masks_that_a_stage_may_see(file, monkeypatch):
    recipe = load_recipe(str(file), ["task.class_weights=balanced"])
    parts = Parts(recipe)
    read, all_read, mask = [], [], FolderMasks.mask
    monkeypatch.setattr(FolderMasks, "mask", lambda self, n: read.append(n) or mask(self, n))
    for stage in plan_stages(recipe):
        model = parts.model(stage)
        data = parts.data(stage, model)
        method = parts.method(stage, model, data)
        if not data.labelled:
            assert method.task.class_weight is None
            continue
        assert method.task.class_weight.min() >= 0
        assert method.task.class_weight.median() == 1
        assert {parts.dataset.records[position].domain for position in read} <= set(data.labelled)
        all_read += read
        read.clear()
    assert len(set(all_read)) == len(all_read) > 0


def test_table_shows_the_metric_of_the_task(finished):
    assert "day → dusk** · miou" in (finished / "results.md").read_text()
    page = (finished / "report.html").read_text()
    pictures = list((finished / "figures").rglob("*.png"))
    assert page.count('src="data:image/png;base64,') == len(pictures) > 0
    assert '<img src="figures' not in page
    results = json.loads((finished / "metrics.json").read_text())
    assert {"miou", "dice", "pixel_accuracy", "boundary_iou"} <= set(results[0]["metrics"])


@pytest.mark.parametrize("name", ["domains", "miou", "confusion_*_tent", "overlays_*_tent"])
def test_figures_are_drawn(finished, name):
    (figure,) = (finished / "figures").glob(f"{name}.png")
    assert figure.stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_stage_is_exported_for_one_window(finished, kind, tmp_path):
    done = export_run(finished, kind, output=tmp_path / kind)
    about = json.loads((done.folder / "model.json").read_text())
    assert about["preprocessing"]["crop"] == [32, 32]
    assert done.difference < 1e-4
    assert "A segmentation network for" in (done.folder / "card.md").read_text()


def test_timm_has_no_place_for_a_decoder(finished):
    with pytest.raises(RecipeError, match="--format timm holds classifiers"):
        export_run(finished, "timm", domain="dusk")


@pytest.mark.slow
def test_matrix_of_masks(file, tmp_path):
    folder = run_matrix(load_recipe(str(file)), tmp_path, "norms")
    content = json.loads((folder / "matrix_norms.json").read_text())
    assert "miou" in content["summary"]
    assert (folder / "figures/matrix_norms/miou.png").exists()


def test_classification_of_masks_is_refused_by_the_check(file):
    with pytest.raises(RecipeError, match="task: 'classification' needs labels for classificat"):
        load_recipe(str(file), ["task=classification"])


def test_crops_are_for_masks():
    with pytest.raises(
        RecipeError, match=r"data\.crop_size: 16, but task 'classification' looks at"
    ):
        load_recipe("quickstart", ["data.crop_size=16"])


def test_size_that_the_network_cannot_take_is_an_error_before_training(file, tmp_path):
    words = ["task.decoder=fpn", "data.crop_size=null", "data.image_size=[60,96]"]
    with pytest.raises(DataError, match=r"60 × 96 pixels.*multiples of 32"):
        run_recipe(load_recipe(str(file), words), tmp_path)


@pytest.mark.slow
def test_masks_are_scored_at_their_own_size(file, tmp_path):
    words = ["evaluation.mask_size=original", "compare=[]", "method=source_only"]
    folder = run_recipe(load_recipe(str(file), [*words, "data.fit=stretch"]), tmp_path)
    counts = load_evaluated(stage(folder, "source_only") / "predictions-dusk.safetensors")
    dataset = Parts(load_recipe(str(file))).dataset
    masks = [dataset.mask(index) for index in counts.index.tolist()]
    assert masks[0].shape != (64, 96)
    for confusion, mask in zip(counts.confusion, masks, strict=True):
        assert confusion.sum() == (mask != 255).sum()
        for number in range(len(confusion)):
            assert confusion[number].sum() == (mask == number).sum()


def test_own_size_of_a_mask_that_is_cut_off_is_refused(file, tmp_path):
    words = ["evaluation.mask_size=original", "compare=[]", "method=source_only"]
    with pytest.raises(DataError, match=r"data\.fit: cover crops images of"):
        run_recipe(load_recipe(str(file), [*words, "data.image_size=[64,32]"]), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))  # before any training


def test_only_masks_have_a_size_of_their_own():
    with pytest.raises(RecipeError, match=r"evaluation\.mask_size: 'original' is for masks"):
        load_recipe("quickstart", ["evaluation.mask_size=original"])


@pytest.fixture(scope="module")
def followable(file, tmp_path_factory):
    words = ["encoder=style", "compare=[]", "method=source_only", "data.image_size=[64,32]"]
    return run_recipe(load_recipe(str(file), words), tmp_path_factory.mktemp("followable"))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("method=alpha_bn",), ("method=tent_online",)])
def test_stream_leaves_masks_of_the_size_of_its_images(file, followable, tmp_path, overrides):
    images = file.parent / "data/dusk/images"
    options = StreamOptions(domain="dusk") if overrides else None
    adapted = adapt_run(followable, images, tmp_path / "stream", options, overrides)
    assert adapted.images == len(list(images.iterdir()))
    for image in images.iterdir():
        mask = cv2.imread(
            str(tmp_path / "stream/masks" / f"{image.stem}.png"), cv2.IMREAD_UNCHANGED
        )
        assert mask.shape == cv2.imread(str(image)).shape[:2]
        assert (mask[:, 0] == 255).all()  # cut off by data.fit: cover
        assert (mask[:, mask.shape[1] // 2] < 255).all()


@pytest.mark.slow
def test_images_of_a_stream_with_one_mask_are_refused_before_any_is_predicted(followable, tmp_path):
    film = tmp_path / "film"
    film.mkdir()
    for name in ("left.png", "left.bmp"):
        cv2.imwrite(str(film / name), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"film: masks/left.png would be the mask of left.bmp and"):
        adapt_run(followable, film, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_finished_run_is_tested_otherwise(finished, capsys):
    assert call("test", str(finished), "evaluation.mask_size=original", "data.fit=stretch") == 0
    other = capsys.readouterr().out
    assert other.startswith("tested with evaluation.mask_size=original data.fit=stretch\n")
    assert call("test", str(finished)) == 0
    assert capsys.readouterr().out != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.lr=1", "evaluation.bins=5"], "method.lr: a finished run is what it was; test ta"),
        (["evaluation.bin=5"], "evaluation.bin: unknown key 'bin': did you mean 'bins'"),
        (["condition=mixture"], "condition: 'mixture' needs a domain encoder"),
    ],
)
def test_run_is_not_tested_as_another_model(finished, words, message, capsys):
    assert call("test", str(finished), *words) == 2
    assert message in capsys.readouterr().err


def test_width_of_boundaries_is_the_recipes(file):
    parts = Parts(load_recipe(str(file), ["evaluation.boundary=0.1"]))
    stage = plan_stages(parts.recipe)[0]
    model = parts.model(stage, stored=True)
    method = parts.method(stage, model, parts.data(stage, model))
    assert method.task.store().boundary_ratio == 0.1
