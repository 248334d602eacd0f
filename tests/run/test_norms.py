"""Every norm that a recipe may name works on what a recipe gives."""

from __future__ import annotations

import pytest
import torch

from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe.norm import read_norm
from domainnorm.recipe.problems import Problems
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from tests.run.tiny import call, recipe, run


def allowed(name: str) -> bool:
    problems = Problems()
    read_norm(name, problems)
    return not problems


@pytest.mark.parametrize("name", [name for name in CATALOGUE if allowed(name)])
def test_network_with_the_norm_learns_from_images_and_their_domains(name):
    groups = ", num_groups: 8" if name in ("gn", "cgn") else ""  # of 24 and more channels
    asked = recipe(f"norm={{all: {{name: {name}{groups}}}}}", "backbone.name=test_efficientnet")
    stage = plan_stages(asked)[0]
    model = Parts(asked).model(stage)
    logits = model(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 1, 0]))
    logits.square().mean().backward()
    trained = [p for norm in model.norms() for p in norm.parameters()]
    assert logits.isfinite().all()
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["film", "{early: tin, late: dsbn}"])
def test_norm_with_an_optional_condition_goes_through_a_run(tmp_path, norm):
    folder = run(tmp_path, f"norm={norm}", "method=source_only", "compare=[]")
    assert call("test", str(folder)) == 0
