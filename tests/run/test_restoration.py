"""Task restoration through the real command line: trained, tested, drawn, and images written."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from domainnorm.data.augmentation.degradation import bicubic
from domainnorm.data.datasets import Pairs, Scans
from domainnorm.evaluation import Restorations, load_evaluated
from domainnorm.recipe import load_recipe
from domainnorm.run import run_recipe
from domainnorm.serve import load_stored
from tests.run import tiny
from tests.run.tiny import TRANSFER, assert_same_weights, call, metrics, run

WORDS = (
    "task={name: restoration, width: 4, blocks: 1}",
    "norm=cin",
    "method=joint",
    "compare=[source_only, finetune]",
    "backbone.pretrained=false",
    "data.degrade={scale: 2, noise: 0.02}",
    "evaluation.resamples=10",
)
PAIRED = """\
task: {name: restoration, width: 4, blocks: 1, norms: false}
backbone: test_resnet
data: {name: pairs, root: ROOT, scale: 2, source: [a], target: [b], image_size: [48, 64]}
method: source_only
compare: []
trainer: {max_epochs: 1, threads: 1, accelerator: cpu}
evaluation: {resamples: 10, selection: validation}
"""
PLAIN = ("task={name: restoration, width: 4, blocks: 1, norms: false}", "norm=null")


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), *WORDS)


@pytest.mark.slow
def test_metrics_have_the_input_beside(restored):
    found = metrics(restored)
    assert {method for method, _ in found} == {"source_only", "joint", "finetune"}
    inputs = {found[name, "colour_cast"]["psnr_input"] for name in ("source_only", "joint")}
    assert len(inputs) == 1  # the same noise for every method
    for values in found.values():
        assert values["psnr_gain"] == pytest.approx(values["psnr"] - values["psnr_input"])
        assert 0 < values["ssim"] <= 1
        assert "ms_ssim" not in values


def test_tables_begin_with_the_input(restored):
    lines = (restored / "results.md").read_text().splitlines()
    (head,) = [number for number, line in enumerate(lines) if line.startswith("| method")]
    value = metrics(restored)["joint", "clean"]["psnr_input"]
    assert lines[head + 2].startswith(f"| (input as it is) | {value:.3f}")


def test_restored_images_are_drawn_and_measures_stored(restored):
    (sheet,) = (restored / "figures").glob("restored_*joint.png")
    assert sheet.stat().st_size > 0
    assert "as they were restored, and as they really are" in (restored / "report.html").read_text()
    one = load_evaluated(restored / TRANSFER / "seed0/joint/predictions-clean.safetensors")
    assert isinstance(one, Restorations)


def test_testing_again_gives_the_same(restored, capsys):
    assert call("test", str(restored)) == 0
    again = capsys.readouterr().out
    assert f"{metrics(restored)['joint', 'clean']['psnr']:.3f}" in again


@pytest.mark.slow
def test_same_recipe_gives_the_same_weights(restored, tmp_path):
    assert_same_weights(restored, run(tmp_path, *WORDS))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A network without norms."""
    return run(tmp_path_factory.mktemp("plain"), *WORDS, *PLAIN, "compare=[source_only]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of other sizes, in several formats."""
    place = tmp_path_factory.mktemp("images")
    pixels = Scans(per_domain=40).image(0)
    (place / "sub").mkdir()
    cv2.imwrite(str(place / "one.png"), cv2.resize(pixels, (21, 17)))
    cv2.imwrite(str(place / "sub/two.jpg"), cv2.resize(pixels, (50, 40)))
    cv2.imwrite(str(place / "grey.tif"), cv2.resize(pixels[..., 0], (30, 31)))
    return place


@pytest.mark.slow
def test_network_without_norms_runs_from_recipe_to_stored_model(plain):
    stored = load_stored(plain / TRANSFER / "seed0/joint")
    assert not list(stored.model.norms())
    assert call("test", str(plain)) == 0


def size(file):
    with Image.open(file) as image:
        return (*image.size, image.mode)


@pytest.mark.parametrize(("words", "scale"), [((), 2), (("--size", "same"), 1)])
def test_small_images_are_written_enlarged_unless_they_should_not_be(
    words, scale, plain, folder, tmp_path, capsys
):
    place = tmp_path / "made"
    assert call("restore", str(plain), str(folder), *words, "--output", str(place)) == 0
    assert "3 images, 1 of them as PNG, which loses nothing" in capsys.readouterr().out
    made = {file.relative_to(place).as_posix() for file in place.rglob("*.*")}
    assert made == {"one.png", "sub/two.png", "grey.tif", "sheet.png"}
    assert size(place / "one.png") == (21 * scale, 17 * scale, "RGB")
    assert size(place / "sub/two.png") == (50 * scale, 40 * scale, "RGB")
    assert size(place / "grey.tif") == (30 * scale, 31 * scale, "L")


def test_written_image_is_what_the_network_gives_for_the_enlarged_one(plain, folder, tmp_path):
    place = tmp_path / "made"
    assert call("restore", str(plain), str(folder / "one.png"), "--output", str(place)) == 0
    model = load_stored(plain).model
    pixels = torch.from_numpy(np.asarray(Image.open(folder / "one.png")).copy())
    seen = bicubic(pixels.movedim(2, 0) / 255, (34, 42)).clamp(0, 1)
    low, high = model.backbone.low, model.backbone.high
    with torch.no_grad():
        expected = model((seen * (high - low) + low)[None], "clean")[0]
    found = torch.from_numpy(np.asarray(Image.open(place / "one.png")).copy()).movedim(2, 0)
    assert float((found / 255 - expected).abs().max()) < 0.51 / 255


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An image of 300 × 200 pixels."""
    place = tmp_path_factory.mktemp("large")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    cv2.imwrite(str(place / "one.png"), cv2.resize(pixels, (300, 200)))
    return place


def by(tmp_path, folder, images, *words):
    place = tmp_path / "-".join(["made", *words])
    words = (*words, "--size", "same", "--output", str(place))
    assert call("restore", str(folder), str(images), *words) == 0
    return cv2.imread(str(place / "one.png")).astype(int)


def test_tiles_without_moments_of_their_own_are_parts_of_the_whole(plain, large, tmp_path, capsys):
    whole = by(tmp_path, plain, large)
    assert abs(by(tmp_path, plain, large, "--tile", "128") - whole).max() <= 1
    assert "own moments" not in capsys.readouterr().out


def test_tiles_with_moments_of_their_own_are_said_to_be_such(restored, large, tmp_path, capsys):
    stage = restored / TRANSFER / "seed0/joint"
    whole = by(tmp_path, stage, large, "--domain", "clean")
    tiled = by(tmp_path, stage, large, "--domain", "clean", "--tile", "64")
    assert "each tile was normalized by its own moments" in capsys.readouterr().out
    assert abs(tiled - whole).max() > 0


def test_tile_that_is_none_is_refused(plain, large, tmp_path, capsys):
    words = ("--tile", "8", "--output", str(tmp_path / "made"))
    assert call("restore", str(plain), str(large), *words) == 1
    assert "--tile: 8, expected 32 pixels or more" in capsys.readouterr().err


def test_norms_that_look_at_the_domain_ask_for_it(restored, folder, tmp_path, capsys):
    stage = restored / TRANSFER / "seed0/joint"
    words = ("restore", str(stage), str(folder))
    assert call(*words) == 1
    assert "--domain: missing, and the norms of this model look" in capsys.readouterr().err
    assert call(*words, "--domain", "claen") == 1
    assert "--domain: unknown domain 'claen': did you mean 'clean'" in capsys.readouterr().err
    assert call(*words, "--domain", "clean") == 0
    assert (stage / f"restored/{folder.name}-clean/sheet.png").exists()
    assert call(*words, "--domain", "clean") == 1
    assert "holds files already" in capsys.readouterr().err
    one, other = tmp_path / "one", tmp_path / "other"
    for place, name in ((one, "clean"), (other, "colour_cast")):
        assert call(*words, "--domain", name, "--output", str(place)) == 0
    assert (one / "one.png").read_bytes() != (other / "one.png").read_bytes()


def test_translation_and_restoration_are_two_commands(plain, folder, capsys):
    assert call("translate", str(plain), str(folder), "--to", "clean") == 1
    assert "a model of task 'restoration', expected 'translation'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.degrade=null"], "data.degrade: missing, and task 'restoration' undoes it"),
        (["data.degrade={scale: 1}"], "scale 1 and noise 0 leave images as they are"),
        (["data.degrade={scale: 2.5}"], "data.degrade.scale: got 2.5, expected a whole number"),
        (["data.degrade={noise: -0.1}"], "data.degrade.noise: got -0.1, expected a share"),
        (
            ["data.degrade={noise: .nan}"],
            "data.degrade: got {'noise': nan}, expected finite numbers",
        ),
        (["data.degrade={jpeg: 0}"], "data.degrade.jpeg: got 0, expected a quality from 1 to 100"),
        (["data.degrade={jpeg: [40, 10]}"], "data.degrade.jpeg: got [40, 10], expected a quality"),
        (["data.degrade={scal: 2}"], "unknown key 'scal': did you mean 'scale'?"),
        (["task.norms=false"], "norm: is given, and task.norms is false"),
        (["data.shots=2"], "data.shots: counts images of a class"),
        (["method=tent"], "'tent' is for"),
        (["method=coral"], "but this task has images to restore"),
        (["method=stylize"], "'stylize' is for images to translate"),
        (["data.sampling=balanced"], "data.sampling: 'balanced' needs one class per image"),
        (["evaluation.selection=infomax"], "'infomax' is for"),
        (["task.loss=l2"], "task.loss"),
        (["task=classification", "norm=cin"], "data.degrade: is given, and task 'classification'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, message, capsys):
    assert call("check", "quickstart", *tiny.WORDS, *WORDS, *words) == 2
    assert message in capsys.readouterr().err


def test_images_that_nobody_has_labelled_are_restored_and_not_classified(tmp_path, capsys):
    for number in range(12):
        for domain in ("a", "b"):
            (tmp_path / "own" / domain).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"own/{domain}/{number}.png"), np.full((32, 32, 3), number))
    file = tmp_path / "own.yaml"
    data = f"{{name: folder, root: {tmp_path / 'own'}, image_size: 32, degrade: {{scale: 2}}, "
    text = PAIRED.replace("{name: pairs, root: ROOT, scale: 2, ", data)
    file.write_text(text.replace(", image_size: [48, 64]", ""))
    assert metrics(run_recipe(load_recipe(str(file)), tmp_path / "runs"))["source_only", "b"]["n"]
    words = ("task=classification", "data.degrade=null", "data.allow_missing_classes=true")
    assert call("run", str(file), *words, "--output", str(tmp_path / "other")) == 1
    assert "no label, but domain 'a' trains with labels" in capsys.readouterr().err


def test_crops_are_trained_on_and_whole_images_restored(tmp_path):
    words = ("data.degrade={scale: 2, noise: 0.02, jpeg: [20, 60]}", "compare=[]")
    sizes = ("data.image_size=40", "data.crop_size=16", "trainer.max_epochs=1")
    folder = run(tmp_path, *WORDS, *words, *sizes)
    stage = folder / TRANSFER / "seed0/joint"
    with Image.open(next((folder / "figures").glob("restored_*.png"))) as sheet:
        assert sheet.width > 0
    assert metrics(folder)["joint", "clean"]["psnr"] > 10
    assert (stage / "model.safetensors").exists()


def test_predict_says_what_there_is_instead(restored, tmp_path, capsys):
    assert call("predict", str(restored), str(tmp_path)) != 0
    assert "which gives images; `domainnorm restore RUN IMAGES` writes them" in " ".join(
        capsys.readouterr().err.split()
    )


def test_pairs_of_files_are_learned_and_restored_by_their_scale(tmp_path):
    Pairs.write_sample(tmp_path / "pairs", domains=("a", "b"), scale=2)
    shutil.rmtree(tmp_path / "pairs/b/target")  # inputs alone
    file = tmp_path / "paired.yaml"
    file.write_text(PAIRED.replace("ROOT", str(tmp_path / "pairs")))
    folder = run_recipe(load_recipe(str(file)), tmp_path / "runs")
    found = metrics(folder)
    assert found["source_only", "a"]["psnr_input"] > 10
    assert "psnr" not in found.get(("source_only", "b"), {})
    images, made = tmp_path / "pairs/a/input", tmp_path / "made"
    assert call("restore", str(folder), str(images), "--output", str(made)) == 0
    assert size(made / "000.png") == (128, 96, "RGB")


@pytest.mark.parametrize("selection", ["validation", "oracle"])
def test_epochs_are_chosen_by_psnr(tmp_path, selection):
    words = (f"evaluation.selection={selection}", "compare=[]", "method=source_only")
    folder = run(tmp_path, *WORDS, *words)
    assert metrics(folder)["source_only", "clean"]["n"] > 0


@pytest.mark.slow
def test_exported_file_restores_images_and_says_so(restored, tmp_path):
    words = ("--format", "onnx", "--stage", f"{TRANSFER}/seed0/joint", "--output", str(tmp_path))
    assert call("export", str(restored), *words) == 0
    card = (tmp_path / "card.md").read_text()
    assert "A network that restores images on" in card
    assert "Outputs are images, from 0, black, to 1, white." in card
    assert "psnr_input" in card
