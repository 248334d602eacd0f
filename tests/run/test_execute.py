"""A reduced quickstart through the real command line, and what it leaves."""

import csv
import json
import math
import shutil
import struct
from importlib.metadata import version

import pytest
import timm
import torch
from safetensors.torch import save_file

from domainnorm.errors import CheckpointError
from domainnorm.report import Result
from domainnorm.run import test_run as evaluate_again
from domainnorm.run.execute import _outcome as outcome
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from tests.run.tiny import (
    METHODS,
    TRANSFER,
    WORDS,
    assert_same_weights,
    call,
    newest,
    recipe,
    run,
    weights,
)


def results(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_every_method_is_measured_on_every_domain(finished):
    found = [(result["method"], result["domain"]) for result in results(finished)]
    assert found == [(m, d) for m in METHODS for d in ("clean", "colour_cast")]


def test_methods_that_saw_target_labels_are_marked(finished):
    supervised = {result["method"] for result in results(finished) if result["supervised"]}
    assert supervised == {"oracle"}


def test_table_and_json_agree(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["method"], row["domain"], row["metric"]): float(row["value"]) for row in rows}
    expected = {
        (result["method"], result["domain"], metric): math.nan if value is None else value
        for result in results(finished)
        for metric, value in {
            **result["metrics"],
            **{f"score/{name}": value for name, value in result["scores"].items()},
        }.items()
    }
    assert found == pytest.approx(expected, nan_ok=True)


def test_environment_names_versions_of_what_computes(finished):
    packages = json.loads((finished / "environment.json").read_text())["packages"]
    for name in ("domainnorm", "torch", "lightning", "timm"):
        assert packages[name] == version(name)


@pytest.mark.parametrize("name", ["domains.png", "balanced_accuracy.png"])
def test_figures_are_pictures_of_a_readable_size(finished, name):
    content = (finished / "figures" / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 300 <= width <= 6000
    assert 100 <= height <= 6000


def test_classes_and_images_have_tables(finished):
    told = (finished / "results.md").read_text()
    assert "\n**colour_cast** · recall of each class\n" in told
    counts = [line for line in told.splitlines() if line.startswith("| colour_cast |")]
    assert counts == ["| colour_cast | 20 | 10 | 10 |"]


def test_curves_and_confusions_of_the_method_are_drawn(finished):
    drawn = {file.name for file in (finished / "figures").glob("*.png")}
    name = TRANSFER.removeprefix("stages/") + "_seed0_tent.png"
    assert {f"curves_{name}", f"confusion_{name}", f"doubtful_{name}"} <= drawn


def test_stages_leave_no_training_checkpoints(finished):
    assert not list(finished.rglob("*.ckpt"))
    assert not list(finished.rglob(".partial.*"))


@pytest.mark.slow
def test_recipe_of_a_run_folder_repeats_it_bit_for_bit(finished, tmp_path):
    assert call("run", str(finished / "recipe.yaml"), "--output", str(tmp_path)) == 0
    (again,) = tmp_path.glob("*/*")
    assert_same_weights(finished, again)


@pytest.mark.slow
def test_other_seed_gives_other_weights(finished, tmp_path):
    other = run(tmp_path, "seed=1", "method=source_only", "compare=[]")
    first = (finished / TRANSFER / "seed0/source_only/model.safetensors").read_bytes()
    assert (other / TRANSFER / "seed1/source_only/model.safetensors").read_bytes() != first


@pytest.mark.slow
def test_layout_of_maps_changes_nothing_but_rounding(tmp_path):
    words = ("method=source_only", "compare=[]", "trainer.max_epochs=1", "trainer.limit_batches=1")
    one, other = (
        run(tmp_path / str(last), *words, f"trainer.channels_last={last}")
        for last in ("false", "true")
    )
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    for tensors, again in pairs:
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, again[name], rtol=1e-3, atol=1e-4, msg=name)


