"""A finished run in Python, and the matrix of domains of its models."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import domainnorm
from domainnorm.errors import CheckpointError, DataError, RecipeError
from domainnorm.evaluation import CrossDomainMatrix
from domainnorm.tasks import Classification
from tests.run.tiny import METHODS, TRANSFER, run

DOMAINS = ("clean", "colour_cast")


@pytest.fixture(scope="module")
def loaded(finished):
    return domainnorm.load_run(finished)


@pytest.mark.slow
def test_stages_are_those_that_the_run_has_finished(loaded):
    assert loaded.stages == [f"clean-to-colour_cast/seed0/{name}" for name in sorted(METHODS)]
    assert loaded.recipe.method.name == "tent"


@pytest.mark.parametrize("stage", METHODS)
def test_model_on_the_data_of_its_stage_predicts_what_is_stored(loaded, stage):
    model, data = loaded.model(stage), loaded.data(stage)
    for name, stored in loaded.predictions(f"seed0/{stage}").items():
        (batch,) = data.evaluation_dataloader(name)
        with torch.no_grad():
            shares = model(batch["image"], batch["domain"]).softmax(1)
        torch.testing.assert_close(shares, stored.probabilities)
        assert batch["index"].tolist() == stored.index.tolist()
        records = [loaded.dataset.records[index] for index in stored.index.tolist()]
        assert {(one.domain, one.split) for one in records} == {(name, "test")}


def test_stage_without_a_name_is_the_method_of_the_recipe(loaded):
    one, other = loaded.model().state_dict(), loaded.model("tent").state_dict()
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_data_of_a_stage_are_what_its_method_may_see(loaded):
    assert (loaded.data().labelled, loaded.data().unlabelled) == ([], ["colour_cast"])
    assert loaded.data("source_only").labelled == ["clean"]


def test_results_are_those_of_the_files(loaded, finished):
    stored = json.loads((finished / "metrics.json").read_text())
    told = {(one["method"], one["domain"]): one["metrics"]["accuracy"] for one in stored}
    assert {(one.method, one.domain): one.metrics["accuracy"] for one in loaded.results} == told


def test_unknown_stage_is_named_with_the_nearest(loaded):
    with pytest.raises(CheckpointError, match="unknown stage 'tents': did you mean 'clean-to-"):
        loaded.model("tents")


def test_several_stages_of_a_name_are_listed(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(folder / TRANSFER / "seed0", folder / TRANSFER / "seed1")
    loaded = domainnorm.load_run(folder)
    with pytest.raises(CheckpointError, match="2 finished stages, name one"):
        loaded.predictions("tent")
    assert set(loaded.predictions("seed1/tent")) == set(DOMAINS)


def test_what_is_elsewhere_is_overridden(finished):
    assert domainnorm.load_run(finished, ["data.batch_size=7"]).recipe.data.batch_size == 7
    with pytest.raises(RecipeError, match="batch_sise"):
        domainnorm.load_run(finished, ["data.batch_sise=7"])


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder that `domainnorm run` has made"):
        domainnorm.load_run(tmp_path)


def test_matrix_of_a_model_is_that_of_the_command(tmp_path):
    folder = run(tmp_path, "--kind", "norms", "trainer.max_epochs=1", "seed=0", command="matrix")
    loaded = domainnorm.load_run(folder)
    matrix = domainnorm.compare_domains(loaded.model("joint"), loaded.data("joint"), resamples=20)
    stored = CrossDomainMatrix.from_json(folder / "matrix_norms.json")
    assert (matrix.rows, matrix.columns) == (stored.rows, stored.columns)
    for metric in stored.metrics:
        torch.testing.assert_close(
            torch.tensor(matrix.values(metric)), torch.tensor(stored.values(metric))
        )
        torch.testing.assert_close(
            torch.tensor(matrix.intervals(metric)), torch.tensor(stored.intervals(metric))
        )


def test_matrix_of_loaders_is_that_of_the_data_module(loaded):
    model, data = loaded.model().train(), loaded.data()
    loaders = {
        name: [{"image": one["image"], "target": one["target"]} for one in loader]
        for name in DOMAINS
        for loader in [data.evaluation_dataloader(name)]
    }
    task = Classification(data.class_names)
    found = domainnorm.compare_domains(model, loaders, task=task, resamples=5)
    wanted = domainnorm.compare_domains(model, data, resamples=5)
    assert (found.values("nll") == wanted.values("nll")).all()
    assert model.training
    summary = found.summary()["accuracy"]
    stored = loaded.predictions()["clean"].metrics()["accuracy"]
    assert summary.mean[0, 0] == pytest.approx(stored)


def test_domains_without_labels_have_no_column(loaded):
    images = {"image": torch.rand(3, 3, 32, 32)}
    loaders = {
        "clean": [{**images, "target": torch.tensor([0, 1, 2])}],
        "colour_cast": [{**images, "target": torch.full((3,), -1)}],
    }
    task = Classification([str(digit) for digit in range(10)])
    matrix = domainnorm.compare_domains(loaded.model(), loaders, task=task, resamples=5)
    assert (matrix.rows, matrix.columns) == (list(DOMAINS), ["clean"])
    loaders.pop("clean")
    with pytest.raises(DataError, match="no test image of any domain has a label"):
        domainnorm.compare_domains(loaded.model(), loaders, task=task)


def test_loaders_need_a_task(loaded):
    with pytest.raises(DataError, match="loaders without a task, expected task="):
        domainnorm.compare_domains(loaded.model(), {"clean": []})


def test_code_of_the_page_runs(finished):
    page = (Path(__file__).parents[2] / "docs/extending.md").read_text(encoding="utf-8")
    code = page.split("## A finished run")[1].split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace("outputs/quickstart/<time>", str(finished)), names)
    assert len(names["found"].index) == 10
    assert names["matrix"].rows == list(DOMAINS)
