"""Which epoch's weights a stage keeps."""

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from domainnorm.errors import CheckpointError, DataError
from domainnorm.recipe import load_recipe
from domainnorm.registry import DATASETS
from domainnorm.run.machine import quiet_lightning
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import RESULTS, make_folder
from domainnorm.run.stage import predict, run_stage, set_up
from domainnorm.run.training import Selection, fit
from tests.run.tiny import recipe


def carry_out(tmp_path, *words):
    quiet_lightning()
    asked = recipe("method=source_only", "compare=[]", *words)
    folder = make_folder(asked, tmp_path, "run", {})
    (stage,) = plan_stages(asked)
    run_stage(Parts(asked), stage, folder)
    return folder / stage.key


def log(place):
    with (place / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_validation_never_looks_at_the_target(tmp_path):
    place = carry_out(tmp_path, "evaluation.selection=validation")
    names = {name.split("/")[1] for name in log(place)[0] if name.startswith("val/")}
    assert names == {"clean", "selection"}


def test_validation_keeps_the_first_of_the_best_epochs(tmp_path):
    # A rate this high destroys the network after some epochs, so that the last is not the best.
    words = ("trainer.max_epochs=4", "method.lr=0.003", "method.warmup=0")
    chosen = carry_out(tmp_path / "all", *words, "evaluation.selection=validation")
    scores = [float(row["val/selection"]) for row in log(chosen)]
    best = scores.index(max(scores))
    assert best < 3
    last = carry_out(tmp_path / "last", *words)
    name = "backbone.fc.weight"
    found, other = (load_file(place / "model.safetensors")[name] for place in (chosen, last))
    assert not torch.equal(found, other)


def test_selected_model_has_rows_for_the_target(tmp_path):
    place = carry_out(tmp_path, "evaluation.selection=validation")
    state = load_file(place / "model.safetensors")
    tables = {name: tensor for name, tensor in state.items() if name.endswith(".scale")}
    assert tables
    assert all(torch.equal(tensor[0], tensor[1]) for tensor in tables.values())


@pytest.mark.parametrize("selection", ["last", "validation"])
def test_no_checkpoints_are_left(tmp_path, selection):
    place = carry_out(tmp_path, f"evaluation.selection={selection}")
    assert not list(place.glob("*.ckpt"))


class Spoiled(Callback):
    """The disk fails when training is over."""

    def on_fit_end(self, trainer, pl_module):
        (best,) = [one for one in trainer.checkpoint_callbacks if isinstance(one, Selection)]
        best.path.write_bytes(b"PK")


def test_spoiled_best_checkpoint_names_the_files_and_the_way_out(tmp_path):
    words = ("method=source_only", "compare=[]", "evaluation.selection=validation")
    asked = recipe(*words, "trainer.max_epochs=1")
    parts, (stage,) = Parts(asked), plan_stages(asked)
    bench = set_up(parts, stage, tmp_path)
    bench.trainer.callbacks.append(Spoiled())
    with pytest.raises(CheckpointError, match=r"best.ckpt: not a complete.* it and training.ckpt"):
        fit(bench.trainer, bench.method, bench.data, asked)


SPOILING = ("trainer.max_epochs=4", "method.lr=0.003", "method.warmup=0")


def adapted(tmp_path, *words):
    """The stage of a method that sees source labels and target images."""
    quiet_lightning()
    asked = recipe("method=dann", "compare=[]", *words)
    folder = make_folder(asked, tmp_path, "run", {})
    parts = Parts(asked)
    for stage in plan_stages(asked):
        run_stage(parts, stage, folder)
    return folder / stage.key


def kept(place, among):
    """Position of the epoch in ``log.csv`` that a stage's score in results.json is that of."""
    (target,) = [
        one for one in json.loads((place / RESULTS).read_text()) if one["role"] == "target"
    ]
    return [
        i
        for i, value in enumerate(among)
        if math.isclose(value, target["scores"]["infomax"], rel_tol=1e-4)
    ]


@pytest.fixture(scope="module")
def by_infomax(tmp_path_factory):
    words = ("method.lr=0.003", "method.warmup=0", "evaluation.selection=infomax")
    return adapted(tmp_path_factory.mktemp("infomax"), *words)


@pytest.mark.slow
def test_epoch_with_the_best_score_on_the_target_is_kept(by_infomax):
    scores = [float(row["val/colour_cast/infomax"]) for row in log(by_infomax)]
    assert kept(by_infomax, scores) == [scores.index(max(scores))]


def test_score_of_the_target_says_nothing_of_its_labels(by_infomax):
    names = {name for name in log(by_infomax)[0] if name.startswith("val/colour_cast/")}
    assert names == {"val/colour_cast/infomax"}
    results = json.loads((by_infomax / RESULTS).read_text())
    assert not any(one["supervised"] for one in results)


class Epoch:
    """What `Selection` asks of a trainer: one epoch after the other."""

    def __init__(self):
        self.strategy = self
        self.saved = []

    def broadcast(self, value):
        return value

    def save_checkpoint(self, path, weights_only):
        self.saved.append(self.number)


def kept_epochs(tmp_path, guard, epochs):
    """Epochs that are kept, one after the other, by (score, metric on the source)."""
    selection = Selection(tmp_path, recipe("evaluation.selection=infomax", guard), None, None)
    trainer = Epoch()
    for trainer.number, measured in enumerate(epochs):
        selection._measured = lambda trainer, measured=measured: measured
        selection.on_train_epoch_end(trainer, None)
        state = selection.state_dict()
        selection = Selection(tmp_path, recipe("evaluation.selection=infomax", guard), None, None)
        selection.load_state_dict(state)  # as after a kill
    return trainer.saved


@pytest.mark.parametrize(
    ("guard", "epochs", "saved"),
    [
        (0.05, [(1.0, 0.80), (2.0, 0.79), (3.0, 0.70), (1.5, 0.9)], [0, 1, 3]),
        (0.2, [(1.0, 0.80), (2.0, 0.79), (3.0, 0.70), (1.5, 0.9)], [0, 1, 2]),
        (0.05, [(1.0, 0.80), (1.0, 0.80), (0.9, 0.81)], [0]),
        (0.05, [(9.0, 0.10), (1.0, 0.80), (0.5, 0.84), (1.1, 0.78)], [0, 1]),
        (0.05, [(math.nan, 0.8), (1.0, 0.8), (math.nan, 0.8)], [0, 1]),
    ],
)
def test_guard_refuses_epochs_that_lost_the_source(tmp_path, guard, epochs, saved):
    assert kept_epochs(tmp_path, f"evaluation.guard={guard}", epochs) == saved


def test_method_that_sees_no_target_image_is_not_chosen_by_some(tmp_path):
    place = carry_out(tmp_path, "evaluation.selection=infomax", "trainer.max_epochs=1")
    assert not any("colour_cast" in name for name in log(place)[0])


def test_oracle_is_the_best_metric_on_target_validation_and_marked(tmp_path):
    place = carry_out(tmp_path, *SPOILING, "evaluation.selection=oracle")
    scores = [float(row["val/colour_cast/balanced_accuracy"]) for row in log(place)]
    assert scores.index(max(scores)) < 3
    asked = recipe("method=source_only", "compare=[]", "evaluation.selection=oracle")
    parts, (stage,) = Parts(asked), plan_stages(asked)
    bench = set_up(parts, stage, place.parents[3], finished=True)
    predict(bench)
    (found,) = bench.scorer.validated(["colour_cast"]).values()
    assert found.metrics()["balanced_accuracy"] == pytest.approx(max(scores))
    results = json.loads((place / RESULTS).read_text())
    assert all(one["supervised"] for one in results)


def test_metric_that_no_validation_label_defines_is_refused_before_the_first_stage(tmp_path):
    DATASETS.load("chest_xray").write_sample(tmp_path)
    words = [
        f"data.root={tmp_path}",
        "backbone.pretrained=false",
        "evaluation.selection=validation",
    ]
    asked = load_recipe("medical/chest_xray", words)
    parts, stages = Parts(asked), list(plan_stages(asked))
    parts.check_images(stages)
    everywhere = [
        replace(one, labels=(1,) * len(one.labels)) if one.split == "val" and one.labels else one
        for one in parts.dataset.records
    ]
    parts.dataset.records = everywhere
    with pytest.raises(DataError, match=r"evaluation\.selection: auroc cannot be computed"):
        parts.check_images(stages)
