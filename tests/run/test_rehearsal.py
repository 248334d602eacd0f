"""Runs that are tried without training."""

import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.run import rehearse

SMALL = ("data.per_domain=40", "backbone.name=test_resnet")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("norm=film", "encoder=style", "condition=embedding"),
        ("norm=film", "encoder=style", "condition=mixture"),
        ("backbone.options={in_chans: 1}",),
        ("method=joint", "compare=[restyle, finetune]"),
        ("data.batch_size=1", "method=source_only", "compare=[]"),
    ],
    ids=" ".join,
)
def test_good_runs_pass(words):
    rehearse(load_recipe("quickstart", [*SMALL, *words]))


def test_refusals_of_all_stages_are_named_once():
    words = ["norm=in", "backbone.name=resnet10t", "method=joint", "compare=[source_only]"]
    with pytest.raises(RecipeError) as raised:
        rehearse(load_recipe("quickstart", [SMALL[0], *words]))
    (line,) = raised.value.problems
    assert line.startswith("layer4.0.bn1: instance statistics of a map with one element")


def test_unknown_domain_and_place_are_named():
    with pytest.raises(RecipeError, match="unknown domain 'claen': did you mean 'clean'"):
        rehearse(load_recipe("quickstart", [*SMALL, "data.source=[claen]"]))
    with pytest.raises(RecipeError, match=r"perturb: mixstyle: .*stage9"):
        rehearse(load_recipe("quickstart", [*SMALL, "perturb={name: mixstyle, where: [stage9]}"]))
