"""Weights averaged over steps, and stages that end early."""

import copy
import csv

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch.testing import assert_close

from domainnorm.errors import RecipeError
from domainnorm.methods.self_training import SelfTraining
from domainnorm.recipe import remarks
from domainnorm.registry import METHODS
from domainnorm.run.machine import quiet_lightning
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import make_folder
from domainnorm.run.stage import run_stage, set_up
from domainnorm.run.training import fit, selects
from tests.run.tiny import TRANSFER, recipe, run

VIEWS = "augment.target={weak: [], strong: [RandomBrightnessContrast]}"


def last_stage(tmp_path, name, *words):
    """Parts, folder and stage of a method, with a trained source model where one is needed."""
    quiet_lightning()
    asked = recipe(f"method={name}", "compare=[]", *words)
    parts, folder = Parts(asked), make_folder(asked, tmp_path, "run", {})
    *before, stage = plan_stages(asked)
    for one in before:
        run_stage(parts, one, folder)
    return parts, folder, stage


class Averaged(Callback):
    """The moving average of a model, in a loop over its tensors."""

    def __init__(self, decay):
        self.decay, self.steps, self.mean, self.found = decay, 0, {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        past = min(self.decay, 1 - 1 / self.steps)
        for name, tensor in pl_module.model.state_dict().items():
            now = tensor.detach().clone()
            if self.steps > 1 and now.is_floating_point():
                now = past * self.mean[name] + (1 - past) * now
            self.mean[name] = now

    def on_train_end(self, trainer, pl_module):
        self.found = copy.deepcopy(pl_module.deployed.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["source_only", "tent", "mcd", "aad", "finetune"])
def test_average_is_that_of_weights_and_moments_after_each_step(name, tmp_path):
    parts, folder, stage = last_stage(tmp_path, name, "trainer.ema=0.8", "trainer.max_epochs=4")
    bench, averaged = set_up(parts, stage, folder), Averaged(0.8)
    bench.trainer.callbacks.insert(0, averaged)
    fit(bench.trainer, bench.method, bench.data, parts.recipe)
    assert averaged.steps > 5
    for key, tensor in averaged.mean.items():
        assert_close(averaged.found[key], tensor, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.slow
def test_average_is_tested_and_saved(tmp_path):
    plain = run(tmp_path / "plain", "method=source_only", "compare=[]")
    mean = run(tmp_path / "mean", "method=source_only", "compare=[]", "trainer.ema=0.999")
    place = f"{TRANSFER}/seed0/source_only/model.safetensors"
    one, other = load_file(plain / place), load_file(mean / place)
    assert one.keys() == other.keys()
    assert not torch.equal(one["backbone.fc.weight"], other["backbone.fc.weight"])
    files = [folder / place for folder in (plain, mean)]
    said = [load_file(file.parent / "predictions-clean.safetensors") for file in files]
    assert any(not torch.equal(said[0][key], said[1][key]) for key in said[0])


@pytest.mark.parametrize("name", METHODS.names())
def test_method_with_an_average_of_its_own_or_without_steps_keeps_what_it_has(name):
    kind, constants = METHODS.load(name), METHODS.entry(name).constants
    rated = "lr" in METHODS.entry(name).parameters and constants["protocol"] == "fit"
    own = name == "swad" or issubclass(kind, SelfTraining)
    assert kind.may_average == (rated and not own)


def test_teacher_is_the_one_of_the_method(tmp_path):
    words = ("method.decay=0.5", "trainer.ema=0.999", VIEWS)
    parts, folder, stage = last_stage(tmp_path, "mean_teacher", *words)
    assert set_up(parts, stage, folder).method.teacher.decay == 0.5


def test_teacher_of_a_method_of_another_package_stays(tmp_path, monkeypatch):
    kind = METHODS.load("source_only")

    def taught(self, *words, before=kind.__init__, **options):
        before(self, *words, **options)
        self.follow(0.5)

    monkeypatch.setattr(kind, "__init__", taught)
    parts, folder, stage = last_stage(tmp_path, "source_only", "trainer.ema=0.999")
    assert set_up(parts, stage, folder).method.teacher.decay == 0.5


DESTROYED = ("trainer.max_epochs=9", "method.lr=0.003", "method.warmup=0")


def epochs(place):
    with (place / "log.csv").open(newline="") as file:
        return [float(row["val/selection"]) for row in csv.DictReader(file)]


def test_stage_ends_after_epochs_without_a_better_score(tmp_path, capsys):
    words = (*DESTROYED, "evaluation.selection=validation", "trainer.patience=2")
    folder = run(tmp_path, "method=source_only", "compare=[]", *words)
    scores = epochs(folder / TRANSFER / "seed0/source_only")
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 2 < 9
    assert f"ends after epoch {len(scores)} of 9" in capsys.readouterr().out


@pytest.mark.slow
def test_least_number_of_steps_is_made_all_the_same(tmp_path):
    words = (*DESTROYED, "evaluation.selection=validation", "trainer.patience=1")
    long = ("trainer.max_epochs=6", "trainer.min_steps=200")
    folder = run(tmp_path, "method=source_only", "compare=[]", *words, *long)
    with (folder / TRANSFER / "seed0/source_only/log.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps[-1] >= 200


def test_patience_without_a_score_is_a_problem_of_the_recipe():
    text = "trainer.patience: got 3, but evaluation.selection=last does not score epochs"
    with pytest.raises(RecipeError, match=text):
        recipe("trainer.patience=3")
    assert recipe("trainer.patience=3", "evaluation.selection=oracle").trainer.patience == 3


@pytest.mark.parametrize("selection", ["validation", "infomax", "oracle"])
@pytest.mark.parametrize("shots", ["null", "1"])
def test_methods_told_to_be_without_patience_are_those_that_keep_their_last_epoch(selection, shots):
    names = ("finetune", "joint", "adabn", "tent", "groupdro", "note", "dann")
    words = (f"method={names[0]}", f"compare=[{', '.join(names[1:])}]", f"data.shots={shots}")
    chosen = recipe(*words, f"evaluation.selection={selection}", "trainer.patience=2")
    told = " ".join(remarks(chosen))
    parts = Parts(chosen)
    for stage in plan_stages(chosen):
        model = parts.model(stage)
        method = parts.method(stage, model, data := parts.data(stage, model))
        method.eval_domains = data.val_domains
        assert (stage.label in told) != selects(chosen, method), stage.label
