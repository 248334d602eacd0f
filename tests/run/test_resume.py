"""A run that was interrupted ends with the same weights as one that was not."""

import csv
import functools
import signal

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from domainnorm.errors import CheckpointError
from domainnorm.run import resume_run
from domainnorm.run.machine import quiet_lightning
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import make_folder
from domainnorm.run.stage import run_stage, set_up
from domainnorm.run.training import fit
from tests.combinations import covering
from tests.run.tiny import (
    TRANSFER,
    WORDS,
    assert_same_weights,
    call,
    mtimes,
    newest,
    recipe,
    run,
    start,
    wait_for,
)

VIEWS = "augment.target={weak: [], strong: [RandomBrightnessContrast]}"
LONG = ("method={name: tent, epochs: 12}", "compare=[]", "trainer.max_epochs=12")


class PowerCutError(Exception):
    pass


class Cut(Callback):
    """Stops a fit at one hook of one epoch, without a chance to clean up."""

    def __init__(self, hook, epoch):
        self.epoch = epoch
        setattr(self, hook, self.cut)

    def cut(self, trainer, pl_module):
        if trainer.current_epoch >= self.epoch:
            raise PowerCutError


def stages_of(tmp_path, name, *words):
    quiet_lightning()
    asked = recipe(f"method={name}", "compare=[]", *words)
    folder = make_folder(asked, tmp_path, "run", {})
    return Parts(asked), folder, plan_stages(asked)


def weights_of(tmp_path, name, cut, *words):
    """Weights of a stage, cut off at one hook and resumed, or never cut off."""
    parts, folder, stages = stages_of(tmp_path / str(cut), name, *words)
    for stage in stages[:-1]:
        run_stage(parts, stage, folder)
    if cut is not None:
        bench = set_up(parts, stages[-1], folder)
        bench.trainer.callbacks.insert(0, Cut(*cut))
        with pytest.raises(PowerCutError):
            fit(bench.trainer, bench.method, bench.data, parts.recipe)
        assert list(bench.place.glob("*.ckpt"))
    run_stage(parts, stages[-1], folder)
    return load_file(folder / stages[-1].key / "model.safetensors")


EPOCHS = "trainer.max_epochs=4"
SELF_TRAINING = (
    "{name: daformer, threshold_rule: free, prior: estimated, masked_weight: 1.0, mask_size: 8}"
)
CASES = {
    "plain": ("source_only", EPOCHS),
    "selection": ("source_only", EPOCHS, "evaluation.selection=validation"),
    "patience": (
        *("source_only", "trainer.max_epochs=9", "evaluation.selection=validation"),
        *("trainer.patience=2", "method.lr=0.003", "method.warmup=0"),
    ),
    "average": ("source_only", EPOCHS, "trainer.ema=0.9"),
    "average, tent": ("tent", "method.epochs=3", "trainer.ema=0.9"),
    "selection without labels": ("dann", EPOCHS, "evaluation.selection=infomax"),
    "tent, chosen without labels": ("tent", "method.epochs=3", "evaluation.selection=snd"),
    "perturbed": ("source_only", EPOCHS, "perturb={name: mixstyle, p: 0.5}"),
    "tent": ("tent", "method.epochs=3"),
    "dann": ("dann", EPOCHS, "method.hidden=8"),
    "dsbn2": ("dsbn2", EPOCHS, "method.hidden=8"),
    "aad": ("aad", EPOCHS),
    "sfda": ("sfda", EPOCHS, "data.shots=1"),
    "cdan": ("cdan", EPOCHS, "method.hidden=8", "method.map_size=32"),
    "mcd": ("mcd", EPOCHS, "method.generator_steps=1"),
    "self_training": (SELF_TRAINING, EPOCHS, VIEWS),
    "swad": ("swad", EPOCHS, "method.start_patience=2"),
    "groupdro": ("groupdro", EPOCHS, "data.source=[clean,textured]"),
}


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """Weights of a case that was never cut off."""

    @functools.cache
    def weights(case):
        name, *words = CASES[case]
        return weights_of(tmp_path_factory.mktemp("uncut"), name, None, *words)

    return weights


OFTEN = ("plain", "selection without labels", "dann", "dsbn2", "self_training", "swad")


@covering(
    1,
    _slow=set(CASES) - {*OFTEN},
    case=CASES,
    hook=["on_train_epoch_start", "on_train_epoch_end", "on_train_end"],
)
def test_stage_cut_anywhere_ends_with_the_same_weights(uncut, tmp_path, case, hook):
    name, *words = CASES[case]
    expected, found = uncut(case), weights_of(tmp_path, name, (hook, 2), *words)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


def kill_and_resume(tmp_path, stage):
    process = start(tmp_path / "killed", "quickstart", *WORDS, *LONG)
    try:
        file = wait_for(process, f"*/*/{TRANSFER}/seed0/{stage}/training.ckpt", tmp_path / "killed")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert file.exists()
    assert not (file.parent / "results.json").exists()
    assert call("run", "--resume", str(newest(tmp_path / "killed"))) == 0
    return newest(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["source_only", "tent"])
def test_killed_process_resumes_to_the_same_weights(tmp_path, stage):
    assert_same_weights(run(tmp_path / "whole", *LONG), kill_and_resume(tmp_path, stage))


