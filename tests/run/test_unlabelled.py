"""Runs on domains that have no labels, of which nothing can be measured."""

import csv
import json
import shutil

import pytest
import torch

from domainnorm.data.datasets import FolderMasks, Manifest
from domainnorm.data.table import read_lines, write_lines
from domainnorm.evaluation import load_evaluated
from domainnorm.recipe import load_recipe
from domainnorm.run import run_matrix, run_recipe
from tests.combinations import few
from tests.run.tiny import call, figures

TEXT = """\
task: {task}
backbone: {{name: test_resnet}}
norm: dsbn
data: {{name: {name}, root: {root}, source: [a], target: [b, c], image_size: 32, batch_size: 6}}
method: {{name: tent, epochs: 1}}
compare: [adabn]
trainer: {{max_epochs: 1, threads: 1, accelerator: cpu}}
evaluation: {{resamples: 20}}
"""
NOTE = "–: no test image of {} has a label; nothing is measured"


def classes(folder, unlabelled):
    """A recipe for images with a class each; those of some domains have none in some splits."""
    Manifest.write_sample(folder / "data", domains=["a", "b", "c"])
    table = folder / "data" / "manifest.csv"
    lines = read_lines(table)
    for line in lines:
        if line["split"] in unlabelled.get(line["domain"], ()):
            line["target"] = ""
    write_lines(table, lines)
    return written(folder, "classification", "manifest")


def written(folder, task, name):
    file = folder / "recipe.yaml"
    file.write_text(TEXT.format(task=task, name=name, root=folder / "data"))
    return file


ALL = ("train", "val", "test")


