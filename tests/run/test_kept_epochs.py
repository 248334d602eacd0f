"""Models of single epochs that stay, and what is done with them."""

import csv

import cv2
import pytest
import torch
from safetensors.torch import load_file

from domainnorm import load_run
from domainnorm.errors import CheckpointError, RecipeError
from domainnorm.recipe import remarks
from domainnorm.run.stage import run_stage, set_up
from domainnorm.run.training import fit
from tests.combinations import covering
from tests.run.test_resume import Cut, PowerCutError, stages_of
from tests.run.tiny import TRANSFER, call, recipe, run

LONG = ("trainer.max_epochs=5", "method.warmup=0", "method.lr=0.003")
ONE = ("method=source_only", "compare=[]", *LONG)
SCORED = "evaluation.selection=validation"


def numbers(stage):
    return sorted(int(folder.name) for folder in (stage / "epochs").iterdir())


def scores(stage):
    with (stage / "log.csv").open(newline="") as file:
        return [float(row["val/selection"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A stage of five epochs, of which the best two stay, and every second one."""
    words = (SCORED, "trainer.keep_best=2", "trainer.keep_every=2")
    return run(tmp_path_factory.mktemp("kept"), *ONE, *words)


@pytest.mark.slow
def test_best_epochs_and_those_of_every_so_many_stay(kept):
    stage = kept / TRANSFER / "seed0/source_only"
    found = scores(stage)
    best = sorted(range(5), key=lambda place: (-found[place], place))[:2]
    assert numbers(stage) == sorted({2, 4, *(place + 1 for place in best)})


def test_first_of_the_best_epochs_is_the_model_that_is_tested(kept):
    stage = kept / TRANSFER / "seed0/source_only"
    best = max(range(5), key=lambda place: (scores(stage)[place], -place)) + 1
    tested = load_file(stage / "model.safetensors")
    for name, tensor in load_file(stage / f"epochs/{best}/model.safetensors").items():
        assert torch.equal(tensor, tested[name]), name


@pytest.mark.slow
def test_epochs_that_stay_change_nothing_else(kept, tmp_path):
    plain = run(tmp_path, *ONE, SCORED) / TRANSFER / "seed0/source_only"
    stage = kept / TRANSFER / "seed0/source_only"
    assert not (plain / "epochs").exists()
    assert (plain / "log.csv").read_text() == (stage / "log.csv").read_text()
    expected = load_file(plain / "model.safetensors")
    for name, tensor in load_file(stage / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_kept_epoch_is_a_model_in_python_and_on_the_command_line(kept, tmp_path):
    loaded = load_run(kept)
    image = torch.rand(2, 3, 32, 32)
    outputs = [loaded.model(epoch=epoch)(image, domain="clean") for epoch in (2, 4)]
    assert not torch.equal(*outputs)
    with pytest.raises(CheckpointError, match=r"no epoch 9; kept: .*2.*4"):
        loaded.model(epoch=9)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        cv2.imwrite(str(pictures / f"{index}.png"), loaded.dataset.image(index))
    folder = kept / TRANSFER / "seed0/source_only/epochs/2"
    words = ("--domain", "clean", "--output", str(tmp_path / "made"))
    assert call("predict", str(folder), str(pictures), *words) == 0
    assert (tmp_path / "made/predictions.csv").exists()


@pytest.mark.slow
@covering(
    1,
    selection=["validation", "infomax"],
    hook=["on_train_epoch_start", "on_train_epoch_end"],
)
def test_stage_that_was_cut_off_keeps_the_same_epochs(tmp_path, selection, hook):
    def stage(name, cut):
        words = (*LONG, f"evaluation.selection={selection}")
        words += ("trainer.keep_best=1", "trainer.keep_every=3")
        parts, folder, stages = stages_of(tmp_path / name, "dann", *words)
        for one in stages[:-1]:
            run_stage(parts, one, folder)
        if cut:
            bench = set_up(parts, stages[-1], folder)
            bench.trainer.callbacks.insert(0, Cut(hook, 3))
            with pytest.raises(PowerCutError):
                fit(bench.trainer, bench.method, bench.data, parts.recipe)
        run_stage(parts, stages[-1], folder)
        return folder / stages[-1].key

    whole, resumed = stage("whole", False), stage("cut", True)
    assert numbers(whole) == numbers(resumed)
    for file in whole.rglob("epochs/*/model.safetensors"):
        found = load_file(resumed / file.relative_to(whole))
        for name, tensor in load_file(file).items():
            assert torch.equal(tensor, found[name]), name


@pytest.mark.slow
def test_variant_that_is_kept_leaves_its_epochs_to_the_stage(tmp_path):
    words = ("method={name: default, epochs: 2, certainty: 0}", "compare=[]")
    view = "augment.target={weak: [], strong: [RandomBrightnessContrast]}"
    folder = run(tmp_path, *words, view, "trainer.keep_every=1")
    assert numbers(folder / TRANSFER / "seed0/default") == [1, 2]


def test_best_epochs_without_a_score_are_a_problem_of_the_recipe():
    with pytest.raises(
        RecipeError, match=r"trainer\.keep_best: got 3, but evaluation\.selection=last"
    ):
        recipe("trainer.keep_best=3")
    assert recipe("trainer.keep_every=3").trainer.keep_every == 3


def test_epochs_are_not_kept_with_an_encoder():
    words = ("encoder=style", "norm=dsbn", "trainer.keep_every=1")
    with pytest.raises(RecipeError, match=r"trainer\.keep_every: keeps no encoder, since 'style'"):
        recipe(*words)


def test_methods_that_keep_no_epoch_are_named():
    chosen = recipe("compare=[note]", SCORED, "trainer.keep_best=1", "trainer.keep_every=2")
    told = remarks(chosen)
    assert [line.partition(":")[0] for line in told] == ["trainer.keep_best"] * 2 + [
        "trainer.keep_every"
    ]
    assert told[-1] == "trainer.keep_every: has no effect on note: a stream has no epochs"
