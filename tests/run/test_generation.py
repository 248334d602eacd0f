"""Task generation through the real command line: trained, tested, drawn, and images written."""

import cv2
import numpy as np
import pytest

from domainnorm.data.datasets.folder import Folder
from domainnorm.errors import RecipeError
from domainnorm.evaluation import Generations, load_evaluated
from domainnorm.run import run_matrix
from domainnorm.serve import load_stored
from tests.run import tiny
from tests.run.shops import write_recipe, write_shops
from tests.run.tiny import TRANSFER, assert_same_weights, call, metrics, run

WORDS = (
    "task={name: generation, width: 8, blocks: 1, steps: 2, guidance: 1.5}",
    "norm=cgn",
    "method=flow_matching",
    "compare=[]",
    "evaluation.resamples=10",
)
DOMAINS = "clean", "colour_cast"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), *WORDS)


def generate(made, place, *words):
    return call("generate", str(made), "--steps", "1", "--output", str(place), *words)


@pytest.mark.slow
def test_run_has_the_method_alone(made):
    assert {method for method, _ in metrics(made)} == {"flow_matching"}


def test_metrics_stand_beside_those_of_real_images(made):
    found = metrics(made)
    for domain in DOMAINS:
        values = found["flow_matching", domain]
        for name in ("class_accuracy", "look_accuracy", "nearest"):
            assert values[name] >= 0
            assert values[f"{name}_real"] >= 0
        assert values["distance"] > values["distance_halves"] > 0
        assert 0 <= values["class_accuracy/3"] <= 1


def test_tables_tell_what_images_show(made):
    text = (made / "results.md").read_text()
    for domain in DOMAINS:
        assert f"made for {domain}, flow_matching: taken for the class asked for 0." in text
    assert "labelled training images of every domain" in text


def test_images_are_drawn_and_stored(made):
    (sheet,) = (made / "figures").glob("generated_*.png")
    page = (made / "report.html").read_text()
    assert "Can images of clean, colour_cast be made of noise" in page
    assert "images made of noise" in page
    assert sheet.stat().st_size > 0
    one = load_evaluated(made / TRANSFER / "seed0/flow_matching/predictions-clean.safetensors")
    assert isinstance(one, Generations)
    assert one.asked.equal(one.target)


def test_validation_logs_the_loss_of_sources(made):
    log = (made / TRANSFER / "seed0/flow_matching/log.csv").read_text()
    assert "val/clean/flow" in log
    assert "val/colour_cast/flow" not in log


@pytest.mark.slow
def test_testing_again_gives_the_same(made, capsys):
    assert call("test", str(made)) == 0
    again = " ".join(capsys.readouterr().out.split())
    lines = [one for one in (made / "results.md").read_text().splitlines() if "made for" in one]
    assert len(lines) == 2
    assert all(line.strip() in again for line in lines)