@pytest.mark.slow
def test_log_of_a_killed_process_holds_every_epoch_once(tmp_path):
    folder = kill_and_resume(tmp_path, "source_only")
    with (folder / TRANSFER / "seed0/source_only/log.csv").open(newline="") as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert epochs == list(range(12))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(tmp_path, number, code):
    process = start(tmp_path, "quickstart", *WORDS, "trainer.max_epochs=500")
    file = wait_for(process, f"*/*/{TRANSFER}/seed0/source_only/training.ckpt", tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"interrupted; go on with: domainnorm run --resume {newest(tmp_path)}" in errors
    assert "Traceback" not in errors
    assert "state_dict" in torch.load(file, weights_only=True)


def test_log_keeps_earlier_rows(tmp_path):
    parts, folder, (stage,) = stages_of(tmp_path, "source_only", "trainer.max_epochs=4")
    bench = set_up(parts, stage, folder)
    bench.trainer.callbacks.insert(0, Cut("on_train_epoch_start", 2))
    with pytest.raises(PowerCutError):
        fit(bench.trainer, bench.method, bench.data, parts.recipe)
    before = (bench.place / "log.csv").read_text()
    run_stage(parts, stage, folder)
    after = (bench.place / "log.csv").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 5


def interrupted(tmp_path):
    """A run folder whose only stage stopped after its first epoch, and its checkpoint."""
    parts, folder, (stage,) = stages_of(tmp_path, "source_only")
    bench = set_up(parts, stage, folder)
    bench.trainer.callbacks.insert(0, Cut("on_train_epoch_start", 1))
    with pytest.raises(PowerCutError):
        fit(bench.trainer, bench.method, bench.data, parts.recipe)
    return folder, bench.place / "training.ckpt"


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_truncated_checkpoint_names_the_file_and_the_way_out(tmp_path, kept):
    folder, file = interrupted(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"training.ckpt: not a complete checkpoint.*delete"):
        resume_run(folder)


def test_one_flipped_bit_of_a_checkpoint_is_refused(tmp_path):
    folder, file = interrupted(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"training.ckpt: .*the checksum of .* is wrong"):
        resume_run(folder)


def without_optimizer(stored):
    del stored["optimizer_states"]


def without_moments(stored):
    for one in stored["optimizer_states"][0]["state"].values():
        del one["exp_avg"]


def with_moments_of_others(stored):
    moments = list(stored["optimizer_states"][0]["state"].values())
    moments[0]["exp_avg"], moments[1]["exp_avg"] = moments[1]["exp_avg"], moments[0]["exp_avg"]


def with_a_text(stored):
    stored["state_dict"][next(iter(stored["state_dict"]))] = "x"


@pytest.mark.parametrize(
    "spoil", [without_optimizer, without_moments, with_moments_of_others, with_a_text]
)
def test_checkpoint_that_holds_something_else_is_refused(tmp_path, spoil):
    folder, file = interrupted(tmp_path)
    stored = torch.load(file, weights_only=True)
    spoil(stored)
    torch.save(stored, file)
    with pytest.raises(CheckpointError, match=r"training.ckpt: not a complete checkpoint"):
        resume_run(folder)


@pytest.mark.parametrize("content", [b"\xff", b"x\n1\n", b"epoch,step\n0\n", b"epoch\n0,1\n"])
def test_damaged_log_is_named_before_an_epoch_is_lost(tmp_path, content):
    folder, file = interrupted(tmp_path)
    file.with_name("log.csv").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"log.csv: cannot be read as a log .*; delete it"):
        resume_run(folder)


def test_checkpoint_of_another_model_is_refused(tmp_path):
    folder, file = interrupted(tmp_path)
    stored = torch.load(file, weights_only=True)
    stored["state_dict"].popitem()
    torch.save(stored, file)
    with pytest.raises(
        CheckpointError, match=r"training.ckpt: it belongs to another model.*recipe.yaml"
    ):
        resume_run(folder)


@pytest.mark.slow
def test_finished_stages_are_read_and_not_trained_again(tmp_path):
    folder = run(tmp_path, "method=adabn", "compare=[]")
    (folder / TRANSFER / "seed0/adabn/results.json").unlink()
    kept = ("source_only/model.safetensors", "source_only/results.json", "source_only/log.csv")
    before = mtimes(folder, [*kept, "adabn/model.safetensors"])
    assert call("run", "--resume", str(folder)) == 0
    after = mtimes(folder, [*kept, "adabn/model.safetensors"])
    assert [name for name in before if before[name] != after[name]] == ["adabn/model.safetensors"]


@pytest.mark.slow
def test_finished_run_resumes_to_the_same_metrics_and_tidies_up_after_a_kill(tmp_path):
    folder = run(tmp_path, "method=adabn", "compare=[]")
    before = (folder / "metrics.json").read_bytes()
    left = (".partial.1234.metrics.csv", f"{TRANSFER}/seed0/source_only/training.ckpt")
    for name in left:
        (folder / name).touch()
    (folder / "cost.json").unlink()
    assert call("run", "--resume", str(folder)) == 0
    assert (folder / "cost.json").exists()
    assert (folder / "metrics.json").read_bytes() == before
    assert not any((folder / name).exists() for name in left)
