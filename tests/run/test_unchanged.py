"""What a run goes on with is what it began with, and what it writes is whole."""

import json
import os
import shutil

import pytest
import torch
import yaml

import domainnorm
from domainnorm.data.datasets import Folder
from domainnorm.errors import CheckpointError
from domainnorm.run.training import WholeCheckpoints
from domainnorm.storage import locked
from tests.run.tiny import call

WORDS = (
    *("configs=[trainer/cpu]", "data.name=folder", "data.source=[photo]"),
    *("data.target=[painting]", "data.image_size=32", "backbone={name: test_resnet}"),
    *("backbone.pretrained=false", "norm=dsbn", "augment={default: []}", "trainer.threads=1"),
    *("trainer.max_epochs=1", "method=adabn", "compare=[source_only]", "seed=[0]"),
    *("evaluation.resamples=2", "task.name=classification"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run on files, with some that are no images."""
    place = tmp_path_factory.mktemp("runs")
    Folder.write_sample(place / "data")
    (place / "data" / "splits.csv").unlink()
    (place / "data" / "photo" / "notes.txt").write_text("no class")
    (place / "data" / "photo" / "car" / "notes.txt").write_text("no image")
    recipe = place / "mine.yaml"
    recipe.write_text("data: {name: folder}\n")
    words = (*WORDS, f"data.root={place / 'data'}")
    assert call("run", str(recipe), *words, "--output", str(place / "out")) == 0
    (folder,) = (place / "out" / "mine").iterdir()
    return folder


def umask():
    current = os.umask(0)
    os.umask(current)
    return current


@pytest.fixture
def copied(made, tmp_path):
    """The run, and its data, to be changed."""
    shutil.copytree(made.parents[2] / "data", tmp_path / "data")
    shutil.copytree(made, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    text = recipe.read_text().replace(str(made.parents[2] / "data"), str(tmp_path / "data"))
    recipe.write_text(text)
    return tmp_path / "run"


@pytest.mark.slow
def test_data_that_moved_and_other_threads_change_nothing(copied):
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("threads: 1", "threads: 2"))
    assert call("run", "--resume", str(copied)) == 0


def test_data_that_have_changed_are_refused_with_the_difference(copied, capsys):
    images = sorted((copied.parent / "data" / "photo" / "car").glob("[!n]*"))
    for number in range(20):
        shutil.copy(images[0], images[0].with_stem(f"new_{number}"))
    assert call("run", "--resume", str(copied)) == 1
    said = capsys.readouterr().err
    assert "the data have changed since its start (photo, train: " in said
    assert "start a new run" in said


def test_a_model_is_not_tested_on_other_data_than_it_was_trained_on(copied, capsys):
    assert call("test", str(copied)) == 0
    next((copied.parent / "data" / "photo" / "car").glob("[!n]*")).unlink()
    assert call("test", str(copied)) == 1
    assert "trained on other data (" in capsys.readouterr().err
    run = domainnorm.load_run(copied)
    run.model()
    with pytest.raises(CheckpointError, match="so test images may have been learned"):
        run.data()


def test_another_recipe_is_refused_where_stages_are_finished(copied, capsys):
    file = copied / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    recipe["trainer"]["max_epochs"] = 12
    file.write_text(yaml.safe_dump(recipe))
    assert call("run", "--resume", str(copied)) == 1
    said = capsys.readouterr().err
    assert "finished with another recipe.yaml (trainer.max_epochs was 1, now 12)" in said


def test_other_weights_to_start_from_are_refused(copied, capsys):
    source = copied / "stages" / "photo-to-painting" / "seed0" / "source_only"
    file = copied / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    recipe["checkpoint"] = str(source)
    file.write_text(yaml.safe_dump(recipe))
    assert call("run", "--resume", str(copied)) == 1
    assert "checkpoint: other weights" in capsys.readouterr().err


def test_a_key_that_another_version_had_not_changes_nothing(copied):
    for file in copied.rglob("made_of.json"):
        made = json.loads(file.read_text())
        del made["recipe"]["trainer.accumulate"]
        file.write_text(json.dumps(made))
    assert call("run", "--resume", str(copied)) == 0


@pytest.mark.parametrize("key", ["recipe", "images", "data"])
def test_damaged_record_of_what_a_stage_was_made_of_is_named(copied, capsys, key):
    for file in copied.rglob("made_of.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), key: 0.5}))
    assert call("run", "--resume", str(copied)) == 1
    assert f"made_of.json: cannot be read ({key} is 0.5)" in capsys.readouterr().err


def test_weights_may_be_read_by_others(made):
    files = list(made.rglob("*.safetensors"))
    assert files
    assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~umask()}


def test_two_processes_do_not_carry_out_one_run(copied, capsys):
    with locked(copied):
        assert call("run", "--resume", str(copied)) == 1
    assert f"process {os.getpid()} is working in it" in capsys.readouterr().err


def test_what_is_left_out_of_the_data_is_on_the_page(made):
    page = (made / "report.html").read_text()
    assert "left out: 1 file (no image by its suffix, .txt), such as photo/car/notes.txt" in page


def test_checkpoints_are_written_beside_their_place(tmp_path, monkeypatch):
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    former = os.umask(0o022)
    try:
        WholeCheckpoints().save_checkpoint({"a": torch.ones(3)}, tmp_path / "stage" / "a.ckpt")
    finally:
        os.umask(former)
    file = tmp_path / "stage" / "a.ckpt"
    assert [path.name for path in file.parent.iterdir()] == ["a.ckpt"]
    assert not list(elsewhere.iterdir())
    assert file.stat().st_mode & 0o777 == 0o644
    assert torch.load(file, weights_only=True)["a"].tolist() == [1, 1, 1]
