"""Norms that may have nothing which the methods of a recipe need."""

import pytest

from domainnorm.backbones import create_model
from domainnorm.errors import RecipeError
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe import load_recipe, needs_network
from domainnorm.recipe.norm import lacking
from domainnorm.registry import METHODS, MODULATIONS

WITH_MORE = ("adain", "spade")


def asks(*words):
    return needs_network(load_recipe("quickstart", list(words)))


@pytest.mark.parametrize("norm", [name for name in CATALOGUE if name not in WITH_MORE])
def test_what_norms_lack_is_what_a_network_of_them_lacks(norm):
    groups = {"num_groups": 4} if CATALOGUE[norm].statistics == "group" else {}
    made = {"all": {"name": norm, **groups}}
    model = create_model("test_resnet", num_classes=2, norm=made, domains=["a", "b"])
    norms = list(model.norms())
    there = {
        "moments": any("running_mean" in n.statistics.state_dict() for n in norms),
        "rows": any(True for n in norms for _ in n.modulation.rows()),
        "weights": any(True for n in norms for _ in n.modulation.parameters()),
    }
    assert lacking(made) == {name for name, found in there.items() if not found}


def test_only_the_modulation_none_has_no_weights():
    modulations = [n for n in MODULATIONS.names() if not MODULATIONS.entry(n).constants["needs"]]
    halves = {n: {"statistics": "domain", "modulation": n} for n in modulations}
    assert [n for n in modulations if "weights" in lacking(halves[n])] == ["none"]


@pytest.mark.parametrize("norm", [None, "cin", {"name": "cin"}, {"early": "in", "late": None}])
def test_nothing_is_lacking_where_layers_keep_their_kin(norm):
    assert lacking(norm) == set()


def test_every_need_of_a_method_is_one_that_norms_may_lack():
    needs = {METHODS.entry(name).constants["needs"] for name in METHODS.names()}
    assert needs - {""} == {"moments", "weights"}


@pytest.mark.parametrize(
    "words",
    [
        ("norm=null",),
        ("norm=dsbn",),
        ("norm=cin",),
        ("norm={early: in, late: bn}",),
        ("norm={name: in, where: early}", "compare=[]"),
        ("norm=ln", "compare=[source_only]"),
        ("norm=bn", "method={name: joint, rows_weight: 0}"),
    ],
    ids=" ".join,
)
def test_usual_recipes_need_no_network(words):
    assert not asks(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("norm=in", "compare=[]"),
        ("norm={early: dsbn, late: in}",),
        ("norm=ibn_a",),
        ("norm=ln",),
        ("norm={name: in, where: early}",),
        ("norm={statistics: domain, modulation: none}",),
        ("norm=bn", "method={name: joint, rows_weight: 1}"),
        ("norm={statistics: domain, modulation: none}", "method=finetune", "compare=[]"),
    ],
    ids=" ".join,
)
def test_network_is_asked_where_norms_give_reason_to(words):
    assert asks(*words)


def test_size_of_embeddings_is_checked_before_a_network_is_there():
    words = ["norm=film", "encoder={name: style, embedding: 8}", "condition=embedding"]
    with pytest.raises(RecipeError, match="encoder: its embeddings are of size 8, and the norms"):
        load_recipe("quickstart", words)
    words[0] = "norm={early: {name: film, embedding_size: 8}, late: bn}"
    load_recipe("quickstart", words)
