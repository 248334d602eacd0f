"""Perturbations that a recipe names, through the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from tests.run.tiny import TRANSFER, WORDS, assert_same_weights, call, recipe, run, weights

PERTURB = "perturb={name: mixstyle, where: [stage1, stage2], p: 1.0}"


@pytest.fixture(scope="module")
def perturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose source training is perturbed."""
    return run(tmp_path_factory.mktemp("perturbed"), PERTURB)


def same(first: Path, second: Path, method: str) -> bool:
    stage = f"{TRANSFER}/seed0/{method}"
    one, other = weights(first)[stage], weights(second)[stage]
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_training_on_source_labels_is_perturbed(perturbed, finished):
    assert not same(perturbed, finished, "source_only")


def test_training_on_target_labels_is_not_perturbed(perturbed, finished):
    assert same(perturbed, finished, "oracle")


@pytest.mark.slow
def test_perturbed_run_is_repeated_bit_for_bit_by_its_resolved_recipe(perturbed, tmp_path):
    assert call("run", str(perturbed / "recipe.yaml"), "--output", str(tmp_path)) == 0
    (again,) = tmp_path.glob("*/*")
    assert_same_weights(perturbed, again)


def test_perturbed_run_is_tested_again_with_the_same_results(perturbed, capsys):
    written = (perturbed / "results.md").read_text()
    assert call("test", str(perturbed)) == 0
    table = capsys.readouterr().out
    for row in written.splitlines()[2:]:
        for number in (cell.strip() for cell in row.split("|")):
            if number.startswith("0."):
                assert number in table


@pytest.mark.parametrize(
    ("method", "places"),
    [
        ("source_only", 2),
        ("joint", 2),
        ("oracle", 0),
        ("finetune", 0),
        ("adabn", 0),
        ("tent", 0),
    ],
)
def test_methods_that_learn_from_source_labels_have_the_perturbation(method, places):
    asked = recipe(PERTURB, f"method={method}", "compare=[]")
    stage = next(stage for stage in plan_stages(asked) if stage.method.name == method)
    model = Parts(asked).model(stage)
    assert len(getattr(model, "perturbations", [])) == places


@pytest.mark.parametrize(
    ("perturb", "message"),
    [
        ("{name: dsu, where: layer9}", "perturb: dsu: where: 'layer9' is no place in this back"),
        ("{name: dsu, p: 2}", "perturb: dsu: p: got 2.0, expected a probability in [0, 1]"),
        ("[dsu, mixstyle]", "perturb: mixstyle: where: the output of 'layer1.0' is perturbed alr"),
    ],
)
def test_what_does_not_fit_the_backbone_is_answered_with_its_key(
    tmp_path, capsys, perturb, message
):
    words = (*WORDS, f"perturb={perturb}", f"--output={tmp_path}")
    assert call("run", "quickstart", *words) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("model.safetensors"))