@pytest.mark.slow
def test_same_recipe_gives_the_same_weights(made, tmp_path):
    assert_same_weights(made, run(tmp_path, *WORDS))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method=source_only", "'source_only' is for tasks with labels to predict"),
        ("compare=[joint]", "'joint' is for tasks with labels to predict"),
        ("data.name=folder_masks", "'generation' needs labels for classification, but dataset"),
        ("data.rows=one", "data.rows: got 'one', and task 'generation' asks for images of"),
        ("encoder=style", "encoder: 'style' is given, and task 'generation'"),
        ("norm=gn", "norm: none of them looks at the domain"),
        ("evaluation.selection=validation", "images take too long to make after every epoch"),
        ("data.degrade={scale: 2}", "data.degrade: is given"),
        ("method.dropout=1", "method.dropout: got 1"),
        ("task.blocks=0", "task.blocks: got 0"),
        ("task.steps=0", "task.steps: got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(word, message, capsys):
    assert call("check", "quickstart", *tiny.WORDS, *WORDS, word) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("word", ["data.target=[]", "data.shots=2", "data.sampling=balanced"])
def test_what_can_be_meant_is_not(word):
    assert call("check", "quickstart", *tiny.WORDS, *WORDS, word) == 0


def test_sizes_that_cannot_be_halved_are_refused_before_training(tmp_path, capsys):
    words = [*tiny.WORDS, *WORDS, "data.image_size=30", "--output", str(tmp_path)]
    assert call("run", "quickstart", *words) == 1
    assert "data.image_size: 30 × 30 pixels, expected multiples of 4" in capsys.readouterr().err


def test_written_folder_is_a_dataset(made, tmp_path, capsys):
    place = tmp_path / "made"
    assert generate(made, place, "--count", "3", "--class", "3", "5") == 0
    assert f"12 images: {place}" in capsys.readouterr().out
    assert cv2.imread(str(place / "clean" / "3" / "0.png")).shape == (32, 32, 3)
    assert (place / "sheet.png").stat().st_size > 0
    dataset = Folder(root=str(place))
    assert dataset.domain_names == list(DOMAINS)
    assert dataset.class_names == ["3", "5"]
    assert len(dataset.records) == 12


def pixels(place, domain="clean", name="3", number=1):
    return cv2.imread(str(place / domain / name / f"{number}.png"))


@pytest.mark.slow
def test_images_hang_on_the_seed_and_not_on_what_else_is_asked_for(made, tmp_path):
    one, other, seeded = (tmp_path / name for name in ("one", "other", "seeded"))
    assert generate(made, one, "--count", "2", "--class", "3", "--domain", "clean") == 0
    assert generate(made, other, "--count", "4", "--class", "5", "3") == 0
    assert generate(made, seeded, "--count", "2", "--class", "3", "--seed", "1") == 0
    difference = cv2.absdiff(pixels(one), pixels(other))
    assert difference.max() <= 1  # other batches may round otherwise
    assert cv2.absdiff(pixels(one), pixels(seeded)).max() > 1
    assert not (one / "colour_cast").exists()


def test_default_place_is_in_the_stage_and_is_not_overwritten(made, capsys):
    words = ("generate", str(made), "--count", "1", "--steps", "1", "--class", "0")
    assert call(*words) == 0
    assert (made / TRANSFER / "seed0/flow_matching/generated/seed0/clean/0/0.png").is_file()
    assert call(*words) == 1
    assert "holds files already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--domain", "clea"], "--domain: unknown domain 'clea': did you mean 'clean'"),
        (["--class", "10"], "--class: unknown class '10'"),
        (["--count", "0"], "--count: got 0, expected 1 or more"),
        (["--guidance", "0.5"], "--guidance: got 0.5, expected 1 or more"),
        (["--text", "a three"], "--text: 'a three' are words, and this run reads none; train"),
    ],
)
def test_what_cannot_be_made_is_refused(words, message, made, tmp_path, capsys):
    assert generate(made, tmp_path / "made", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run whose norms read a note on each picture, with one word for each domain."""
    root = tmp_path_factory.mktemp("shops")
    write_shops(root, "note", lambda n, shop: f"{'red' if shop == 'shop_a' else 'blue'} {n % 3}")
    norm = "norm={statistics: group, modulation: hyper, embedding_size: 16}"
    words = (*WORDS[:1], norm, *WORDS[2:], "condition=embedding", "trainer.max_epochs=4")
    asked = write_recipe(root, "note", "text")
    place = tmp_path_factory.mktemp("told")
    assert call("run", asked, *words, "augment={}", "method.lr=1e-2", "--output", str(place)) == 0
    return next(place.glob("*/*/metrics.json")).parent


@pytest.mark.slow
def test_words_change_images(told, tmp_path):
    for name, text in (("one", "red"), ("other", "blue"), ("again", "red")):
        words = ("--text", text, "--count", "1", "--domain", "shop_a", "--steps", "2")
        assert call("generate", str(told), *words, "--output", str(tmp_path / name)) == 0
    one, other, again = (
        cv2.imread(str(tmp_path / name / "shop_a" / "unlabelled" / "0.png")).astype(int)
        for name in ("one", "other", "again")
    )
    assert abs(one - other).max() > 1
    assert abs(one - again).max() == 0


def test_words_stand_beside_a_class_that_is_asked_for(told, tmp_path):
    (name, *_) = load_stored(told).class_names
    words = ("--text", "red", "--class", name, "--count", "1", "--steps", "1")
    assert call("generate", str(told), *words, "--output", str(tmp_path / "made")) == 0
    assert (tmp_path / "made" / "shop_a" / name / "0.png").is_file()


def test_matrix_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(RecipeError, match="a matrix compares predictions, and 'generation' has"):
        run_matrix(tiny.recipe(*WORDS), tmp_path, "both")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_of_other_tasks_are_refused(tmp_path, capsys):
    other = run(tmp_path, "method=source_only", "compare=[]", "trainer.max_epochs=1")
    assert generate(other, tmp_path / "made") == 1
    assert "expected 'generation'" in capsys.readouterr().err


def test_predictions_and_exports_are_for_other_tasks(made, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((32, 32, 3), np.uint8))
    assert call("predict", str(made), str(tmp_path / "one.png"), "--domain", "clean") == 1
    assert "`domainnorm generate" in capsys.readouterr().err
    assert call("export", str(made), "--format", "onnx") == 2
    assert "take `domainnorm generate`" in capsys.readouterr().err
