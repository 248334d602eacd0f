"""The model that a stage has left, without its data, and what its outputs say."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from domainnorm.backbones import load_domain, read_pack_header
from domainnorm.errors import CheckpointError
from domainnorm.serve import load_stored
from domainnorm.serve.stored import FileModel
from domainnorm.tasks.multilabel import MultiLabel
from tests.run.tiny import METHODS, TRANSFER

IMAGE = torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize("method", METHODS)
def test_model_of_a_stage_has_its_weights(finished, method):
    place = finished / TRANSFER / "seed0" / method
    stored = load_stored(place)
    assert not stored.model.training
    assert stored.model.domain_names == ("clean", "colour_cast")
    assert stored.class_names == tuple("0123456789")
    for key, tensor in load_file(place / "model.safetensors").items():
        assert torch.equal(stored.model.state_dict()[key], tensor)


def test_method_of_the_recipe_is_that_of_a_run_folder(finished):
    assert load_stored(finished).place == finished / TRANSFER / "seed0" / "tent"


def test_data_is_not_needed(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished, tmp_path / "moved")
    monkeypatch.chdir(folder / TRANSFER / "seed0")
    assert load_stored(Path("tent")).model(IMAGE, 0).shape == (2, 10)


@pytest.mark.parametrize("method", METHODS)
def test_packs_of_a_stage_fit_its_model(finished, method):
    stored = load_stored(finished / TRANSFER / "seed0" / method)
    for name in stored.model.domain_names:
        file = stored.place / "packs" / f"{name}.safetensors"
        assert read_pack_header(file)[0].domain == name
        load_domain(stored.model, file, f"{name} again")
        torch.testing.assert_close(
            stored.model(IMAGE, f"{name} again"), stored.model(IMAGE, name), rtol=0, atol=0
        )


@pytest.mark.parametrize("method", ["adabn", "tent"])
def test_domain_adapted_by_a_method_travels_to_the_source_model(finished, method):
    adapted = load_stored(finished / TRANSFER / "seed0" / method)
    source = load_stored(finished / TRANSFER / "seed0/source_only").model
    wanted = adapted.model(IMAGE, "colour_cast")
    assert (source(IMAGE, "colour_cast") - wanted).abs().max() > 1e-3
    load_domain(source, adapted.place / "packs/colour_cast.safetensors", replace=True)
    torch.testing.assert_close(source(IMAGE, "colour_cast"), wanted, rtol=0, atol=0)


def test_several_stages_are_listed_to_choose_from(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    seeds = folder / TRANSFER
    shutil.copytree(seeds / "seed0", seeds / "seed1")
    with pytest.raises(CheckpointError, match="2 finished stages, name one") as error:
        load_stored(folder)
    assert str(seeds / "seed1" / "tent") in str(error.value)


def test_run_without_a_finished_stage_says_how_to_go_on(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "stages")
    with pytest.raises(
        CheckpointError, match=f"no finished stage; go on with `run --resume {folder}"
    ):
        load_stored(folder)


@pytest.fixture
def files(finished):
    return FileModel(load_stored(finished))


def test_most_probable_class_is_said(files):
    output = torch.zeros(10)
    output[3] = 2
    said = files.said(output)
    assert said.classes == ("3",)
    assert said.confidence == pytest.approx(float(output.softmax(0)[3]))
    assert said.shares == pytest.approx(output.softmax(0).tolist())


def test_findings_above_one_half_are_said(files):
    files.task = MultiLabel(["a", "b", "c"])
    said = files.said(torch.tensor([1.0, -1.0, 3.0]))
    assert said.classes == ("a", "c")
    assert said.confidence == pytest.approx(float(torch.tensor([1.0, 1.0, 3.0]).sigmoid().mean()))