def test_channels_last_reaches_the_maps_of_the_network():
    asked = recipe("trainer.channels_last=true")
    model = Parts(asked).model(plan_stages(asked)[0])
    maps = []
    for norm in model.norms():
        norm.register_forward_hook(lambda _, given, out: maps.extend((given[0], out)))
    model(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 1, 0]))
    assert maps
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_testing_a_run_again_reproduces_its_metrics(finished, capsys):
    before = results(finished)
    evaluate_again(finished)
    table = capsys.readouterr().out
    for result in before:
        assert f"{result['metrics']['balanced_accuracy']:.3f}" in table


def test_testing_again_changes_no_file(finished):
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()}
    evaluate_again(finished)
    after = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if file.is_file()}
    assert after == before


def test_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no recipe.yaml in it; expected a folder that"):
        evaluate_again(tmp_path)


def test_missing_run_folder_is_answered_by_the_command_line(tmp_path, capsys):
    assert call("run", "--resume", str(tmp_path / "none")) == 1
    assert "no recipe.yaml in it" in capsys.readouterr().err


@pytest.mark.slow
def test_given_checkpoint_is_not_trained_again(finished, tmp_path):
    source = finished / TRANSFER / "seed0/source_only"
    run(tmp_path, f"checkpoint={source}", "method=adabn", "compare=[]")
    again = newest(tmp_path) / TRANSFER / "seed0"
    told = f"`source_only` was not trained in this run: its weights are of `{source}`."
    assert told in (newest(tmp_path) / "results.md").read_text()
    assert not (again / "source_only/log.csv").exists()
    for method in ("source_only", "adabn"):
        expected = (finished / TRANSFER / "seed0" / method / "model.safetensors").read_bytes()
        assert (again / method / "model.safetensors").read_bytes() == expected


