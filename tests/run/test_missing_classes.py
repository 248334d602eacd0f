"""A run over a domain that lacks a class, as hospitals without a rare disease do."""

import json
import shutil

import pytest

from domainnorm.data.datasets import Folder
from domainnorm.recipe import load_recipe
from domainnorm.run import run_matrix, run_recipe

TEXT = """\
task: {name: classification, class_weights: balanced}
backbone: {name: test_resnet}
norm: dsbn
data:
  name: folder
  root: ROOT
  allow_missing_classes: true
  source: [photo]
  target: [painting]
  image_size: 32
method: {name: tent, epochs: 1}
compare: [source_only, adabn, oracle, joint]
trainer: {max_epochs: 1, threads: 1, accelerator: cpu}
evaluation: {resamples: 20, selection: validation}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder") / "data"
    Folder.write_sample(root)
    shutil.rmtree(sorted((root / "photo").iterdir())[0])
    (root / "splits.csv").unlink(missing_ok=True)
    file = root.parent / "lacks.yaml"
    file.write_text(TEXT.replace("ROOT", str(root)))
    return load_recipe(str(file))


@pytest.mark.slow
def test_every_method_runs_where_the_source_lacks_a_class(recipe, tmp_path):
    folder = run_recipe(recipe, tmp_path)
    results = json.loads((folder / "metrics.json").read_text())
    assert len(results) == 10
    assert all(0 <= result["metrics"]["balanced_accuracy"] <= 1 for result in results)


def test_so_do_both_matrices(recipe, tmp_path):
    folder = run_matrix(recipe, tmp_path, "both")
    assert list((folder / "figures").glob("*.png"))