@pytest.fixture(scope="module", params=few(1, ["classification", "segmentation"]))
def finished(request, tmp_path_factory):
    """A run whose second target has no label."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "classification":
        file = classes(folder, {"c": ALL})
    else:
        FolderMasks.write_sample(folder / "data", domains=["a", "b", "c"])
        shutil.rmtree(folder / "data" / "c" / "masks")
        file = written(folder, request.param, "folder_masks")
    with figures(drawn=True):
        return run_recipe(load_recipe(str(file)), folder / "runs")


def results_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_every_method_is_tested_on_the_domain_without_labels(finished):
    found = [one for one in results_of(finished) if one["domain"] == "c"]
    assert {one["method"] for one in found} == {"source_only", "adabn", "tent"}
    for one in found:
        assert (one["metrics"], one["intervals"]) == ({"n": 0}, {})
    files = list(finished.glob("stages/*/*/*/predictions-c.safetensors"))
    assert len(files) == 3
    assert all(len(load_evaluated(file)) > 0 for file in files)


def test_no_number_is_made_up(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["domain"] == "c"]
    measured = [line for line in lines if not line["metric"].startswith("score/")]
    assert [(line["metric"], line["value"]) for line in measured] == [("n", "0.0")] * 3


def test_target_without_labels_has_scores_all_the_same(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["domain"] in ("b", "c")]
    scored = {(line["domain"], line["method"], line["metric"]) for line in lines}
    masks = "segmentation" in (finished / "recipe.yaml").read_text()
    for method in ("source_only", "adabn", "tent"):
        for name in ("infomax", "snd", "view_agreement", "mixval", "source_accuracy", "ensv"):
            assert {("b", method, f"score/{name}"), ("c", method, f"score/{name}")} <= scored
        for name in ("class_ami", "dev"):
            assert (("c", method, f"score/{name}") in scored) != masks


def test_scores_over_stages_have_the_same_samples_of_training_images_and_no_label(finished):
    masks = "segmentation" in (finished / "recipe.yaml").read_text()
    found = [load_evaluated(f) for f in finished.glob("stages/*/*/*/unlabelled-b.safetensors")]
    assert len(found) == 3
    indices = found[0].index
    assert all(torch.equal(one.index, indices) for one in found)
    assert not any(one.is_labelled for one in found)
    assert len(indices) == (64 if masks else 1) * len(indices.unique())
    files = finished.glob("stages/*/*/*/predictions-b.safetensors")
    tested = {index for file in files for index in load_evaluated(file).index.tolist()}
    assert not tested & set(indices.tolist())


def test_table_has_dashes_and_says_why(finished):
    text = (finished / "results.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    columns = rows[0].index("c (target)"), rows[0].index("Δ target")
    assert NOTE.format("c") in text
    for row in rows[2:5]:
        assert row[columns[0]] == "–"
        assert (row[columns[1]] == "–") == ("source_only" in row[0])


def test_testing_again_shows_the_same_dashes(finished, capsys):
    assert call("test", str(finished)) == 0
    assert NOTE.format("c") in capsys.readouterr().out


def test_figures_are_those_of_the_domains_with_labels(finished):
    names = {path.stem.partition("_")[0] for path in (finished / "figures").iterdir()}
    assert {"confusion", "domains"} <= names
    if "segmentation" in (finished / "recipe.yaml").read_text():
        assert "overlays" in names


@pytest.mark.slow
def test_run_without_any_label_to_test_with_ends(tmp_path, capsys):
    file = classes(tmp_path, {"a": ("test",), "b": ALL, "c": ALL})
    assert call("run", str(file), "--output", str(tmp_path / "runs")) == 0
    said = capsys.readouterr().out
    assert "a – (no labels)  b – (no labels)  c – (no labels)" in said
    [folder] = (tmp_path / "runs").glob("*/*")
    assert NOTE.format("a, b, c") in (folder / "results.md").read_text()
    assert all(one["metrics"] == {"n": 0} for one in results_of(folder))


def test_method_that_needs_labels_which_are_not_there_is_refused_first(tmp_path, capsys):
    file = classes(tmp_path, {"c": ALL})
    words = ("compare=[oracle]", "--output", str(tmp_path / "runs"))
    assert call("run", str(file), *words) == 1
    assert "method 'oracle': images/c/" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_matrix_leaves_the_column_without_labels_empty(tmp_path, capsys):
    file = classes(tmp_path, {"c": ("test",)})
    recipe = load_recipe(str(file), ["data.target=[c]"])
    folder = run_matrix(recipe, tmp_path / "runs", "norms")
    assert "c: no test image has a label; its column stays empty" in capsys.readouterr().out
    found = json.loads((folder / "matrix_norms.json").read_text())
    assert {cell["column"] for cell in found["cells"]} == {"a"}


def test_matrix_without_any_label_is_refused_before_training(tmp_path, capsys):
    file = classes(tmp_path, dict.fromkeys("abc", ("test",)))
    assert call("matrix", str(file), "--output", str(tmp_path / "runs")) == 1
    assert "matrix: no test image of any domain has a label" in capsys.readouterr().err


def test_matrix_refuses_a_domain_it_cannot_train_on_before_it_trains(tmp_path, capsys):
    file = classes(tmp_path, {"c": ALL})
    assert call("matrix", str(file), "--output", str(tmp_path / "runs")) == 1
    said = capsys.readouterr()
    assert "method 'source_only': images/c/" in said.err
    assert "model of" not in said.out
    assert not list((tmp_path / "runs").rglob("stages"))


def move(folder, domain, split, to):
    """Give all images of a domain's split to another one."""
    table = folder / "data" / "manifest.csv"
    lines = read_lines(table)
    for line in lines:
        if (line["domain"], line["split"]) == (domain, split):
            line["split"] = to
    write_lines(table, lines)


def test_split_that_a_later_method_needs_is_asked_for_first(tmp_path, capsys):
    file = classes(tmp_path, {})
    move(tmp_path, "b", "val", "train")
    words = ("compare=[oracle]", "--output", str(tmp_path / "runs"))
    assert call("run", str(file), *words) == 1
    assert "method 'oracle': domain 'b': no images in split val; add" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_batch_that_a_later_method_cannot_fill_is_refused_first(tmp_path, capsys):
    file = classes(tmp_path, {})
    words = ("compare=[joint]", "data.batch_size=2", "--output", str(tmp_path / "runs"))
    assert call("run", str(file), *words) == 1
    assert "method 'joint': data.batch_size: 2 for 3 training domains" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
