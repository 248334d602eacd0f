"""Which epoch's weights a stage keeps."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from domainnorm.errors import CheckpointError
from domainnorm.run.machine import quiet_lightning
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import make_folder
from domainnorm.run.stage import run_stage, set_up
from domainnorm.run.training import fit
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
        (best,) = [one for one in trainer.checkpoint_callbacks if one.monitor]
        Path(best.best_model_path).write_bytes(b"PK")


def test_spoiled_best_checkpoint_names_the_files_and_the_way_out(tmp_path):
    words = ("method=source_only", "compare=[]", "evaluation.selection=validation")
    asked = recipe(*words, "trainer.max_epochs=1")
    parts, (stage,) = Parts(asked), plan_stages(asked)
    bench = set_up(parts, stage, tmp_path)
    bench.trainer.callbacks.append(Spoiled())
    with pytest.raises(CheckpointError, match=r"best.ckpt: not a complete.* it and training.ckpt"):
        fit(bench.trainer, bench.method, bench.data, asked)
