from __future__ import annotations

import re

import pytest

from domainnorm.backbones import create_model
from domainnorm.errors import RecipeError
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe import load_recipe, needs_network
from domainnorm.recipe.norm import lacking, read_norm
from domainnorm.recipe.problems import Problems
from domainnorm.registry import METHODS, MODULATIONS

WITH_MORE = ["adain", "spade"]  # need more than the domain of an image


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in WITH_MORE])
def test_every_catalogue_name_that_the_domain_suffices_for_is_a_norm(name):
    problems = Problems()
    assert read_norm(name, problems) == name
    assert not problems


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("spade", "norm: 'spade' needs a map with every image, "),
        ("adain", "norm: 'adain' needs the moments of a style image, "),
        ({"name": "spade", "hidden": 8}, "norm.name: 'spade' needs a map with every image, "),
        ({"early": "adain", "late": "dsbn"}, "norm.early: 'adain' needs the moments of a style i"),
        (
            {"statistics": "batch", "modulation": "spatial"},
            "norm.modulation: 'spatial' needs a map with every image, ",
        ),
    ],
)
def test_norm_that_needs_more_than_the_domain_is_refused_with_what_to_use(value, start):
    problems = Problems()
    read_norm(value, problems)
    (line,) = problems.lines
    needed = "map" if "map" in start else "style"
    assert line.startswith(start)
    assert line.endswith(
        "which a recipe cannot give; use a modulation that depends on the domain, 'table' or "
        f"'hyper' (norms 'cin', 'cbn', 'film'), or pass {needed}= to the model in Python"
    )


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (3, "norm: got 3, expected a norm name"),
        ({}, "norm: got an empty mapping, expected a norm name"),
        ({"name": "dsbm"}, "norm.name: unknown norm 'dsbm': did you mean 'dsbn'?"),
        ({"name": "cin", "wher": "all"}, "norm.wher: unknown key 'wher'"),
        ({"name": "cin", "where": 3}, "norm.where: got 3, expected all, stem, early, late,"),
        ({"name": "cin", "where": []}, "norm.where: got an empty list"),
        ({"name": "cin", "where": ["all", "a b"]}, "norm.where: got 'a b', expected all"),
        ({"name": "cin", "eps": "x"}, "norm.eps: got 'x', expected a number"),
        ({"name": "dsbn", "momentum": 5}, "norm.momentum: got 5.0, expected a number in [0, 1]"),
        ({"early": {"name": "cin", "eps": -1}}, "norm.early.eps: got -1.0, expected 0 or more"),
        ({"name": "cin", "stride": 0}, "norm.stride: got 0, expected 1 (every pixel) or more"),
        ({"name": "cin", "statistics": "batch"}, "norm.statistics: got 'batch' beside a name"),
        ({"statistics": "instance"}, "norm.modulation: missing, expected one of"),
        (
            {"statistics": "instanc", "modulation": "table"},
            "norm.statistics: unknown statistics 'instanc': did you mean 'instance'?",
        ),
        (
            {"statistics": "instance", "modulation": "tabel"},
            "norm.modulation: unknown modulation 'tabel': did you mean 'table'?",
        ),
        ({"where": "all"}, "norm: got 'where' without a name"),
        ({"early": "cinn"}, "norm.early: unknown norm 'cinn': did you mean 'cin'?"),
        ({"early": {"name": "cin", "where": "all"}}, "norm.early.where: unknown key 'where'"),
        ({"early": ["cin"]}, "norm.early: got ['cin'], expected a norm name"),
        ({"a b": "cin"}, "norm.a b: got 'a b', expected all, stem, early, late,"),
    ],
)
def test_a_wrong_norm_is_answered_with_its_key(value, fragment):
    problems = Problems()
    read_norm(value, problems)
    assert re.search(re.escape(fragment), "\n".join(problems.lines))


def test_a_rule_can_ask_for_the_norm_that_keeps_the_function():
    problems = Problems()
    assert read_norm({"all": "cin", "late": None}, problems) == {"all": "cin", "late": None}
    assert not problems


def test_options_are_converted_to_the_type_of_the_signature():
    assert read_norm({"name": "dsbn", "eps": "1e-3"}, Problems()) == {"name": "dsbn", "eps": 1e-3}


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
        ("norm=ibn_a",),
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
        ("norm={all: ibn_a}",),
        ("norm=ln",),
        ("norm={name: in, where: early}",),
        ("norm={statistics: domain, modulation: none}", "method=tent"),
        ("norm=bn", "method={name: joint, rows_weight: 1}"),
        ("method={name: adabn, where: early}", "compare=[]"),
        ("norm={statistics: domain, modulation: none}", "method=finetune", "compare=[]"),
    ],
    ids=" ".join,
)
def test_network_is_asked_where_norms_give_reason_to(words):
    assert asks(*words)


def test_size_of_embeddings_is_checked_before_a_network_is_there():
    words = ["norm=film", "encoder={name: style, embedding: 8}", "condition=embedding"]
    with pytest.raises(RecipeError, match="encoder: its embeddings have size 8, but the norms"):
        load_recipe("quickstart", words)
    words[0] = "norm={early: {name: film, embedding_size: 8}, late: bn}"
    load_recipe("quickstart", words)
