from __future__ import annotations

import re

import pytest

from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe.norm import read_norm
from domainnorm.recipe.problems import Problems

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
        "which a recipe cannot give; use a modulation that reads the domain, 'table' or 'hyper' "
        f"(norms 'cin', 'cbn', 'film'), or pass {needed}= to the model in Python"
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