@pytest.mark.slow
def test_a_run_folder_gives_each_seed_its_own_source_model(finished, tmp_path, capsys):
    run(tmp_path, f"checkpoint={finished}", "method=adabn", "compare=[]")
    place = f"{TRANSFER}/seed0/source_only/model.safetensors"
    assert (newest(tmp_path) / place).read_bytes() == (finished / place).read_bytes()
    words = (*WORDS, f"checkpoint={finished}", f"--output={tmp_path / 'none'}")
    assert call("run", "quickstart", *words, "seed=[0,7]") == 1
    assert f"no source model of clean → colour_cast, seed 7; expected {TRANSFER}/seed7" in (
        capsys.readouterr().err.replace("\n", " ")
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("place", ["", "model.safetensors", "epochs/1"])
def test_a_checkpoint_that_has_seen_labels_of_the_target_is_refused(
    finished, tmp_path, capsys, place
):
    stage = shutil.copytree(finished / TRANSFER / "seed0/source_only", tmp_path / "source_only")
    (stage / "epochs/1").mkdir(parents=True)
    shutil.copy(stage / "model.safetensors", stage / "epochs/1")
    words = (*WORDS, f"checkpoint={stage / place}", "data.source=[textured]", "data.target=[clean]")
    assert call("run", "quickstart", *words, f"--output={tmp_path / 'none'}") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "'source_only' (clean → colour_cast) has learned from labels of 'clean'" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_goes_on_where_its_checkpoint_is_gone_and_no_longer_needed(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    run(tmp_path, f"checkpoint={copy}", "method=adabn", "compare=[]")
    folder = newest(tmp_path)
    shutil.rmtree(folder / TRANSFER / "seed0/adabn")
    shutil.rmtree(copy)
    assert call("run", "--resume", str(folder)) == 0
    assert (folder / TRANSFER / "seed0/adabn/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("checkpoint=none", "checkpoint: none: no such model; expected a run folder, the folder"),
        ("backbone.weights=none.pth", "backbone.weights: no file none.pth"),
    ],
)
def test_weights_that_do_not_exist_are_refused_before_training(tmp_path, capsys, word, said):
    words = ("quickstart", word, "backbone.pretrained=true")
    for command, option, code in (("check", "--build", 2), ("run", f"--output={tmp_path}/none", 1)):
        assert call(command, *words, option) == code
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_finished_run_is_tested_without_its_pretrained_weights(tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    folder = run(tmp_path, f"backbone.weights={file}", "method=adabn", "compare=[]")
    file.unlink()
    assert call("test", str(folder)) == 0
    assert "adabn" in capsys.readouterr().out


def test_given_checkpoint_of_another_backbone_is_refused(finished, tmp_path, capsys):
    checkpoint = f"checkpoint={finished / TRANSFER / 'seed0/source_only'}"
    words = (*WORDS, checkpoint, "backbone.name=resnet10t", f"--output={tmp_path}")
    assert call("run", "quickstart", *words) == 1
    assert "weights of 'test_resnet', but backbone.name is 'resnet10t'" in capsys.readouterr().err


@pytest.mark.slow
def test_gradients_can_be_clipped_where_a_method_has_none(tmp_path):
    folder = run(tmp_path, "trainer.gradient_clip=1", "method=adabn", "compare=[]")
    assert len(results(folder)) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there_is_an_error_with_a_way_out(tmp_path, capsys):
    assert (
        call("run", "quickstart", *WORDS, "trainer.accelerator=gpu", "--output", str(tmp_path)) == 1
    )
    error = capsys.readouterr().err
    assert "without a GPU set trainer.accelerator=cpu" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_size_that_a_network_of_fixed_positions_refuses_is_named(tmp_path, capsys):
    vit = (*WORDS, "backbone.name=test_vit", "norm=cln", "compare=[]", "method=source_only")
    fixed = ("backbone.options={dynamic_img_size: false}", "--output", str(tmp_path))
    assert call("run", "quickstart", *vit, *fixed) == 1
    message = "32 × 32 pixels, but this network is made for 160 × 160; set backbone.options: {img_"
    assert message in capsys.readouterr().err
    assert not any(tmp_path.rglob("recipe.yaml")), "nothing was learned, so no run folder is left"
    fitting = ("backbone.options={dynamic_img_size: false, img_size: [32, 32]}", *fixed[1:])
    assert call("run", "quickstart", *vit, *fitting) == 0


@pytest.mark.parametrize(("target", "saw"), [("[]", False), ("[colour_cast]", True)])
def test_joint_saw_target_labels_where_there_is_a_target(tmp_path, target, saw):
    folder = run(tmp_path, "method=joint", "compare=[]", f"data.target={target}")
    assert {one["supervised"] for one in results(folder)} == {saw}
    assert ("† saw target labels" in (folder / "results.md").read_text()) == saw


def test_short_epochs_are_repeated_to_the_steps_asked_for(tmp_path):
    # 24 labelled images are two batches of 16.
    words = ("method=source_only", "compare=[{name: source_only, as: given, epochs: 1}]")
    folder = run(tmp_path, *words, "trainer.min_steps=5")
    logs = {
        name: (folder / TRANSFER / "seed0" / name / "log.csv").read_text().splitlines()
        for name in ("source_only", "given")
    }
    assert len(logs["source_only"]) == 1 + 3
    assert len(logs["given"]) == 1 + 1


def test_a_source_model_that_was_kept_is_said_in_the_line_of_its_stage():
    def line(adapted, **more):
        metrics = {"accuracy": 0.5, "adapted": adapted, **more}
        one = Result("a → b", "default", "b", "target", 0, metrics)
        return outcome([one], "accuracy")

    assert line(1.0) == "b 0.500"
    seen = {"agreement_before": 0.6, "agreement_after": 0.5, "forgotten": 0.0}
    assert line(0.0, **seen).endswith("views agree less after adaptation: the source model is kept")
    more = {**seen, "agreement_after": 0.601}
    assert "views agree hardly more after adaptation: the source" in line(0.0, **more)
    forgot = {**seen, "forgotten": 1.0}
    assert "a class is forgotten after adaptation: the source" in line(0.0, **forgot)
    assert "too unsure of these images" in line(0.0, certainty=0.2)
    merits = {"merit_one_row": -1.0, "merit_own_rows": 0.5}
    assert line(1.0, **merits) == "b 0.500  kept: own_rows"
    assert "kept: " not in line(0.0, **seen, merit_one_row=-1.0, merit_own_rows=-1.0)
